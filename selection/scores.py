"""From one score per row to k rows: the end to take, outliers to leave out, equal shares of all levels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .quotas import apportion, spill_over


DIRECTIONS = ("low", "mid", "high")


@dataclass(frozen=True, eq=False)
class Ranked:
    """What `pick_by_score` found: `order` as positions, best first, and each row's `bin`, -1 where it was left out."""

    order: np.ndarray
    bin: np.ndarray


def pick_by_score(
    scores: np.ndarray,
    k: int,
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    direction: str,
    cut: float = 0.0,
    bins: int = 1,
    last: np.ndarray | None = None,
) -> Ranked:
    """Choose k of n rows by their scores.

    Args:
        scores: float[n]; rows with NaN are chosen only when no other is left.
        ids: int[n], which break ties.
        direction: "high" scores first, "low" first, or "mid": those nearest the median, by rank.
        cut: share of the rows, those with the most extreme scores of that end ("mid": of both), left out as outliers
            as long as others can fill k.
        bins: above 1, the scores are cut into so many bins of equal size and each gives the same share of k, drawn at
            random (stratified; coverage-centric selection, 2210.15809); `direction` then says which end is cut.
        last: bool[n], rows to take only after all others.

    >>> pick_by_score(np.array([3.0, 1.0, 2.0]), 2, np.arange(3), np.random.default_rng(0), direction="mid").order
    array([2, 0])
    """
    known = np.isfinite(scores)
    eligible = known if last is None else known & ~last
    rising = _by(scores, ids, eligible)
    kept, lost = _without_extremes(rising, direction, cut)
    left_out = np.concatenate([lost, _by(scores, ids, known & ~eligible), _by(ids, ids, ~known)])
    bin_of = np.full(len(scores), -1)
    parts = np.array_split(kept, bins)
    for number, rows in enumerate(parts):
        bin_of[rows] = number
    if bins == 1:
        order = _ranked(kept, scores, ids, direction)[:k]
    else:
        sizes = np.array([len(rows) for rows in parts])
        quotas = spill_over(apportion(np.ones(bins), min(k, len(kept))), sizes)
        drawn = [rng.permutation(rows)[:quota] for rows, quota in zip(parts, quotas, strict=True)]
        order = np.concatenate(drawn)
    return Ranked(np.concatenate([order, left_out[: k - len(order)]]).astype(np.int64), bin_of)


def percentile_within(scores: np.ndarray, groups: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The rank of each score among those of its group, from 0 (lowest) to 1, ties by id; NaN stays NaN.

    A group of one has 0.5. Groups are classes, or bins of length: what is compared within them no longer depends on
    them.

    >>> percentile_within(np.array([1.0, 5.0, 70.0, 60.0]), np.array([0, 0, 1, 1]), np.arange(4)).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    ranks = np.full(len(scores), np.nan)
    known = np.isfinite(scores)
    for group in np.unique(groups):
        rows = _by(scores, ids, known & (groups == group))
        ranks[rows] = np.linspace(0, 1, len(rows)) if len(rows) > 1 else 0.5
    return ranks


def equal_bins(values: np.ndarray, bins: int, ids: np.ndarray) -> np.ndarray:
    """The number, from 0, of each value's bin among `bins` of equal size, ties by id.

    >>> equal_bins(np.array([9, 1, 5, 7]), 2, np.arange(4)).tolist()
    [1, 0, 0, 1]
    """
    number = np.empty(len(values), dtype=np.int64)
    for which, rows in enumerate(np.array_split(np.lexsort((ids, values)), bins)):
        number[rows] = which
    return number


def check_ranking(direction: str, cut: float, bins: int) -> None:
    """Raise a `ValueError` for hyper-parameters that `pick_by_score` does not take."""
    if direction not in DIRECTIONS:
        raise ValueError(f"`direction` must be one of {', '.join(DIRECTIONS)}, got {direction!r}.")
    if not 0 <= cut < 1:
        raise ValueError(f"`cut` must be a share from 0 to below 1, got {cut}.")
    check_count("bins", bins)


def check_count(name: str, value: Any) -> None:
    """Raise a `ValueError` if `value` is not an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")


def _by(keys: np.ndarray, ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(among)
    return rows[np.lexsort((ids[rows], keys[rows]))]


def _without_extremes(rising: np.ndarray, direction: str, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """`rising` without the share `cut` at its end, and what was cut, the least extreme first."""
    count = int(cut * len(rising))
    if direction == "high":
        return rising[: len(rising) - count], rising[len(rising) - count :]
    if direction == "low":
        return rising[count:], rising[:count][::-1]
    low = count // 2
    high = count - low
    ends = np.concatenate([rising[:low][::-1], rising[len(rising) - high :]])
    return rising[low : len(rising) - high], ends


def _ranked(rising: np.ndarray, scores: np.ndarray, ids: np.ndarray, direction: str) -> np.ndarray:
    if direction == "low":
        return rising
    if direction == "high":
        return rising[np.lexsort((ids[rising], -scores[rising]))]
    off = np.abs(np.arange(len(rising)) - (len(rising) - 1) / 2)
    return rising[np.lexsort((ids[rising], off))]
