"""Greedy k-centre, blocked and exact: the picks of one pass over the rows per pick, for a few passes in all.

Least distances only fall. So take the rows with the largest values as a block, and note the largest value outside.
Greedy inside the block makes the global picks for as long as the block's maximum is not below that bound: no row
outside can have risen to it. Only then do the other rows hear of the new picks, all at once, in one matrix product.
The same holds for a value that mixes the least distance with a constant of the row.
"""

from dataclasses import dataclass

import numpy as np

from .farthest_rows import Greedy
from .rows import Exchange, Rows, nearest_squared


@dataclass(frozen=True, eq=False)
class Coverage:
    """What `k_center_greedy` found, by the row's position in `embeddings`.

    - `order`: the positions picked, in the order of picking.
    - `values`: what greedy maximised. Of a pick, just before it was picked (NaN for a start, which greedy did not
      choose); of any other row, at the end; NaN for rows that took no part.
    - `distances`: of each row to the nearest pick or earlier row at the end, NaN for rows that took no part.
    - `radius`: the largest of `distances`.
    """

    order: np.ndarray
    values: np.ndarray
    distances: np.ndarray
    radius: float


@dataclass(frozen=True, eq=False)
class ShardedCoverage:
    """What `k_center_sharded` found.

    - `ids`: int[k], the rows picked, of all processes, in the order of picking; the same in all of them.
    - `values`: float[k], the distance of each just before it was picked, NaN for the medoid.
    - `distances`: float[n], of each row of this process to the nearest pick or earlier row.
    - `radius`: the largest of the distances of all processes.
    """

    ids: np.ndarray
    values: np.ndarray
    distances: np.ndarray
    radius: float


def k_center_greedy(
    embeddings: np.ndarray,
    k: int,
    *,
    start: int | None = None,
    selected_embeddings: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    quality: np.ndarray | None = None,
    alpha: float = 0.0,
    normalize: bool = False,
    block: int = 512,
    slack: float = 0.0,
) -> Coverage:
    """Pick k rows, each the farthest from all rows picked before it (1708.00489, Algorithm 1).

    Args:
        embeddings: float[n, d] in any float type, read block by block as float32.
        k: how many rows to pick, at most the number of rows that take part.
        start: position of the first pick; by default the medoid (the row nearest the mean), and none where
            `selected_embeddings` has rows.
        selected_embeddings: float[m, d], rows picked earlier, which every distance starts from.
        ids: int[n]; of rows with equal values the one with the lowest id is picked. By default the position.
        rows: positions of the rows that take part, all by default. The others are neither picked nor covered.
        quality: float[n]; with it, greedy maximises `(1 - alpha) * distance / scale + alpha * quality`, where scale is
            the largest distance to what greedy starts from.
        alpha: weight of `quality`, 0 to 1.
        normalize: divide each row by its norm first.
        block: rows per block. It changes the speed, not the picks.
        slack: how much nearer than the farthest row a pick may be, as a share of that distance. Above 0 a block gives
            more picks, and there are fewer passes over all rows; the radius is at most 2 / (1 - slack) times the
            smallest possible one (2 times without slack).

    Takes O(n + block²) memory beside `embeddings`, plus a float32 copy where that is below 64 MiB and needed.
    Exact up to float32 rounding: see `Rows` for what counts as distance zero.

    Raises:
        ValueError: `k` is not from 1 to the number of rows, or `start` is not one of them.

    >>> k_center_greedy(np.array([[0.0], [1.0], [5.0], [9.0]]), 3, start=0).order.tolist()
    [0, 3, 2]
    """
    positions = np.arange(len(embeddings)) if rows is None else np.asarray(rows)
    if ids is not None:
        positions = positions[np.argsort(ids[positions], kind="stable")]
    if not 1 <= k <= len(positions):
        raise ValueError(f"`k` must be from 1 to the {len(positions)} rows that can be picked, got {k}.")
    if start is not None and start not in positions:
        raise ValueError(f"`start` must be the position of a row that can be picked, got {start}.")
    if quality is not None and slack:
        raise ValueError("`slack` is of distances alone: with `quality` it must be 0.")
    greedy = Greedy(Rows(embeddings, positions, normalize), np.arange(len(positions)), k, block, _checked(slack))
    if selected_embeddings is not None and len(selected_embeddings):
        np.minimum(greedy.least, nearest_squared(greedy.rows, selected_embeddings), out=greedy.least)
    elif start is None:
        greedy.force_medoid()
    if start is not None:
        greedy.force(int(np.flatnonzero(positions == start)[0]))
    if quality is not None:
        greedy.weigh(np.asarray(quality, dtype=np.float64)[positions], alpha)
    while greedy.count < k:
        greedy.advance()
    return _coverage(greedy, positions, len(embeddings))


def k_center_sharded(
    embeddings: np.ndarray,
    k: int,
    ids: np.ndarray,
    share: Exchange,
    *,
    selected_embeddings: np.ndarray | None = None,
    normalize: bool = False,
    block: int = 512,
    slack: float = 0.0,
) -> ShardedCoverage:
    """`k_center_greedy` over rows that lie in several processes, each of which keeps its own; all call it.

    A block of picks takes three exchanges: what the largest values of each process are, the vectors of the largest of
    all, at most `block` of them, and which of these the first process picks. The picks are those of one process that
    has all rows, in order of `ids`, but for near-equal distances that rounding orders otherwise.

    Args:
        embeddings: float[n, d], the rows of this process; it may have none.
        k: how many rows to pick of all processes together.
        ids: int[n], of the rows, rising, and of no other row in any process.
        share: how the processes hear of each other; `tithe.trainers.shared_by_all` over torch.distributed.
        selected_embeddings: float[m, d], rows picked earlier, the same in all processes.
        normalize, block, slack: as for `k_center_greedy`.

    Raises:
        ValueError: `k` is not from 1 to the number of all rows, or `ids` do not rise; in all processes.

    >>> rows = np.array([[0.0], [1.0], [5.0], [9.0]])
    >>> from tithe.selection.rows import alone
    >>> k_center_sharded(rows, 3, np.arange(4), alone).ids.tolist()
    [2, 0, 3]
    """
    ids = np.asarray(ids, dtype=np.int64)
    rising = len(ids) == len(embeddings) and bool((np.diff(ids) > 0).all())
    told = share((len(ids), rising))
    if not all(each for _, each in told):
        raise ValueError("`ids` must rise, one for each row of `embeddings`.")
    length = sum(rows for rows, _ in told)
    if not 1 <= k <= length:
        raise ValueError(f"`k` must be from 1 to the {length} rows that can be picked, got {k}.")
    greedy = Greedy(Rows(embeddings, normalize=normalize, share=share), ids, k, block, _checked(slack), share)
    if selected_embeddings is not None and len(selected_embeddings):
        np.minimum(greedy.least, nearest_squared(greedy.rows, selected_embeddings), out=greedy.least)
    else:
        greedy.force_medoid()
    while greedy.count < k:
        greedy.advance()
    distances = greedy.distances()
    return ShardedCoverage(greedy.order, greedy.value_at_pick, distances, max(share(float(distances.max(initial=0)))))


def _checked(slack: float) -> float:
    if not 0 <= slack < 1:
        raise ValueError(f"`slack` must be a share from 0 to below 1, got {slack}.")
    return slack


def _coverage(greedy: Greedy, positions: np.ndarray, n: int) -> Coverage:
    distances = greedy.distances()
    ends = distances if greedy.weight is None else greedy.value(greedy.least, greedy.bonus)
    values = np.full(n, np.nan)
    values[positions] = ends
    values[positions[greedy.order]] = greedy.value_at_pick
    everywhere = np.full(n, np.nan)
    everywhere[positions] = distances
    return Coverage(positions[greedy.order], values, everywhere, float(distances.max()))


def coverage_radius(embeddings: np.ndarray, chosen_embeddings: np.ndarray, *, normalize: bool = False) -> float:
    """The largest distance of any row to the nearest chosen one: what k-centre minimises.

    `embeddings` is float[n, d], `chosen_embeddings` float[c, d]; infinite if nothing is chosen. A `k_center_greedy`
    over the same rows has it already, as `Coverage.radius`.

    >>> coverage_radius(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0]]))
    4.0
    """
    squared = nearest_squared(Rows(embeddings, normalize=normalize), chosen_embeddings)
    return float(np.sqrt(squared.max()))
