"""D² sampling: rows drawn one by one with probability proportional to the squared distance to those drawn before.

Distances that miss the latest draws are too large, never too small. So a batch of rows is drawn from such stale
distances and each is kept with probability current / stale, which is exact in distribution, and all rows hear of the
kept ones in one matrix product per batch.
"""

from typing import Any, Protocol

import numpy as np

from .rows import Rows, nearest_squared


class Distances(Protocol):
    """Squared distances among rows, however they are computed: see `tithe.selection.rows.Rows`."""

    def __len__(self) -> int: ...

    def take(self, where: np.ndarray) -> Any: ...

    def lower(self, least: np.ndarray, centres: Any) -> None: ...

    def among(self, where: np.ndarray) -> np.ndarray: ...


def d_squared_sample(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    selected_embeddings: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    normalize: bool = False,
    batch: int = 256,
) -> np.ndarray:
    """Draw k distinct positions in `embeddings` by D² sampling, the seeding of k-means++.

    The arguments are those of `k_center_greedy`. The first draw is uniform where `selected_embeddings` has no rows.
    Once every row is at distance zero from a drawn one, the rest are filled up in the order of `ids`. Prefer it to
    k-centre where outliers matter: it picks a far row with high probability, k-centre always.

    >>> points = np.array([[0.0], [0.0], [5.0]])
    >>> sorted(d_squared_sample(points, 2, np.random.default_rng(0), ids=np.arange(3)).tolist())[-1]
    2
    """
    positions = np.arange(len(embeddings)) if rows is None else np.asarray(rows)
    if ids is not None:
        positions = positions[np.argsort(ids[positions], kind="stable")]
    if not 1 <= k <= len(positions):
        raise ValueError(f"`k` must be from 1 to the {len(positions)} rows that can be drawn, got {k}.")
    view = Rows(embeddings, positions, normalize)
    drawn: list[int] = []
    if selected_embeddings is not None and len(selected_embeddings):
        least = nearest_squared(view, selected_embeddings)
    else:
        drawn.append(int(rng.integers(len(positions))))
        least = np.full(len(positions), np.inf, dtype=np.float32)
        view.lower(least, view.take(np.array(drawn)))
    return positions[draw_by_distance(view, k, rng, drawn, least, batch)]


def draw_by_distance(
    view: Distances, k: int, rng: np.random.Generator, drawn: list[int], least: np.ndarray, batch: int = 256
) -> np.ndarray:
    """Draw on until there are k rows: `drawn` are some already, `least` the squared distances to the nearest of those.

    Both are changed. Rows at distance zero come last, in the order of `view`.
    """
    while len(drawn) < k:
        least[drawn] = 0
        cumulative = np.cumsum(least, dtype=np.float64)
        if cumulative[-1] == 0:
            rest = np.setdiff1d(np.arange(len(view)), drawn)
            drawn.extend(rest[: k - len(drawn)].tolist())
            break
        kept = _draw_batch(view, least, cumulative, min(batch, 2 * (k - len(drawn))), rng)[: k - len(drawn)]
        view.lower(least, view.take(np.array(kept)))
        drawn.extend(kept)
    return np.array(drawn)


def _draw_batch(
    view: Distances, least: np.ndarray, cumulative: np.ndarray, size: int, rng: np.random.Generator
) -> list[int]:
    """Propose `size` rows by `least` and keep each with probability current / stale: the first one always."""
    last = np.searchsorted(cumulative, cumulative[-1])
    proposed = np.minimum(np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right"), last)
    stale = least[proposed]
    bars = rng.random(size) * stale
    distances = view.among(proposed)
    distances[proposed[:, None] == proposed] = 0
    current = stale.copy()
    kept = []
    for draw in range(size):
        if bars[draw] < current[draw]:
            kept.append(int(proposed[draw]))
            np.minimum(current, distances[draw], out=current)
    return kept
