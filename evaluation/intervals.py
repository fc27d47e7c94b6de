"""How far a mean over questions can be trusted, and the difference of two runs on the same questions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


NUMBERS_AT_ONCE = 1 << 20  # 8 MiB of them
_NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A mean of `count` values and its confidence interval, which is NaN for a single value."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedComparison:
    """By how much the first of two runs is better on the same rows.

    Attributes:
        difference: mean of first minus second.
        low, high: its confidence interval, NaN for a single row.
        p_value: of the hypothesis that the two are alike, two-sided.
        wins, ties, losses: rows where the first is greater, equal, less.
    """

    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    ties: int
    losses: int


def bootstrap_interval(values: ArrayLike, confidence: float = 0.95, samples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of `values` [n] and its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    The interval holds the middle `confidence` of the means of `samples` resamples of the values, n each, drawn with
    replacement. It speaks of other questions of the same kind, not of another seed of training: over seeds, of which
    there are few, see `paired_difference`. Of few values it is too narrow, and of equal ones it has no width. Memory
    does not grow with `samples`.

    Raises `ValueError` if there is no value, one is NaN or infinite, `confidence` is not between 0 and 1, or there are
    no `samples`.

    >>> found = bootstrap_interval([1] * 80 + [0] * 20)
    >>> found.mean, round(found.low, 2), round(found.high, 2), found.count
    (0.8, 0.72, 0.88, 100)
    """
    numbers = _checked(values, "values")
    _check_settings(confidence, samples)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Interval(mean, _NAN, _NAN, 1)
    means = _resampled_means(numbers, samples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high), len(numbers))


def bootstrap_of_sums(
    counts: ArrayLike,
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    confidence: float = 0.95,
    samples: int = 2_000,
    seed: int = 0,
    repeats: ArrayLike | None = None,
) -> Interval:
    """A score of a whole test set and its percentile bootstrap interval, where sums over the rows determine it.

    Such are accuracy, F1 over classes or entities, perplexity: `counts` [n, k] is what each row adds to k sums, and
    `score` turns sums [m, k] into scores [m]. Rows are resampled as in `bootstrap_interval`, whose remarks hold here,
    too; resamples on which the score is not defined are left out. Where rows recur, `repeats` [n] may say how often
    each does, and no row then needs to stand there twice.

    Raises `ValueError` as `bootstrap_interval` does.

    >>> right_and_all = [[1, 1]] * 80 + [[0, 1]] * 20
    >>> found = bootstrap_of_sums(right_and_all, lambda sums: sums[:, 0] / sums[:, 1])
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (0.8, 0.72, 0.88)
    """
    rows = np.asarray(counts, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ValueError(f"`counts` must be finite numbers [n, k], of at least one row, got shape {rows.shape}")
    _check_settings(confidence, samples)
    if repeats is None:
        rows, repeats = np.unique(rows, axis=0, return_counts=True)
    often = np.asarray(repeats, dtype=np.int64)
    count = int(often.sum())
    value = float(score(often[None] @ rows)[0])
    if count == 1:
        return Interval(value, _NAN, _NAN, 1)
    rng, found = np.random.default_rng(seed), np.empty(samples)
    step = max(1, NUMBERS_AT_ONCE // max(rows.shape))
    for start in range(0, samples, step):
        part = found[start : start + step]
        part[:] = score(rng.multinomial(count, often / count, size=len(part)) @ rows)
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), count)


def wilson_interval(right: int, count: int, confidence: float = 0.95) -> Interval:
    """A share, `right` of `count`, and its score interval (Wilson 1927), for where only the share is known.

    Raises `ValueError` if there is no row, or more are right than there are.

    >>> found = wilson_interval(80, 100)
    >>> found.mean, round(found.low, 3), round(found.high, 3)
    (0.8, 0.711, 0.867)
    """
    from scipy.stats import norm

    if not 0 <= right <= count or not count:
        raise ValueError(f"`right` must be from 0 to `count`, which must be above 0; got {right} of {count}")
    _check_settings(confidence, 1)
    share, z = right / count, float(norm.ppf((1 + confidence) / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(share, float(max(0.0, middle - half)), float(min(1.0, middle + half)), count)


def paired_comparison(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> PairedComparison:
    """Whether `first` [n] is really greater than `second` [n], the scores of two runs on the same n questions.

    The interval is `bootstrap_interval` of the differences, row by row: what makes a question hard for both runs drops
    out. The p-value is that of the sign-flip permutation test: were the two alike, each difference might as well have
    the other sign; it is the share of flips whose sum is at least as far from 0 as the one observed. If these flips
    have no more than `samples` outcomes the p-value is exact, and for scores of 0 and 1 then McNemar's; else it is
    estimated from `samples` of them, as (1 + found) / (1 + samples), which is never 0 (Phipson & Smyth 2010). It
    speaks of one comparison: of twenty between runs that are alike, one will have p below 0.05.

    Raises `ValueError` if the two differ in length, and as `bootstrap_interval` does.

    >>> found = paired_comparison([1, 1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1])
    >>> found.difference, found.wins, found.ties, found.losses, round(found.p_value, 5)  # p is 2 / 2⁶
    (0.75, 6, 2, 0, 0.03125)
    """
    ours, theirs = _checked(first, "first"), _checked(second, "second")
    if len(ours) != len(theirs):
        raise ValueError(
            f"`first` and `second` must be scores of the same rows, got {len(ours)} and {len(theirs)}: keep the rows "
            "that both have, in one order"
        )
    differences = ours - theirs
    interval = bootstrap_interval(differences, confidence, samples, seed)
    return PairedComparison(
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_value=_sign_flip_p_value(differences, samples, np.random.default_rng([seed, 1])),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def _resampled_means(numbers: NDArray[np.float64], samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means [samples] of resamples; of values that repeat, as 0 and 1 do, by how often each is drawn: far cheaper."""
    count = len(numbers)
    distinct, repeats = np.unique(numbers, return_counts=True)
    few = 16 * len(distinct) <= count  # a count is drawn in the time of 16 values
    rows = max(1, NUMBERS_AT_ONCE // (len(distinct) if few else count))
    means = np.empty(samples)
    for start in range(0, samples, rows):
        part = means[start : start + rows]
        if few:
            part[:] = rng.multinomial(count, repeats / count, size=len(part)) @ distinct / count
        else:
            part[:] = numbers[rng.integers(count, size=(len(part), count))].mean(axis=1)
    return means


def _sign_flip_p_value(differences: NDArray[np.float64], samples: int, rng: np.random.Generator) -> float:
    """Two-sided. A difference of size s that occurs c times adds s · (2 · Binomial(c, ½) - c) to a flipped sum."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    total = float(sizes @ counts)
    bound = abs(float(differences.sum())) - 1e-10 * total  # sums that are equal but for rounding are equal
    if np.log1p(counts).sum() <= np.log(samples) + 1e-9:
        sums, chances = _flipped_sums(sizes, counts)
        return min(1.0, float(chances[np.abs(sums) >= bound].sum()))
    found, rows = 0, max(1, NUMBERS_AT_ONCE // len(sizes))
    for start in range(0, samples, rows):
        kept = rng.binomial(counts, 0.5, size=(min(rows, samples - start), len(sizes)))
        found += int((np.abs(kept @ (2 * sizes) - total) >= bound).sum())
    return (1 + found) / (1 + samples)


def _flipped_sums(
    sizes: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All sums that flips of the signs can give, and the chance of each."""
    from scipy.stats import binom

    sums, chances = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        kept = np.arange(count + 1)
        sums = np.add.outer(sums, size * (2 * kept - count)).ravel()
        chances = np.multiply.outer(chances, binom.pmf(kept, count, 0.5)).ravel()
    return sums, chances


def _checked(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"`{name}` must be a list of at least one number, got an array of shape {numbers.shape}")
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise ValueError(
            f"`{name}` must be finite, but {len(wrong)} of {len(numbers)} are not, the first in row {wrong[0]}; leave "
            "such rows out"
        )
    return numbers


def _check_settings(confidence: float, samples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}")
    if samples < 1:
        raise ValueError(f"`samples` must be at least 1, got {samples}")
