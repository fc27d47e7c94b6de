"""Greedy k-centre, blocked and exact: the picks of one pass over the rows per pick, for a few passes in all.

Least distances only fall. So take the rows with the largest values as a block, and note the largest value outside.
Greedy inside the block makes the global picks for as long as the block's maximum is not below that bound: no row
outside can have risen to it. Only then do the other rows hear of the new picks, all at once, in one matrix product.
The same holds for a value that mixes the least distance with a constant of the row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .rows import Centres, Exchange, Rows, alone, nearest_squared, squared_among


_TOLD = 16  # rows that a process tells of at least


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
    greedy = _Greedy(Rows(embeddings, positions, normalize), np.arange(len(positions)), k, block, _checked(slack))
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
    return greedy.coverage(positions, len(embeddings))


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
    greedy = _Greedy(Rows(embeddings, normalize=normalize, share=share), ids, k, block, _checked(slack), share)
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


class _Block(NamedTuple):
    """The rows with the largest values, of all processes in order of their keys, and the largest value outside."""

    keys: np.ndarray
    least: np.ndarray
    bonus: np.ndarray
    squares: np.ndarray
    bound: float
    bound_key: float


class _Greedy:
    """The state of one run: `least` holds squared distances, `bonus` what is added to them, -inf once picked.

    `keys` rise with the rows, and name them to the other processes; all hold the same `order` of keys.
    """

    def __init__(
        self, rows: Rows, keys: np.ndarray, k: int, block: int, slack: float = 0.0, share: Exchange = alone
    ) -> None:
        self.rows, self.keys, self.share = rows, keys, share
        self._ended = np.append(keys, -1)  # so that a key behind the last one has a place, too
        self.block, self.reach = max(1, block), (1 - slack) ** 2
        # Four times its even share of a block: all of many processes' largest values would be much to send.
        self.told = min(self.block, max(_TOLD, -(-4 * self.block // len(share(None)))))
        self.least = np.full(len(rows), np.inf, dtype=np.float32)
        self.bonus: np.ndarray = np.zeros(len(rows), dtype=np.float32)
        self.weight: float | None = None
        self.order = np.empty(k, dtype=np.int64)
        self.value_at_pick = np.empty(k)
        self.count = 0

    def force_medoid(self) -> None:
        """Pick the row nearest the mean, the first of several, before greedy begins."""
        least = self.rows.from_mean()
        row = int(np.argmin(least)) if len(least) else None
        told = self.share((np.inf, 0) if row is None else (float(least[row]), int(self.keys[row])))
        self.force(min(told)[1])

    def force(self, key: int) -> None:
        """Pick the row of that key before greedy begins."""
        self._pick(key, np.nan)
        self.rows.lower(self.least, self._centres(np.array([key])))

    def weigh(self, quality: np.ndarray, alpha: float) -> None:
        farthest = np.sqrt(max(self.share(float(self.least.max(initial=0)))))
        self.weight = (1 - alpha) / farthest if farthest > 0 else 0.0
        self.bonus = self.bonus + alpha * quality

    def value(self, least: np.ndarray, bonus: np.ndarray) -> np.ndarray:
        """What greedy maximises; without quality the square will do, and rounds less."""
        if self.weight is None:
            return least + bonus
        return self.weight * np.sqrt(least, dtype=np.float64) + bonus

    def advance(self) -> None:
        """Pick from one block for as long as no row outside it can be the next, then update all rows."""
        block = self._block()
        centres = self._centres(block.keys)
        # Another process's arithmetic may round otherwise: the first one's word counts, or they would part ways.
        picked, values = self.share(self._among(block, centres))[0]
        for place, value in zip(picked, values, strict=True):
            self._pick(int(block.keys[place]), value)
        self.rows.lower(self.least, Centres(centres.vectors[picked], centres.half_squares[picked]))

    def _among(self, block: _Block, centres: Centres) -> tuple[list[int], list[float]]:
        """The places in `block` that greedy picks, and their values, until a row outside could be the next."""
        distances = squared_among(centres, block.squares)
        least, bonus = block.least, block.bonus
        picked: list[int] = []
        found: list[float] = []
        while self.count + len(picked) < len(self.order):
            values = self.value(least, bonus)
            best = int(values.argmax())
            value, key = values[best], block.keys[best]
            if self.reach < 1:
                if picked and not value >= self.reach * block.bound:
                    break
            elif value < block.bound or (value == block.bound and key > block.bound_key):
                break
            picked.append(best)
            found.append(float(value) if self.weight is not None else float(np.sqrt(value)))
            bonus[best] = -np.inf
            np.minimum(least, distances[best], out=least)
        return picked, found

    def _block(self) -> _Block:
        """The rows that the next picks come from, the next one certainly.

        Each process tells of its own largest, so the largest of all are known to all; of these the vectors are sent.
        """
        inside, bound, outside = _largest(self.value(self.least, self.bonus), self.told)
        bound_key = float(self.keys[outside]) if outside is not None else np.inf
        mine = (self.keys[inside], self.least[inside], self.bonus[inside], self.rows.squares[inside])
        told = self.share((mine, -bound, bound_key))
        keys, least, bonus, squares = (np.concatenate(parts) for parts in zip(*(t[0] for t in told), strict=True))
        bounds = [t[1:] for t in told]
        order = np.argsort(keys)
        keys, least, bonus, squares = keys[order], least[order], bonus[order], squares[order]
        inside, bound, outside = _largest(self.value(least, bonus), self.block)
        if outside is not None:
            bounds.append((-bound, float(keys[outside])))
        negative, bound_key = min(bounds)
        return _Block(keys[inside], least[inside], bonus[inside], squares[inside], -negative, bound_key)

    def _centres(self, keys: np.ndarray) -> Centres:
        """The rows of `keys`, whichever process has them."""
        place = np.searchsorted(self.keys, keys)
        mine = np.flatnonzero(self._ended[place] == keys)
        parts = self.share((mine, *self.rows.take(place[mine])))
        where, vectors, half = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(where)
        return Centres(vectors[order], half[order])

    def _pick(self, key: int, value: float) -> None:
        self.order[self.count] = key
        self.value_at_pick[self.count] = value
        self.count += 1
        row = int(np.searchsorted(self.keys, key))
        if self._ended[row] == key:
            self.bonus[row] = -np.inf

    def distances(self) -> np.ndarray:
        """Of each row of this process to the nearest pick or earlier row, 0 for a pick."""
        distances = np.sqrt(self.least.astype(np.float64))
        distances[np.isin(self.keys, self.order)] = 0
        return distances

    def coverage(self, positions: np.ndarray, n: int) -> Coverage:
        distances = self.distances()
        ends = distances if self.weight is None else self.value(self.least, self.bonus)
        values = np.full(n, np.nan)
        values[positions] = ends
        values[positions[self.order]] = self.value_at_pick
        everywhere = np.full(n, np.nan)
        everywhere[positions] = distances
        return Coverage(positions[self.order], values, everywhere, float(distances.max()))


def _largest(values: np.ndarray, count: int) -> tuple[np.ndarray, float, int | None]:
    """The places of the `count` largest values, rising; the largest of the others, and the first place that has it.

    Of places with the least value inside the first ones are inside, so they always hold the first largest value.
    """
    if len(values) <= count:
        return np.arange(len(values)), -np.inf, None
    least_inside = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least_inside)
    level = np.flatnonzero(values == least_inside)[: count - len(above)]
    inside = np.sort(np.concatenate([above, level]))
    values[inside] = -np.inf
    outside = int(values.argmax())
    return inside, float(values[outside]), outside


def coverage_radius(embeddings: np.ndarray, chosen_embeddings: np.ndarray, *, normalize: bool = False) -> float:
    """The largest distance of any row to the nearest chosen one: what k-centre minimises.

    `embeddings` is float[n, d], `chosen_embeddings` float[c, d]; infinite if nothing is chosen. A `k_center_greedy`
    over the same rows has it already, as `Coverage.radius`.

    >>> coverage_radius(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0]]))
    4.0
    """
    squared = nearest_squared(Rows(embeddings, normalize=normalize), chosen_embeddings)
    return float(np.sqrt(squared.max()))
