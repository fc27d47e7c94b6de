"""Greedy k-centre, blocked and exact: the picks of one pass over the rows per pick, for a few passes in all.

Least distances only fall. So take the rows with the largest values as a block, and note the largest value outside.
Greedy inside the block makes the global picks for as long as the block's maximum is not below that bound: no row
outside can have risen to it. Only then do the other rows hear of the new picks, all at once, in one matrix product.
The same holds for a value that mixes the least distance with a constant of the row.
"""

from dataclasses import dataclass

import numpy as np

from .rows import Rows, nearest_squared


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
    greedy = _Greedy(Rows(embeddings, positions, normalize), k, block)
    if selected_embeddings is not None and len(selected_embeddings):
        np.minimum(greedy.least, nearest_squared(greedy.rows, selected_embeddings), out=greedy.least)
    elif start is None:
        greedy.force(greedy.rows.medoid())
    if start is not None:
        greedy.force(int(np.flatnonzero(positions == start)[0]))
    if quality is not None:
        greedy.weigh(np.asarray(quality, dtype=np.float64)[positions], alpha)
    while greedy.count < k:
        greedy.advance()
    return greedy.coverage(positions, len(embeddings))


class _Greedy:
    """The state of one run: `least` holds squared distances, `bonus` what is added to them, -inf once picked."""

    def __init__(self, rows: Rows, k: int, block: int) -> None:
        self.rows = rows
        self.block = max(1, block)
        self.least = np.full(len(rows), np.inf, dtype=np.float32)
        self.bonus: np.ndarray = np.zeros(len(rows), dtype=np.float32)
        self.weight: float | None = None
        self.order = np.empty(k, dtype=np.int64)
        self.value_at_pick = np.empty(k)
        self.count = 0

    def force(self, row: int) -> None:
        """Pick `row` before greedy begins."""
        self._pick(row, np.nan)
        self.rows.lower(self.least, self.rows.take(np.array([row])))

    def weigh(self, quality: np.ndarray, alpha: float) -> None:
        farthest = np.sqrt(float(self.least.max()))
        self.weight = (1 - alpha) / farthest if farthest > 0 else 0.0
        self.bonus = self.bonus + alpha * quality

    def value(self, least: np.ndarray, bonus: np.ndarray) -> np.ndarray:
        """What greedy maximises; without quality the square will do, and rounds less."""
        if self.weight is None:
            return least + bonus
        return self.weight * np.sqrt(least, dtype=np.float64) + bonus

    def advance(self) -> None:
        """Pick from one block for as long as no row outside it can be the next, then update all rows."""
        inside, bound, bound_row = self._split()
        first = self.count
        distances = self.rows.among(inside)
        least, bonus = self.least[inside], self.bonus[inside]
        while self.count < len(self.order):
            values = self.value(least, bonus)
            best = int(values.argmax())
            value = values[best]
            if value < bound or (value == bound and inside[best] > bound_row):
                break
            self._pick(int(inside[best]), float(value) if self.weight is not None else float(np.sqrt(value)))
            bonus[best] = -np.inf
            np.minimum(least, distances[best], out=least)
        self.rows.lower(self.least, self.rows.take(self.order[first : self.count]))

    def _split(self) -> tuple[np.ndarray, float, int]:
        """The block, in row order, and the largest value outside it with the first row that has it.

        Of rows with the block's least value the first ones are inside, so the block always holds the next pick.
        """
        values = self.value(self.least, self.bonus)
        if len(values) <= self.block:
            return np.arange(len(values)), -np.inf, len(values)
        least_inside = np.partition(values, len(values) - self.block)[len(values) - self.block]
        above = np.flatnonzero(values > least_inside)
        level = np.flatnonzero(values == least_inside)[: self.block - len(above)]
        inside = np.sort(np.concatenate([above, level]))
        values[inside] = -np.inf
        bound_row = int(values.argmax())
        return inside, float(values[bound_row]), bound_row

    def _pick(self, row: int, value: float) -> None:
        self.order[self.count] = row
        self.value_at_pick[self.count] = value
        self.count += 1
        self.bonus[row] = -np.inf

    def coverage(self, positions: np.ndarray, n: int) -> Coverage:
        distances = np.sqrt(self.least.astype(np.float64))
        distances[self.order] = 0
        ends = distances if self.weight is None else self.value(self.least, self.bonus)
        values = np.full(n, np.nan)
        values[positions] = ends
        values[positions[self.order]] = self.value_at_pick
        everywhere = np.full(n, np.nan)
        everywhere[positions] = distances
        return Coverage(positions[self.order], values, everywhere, float(distances.max()))


def coverage_radius(embeddings: np.ndarray, chosen_embeddings: np.ndarray, *, normalize: bool = False) -> float:
    """The largest distance of any row to the nearest chosen one: what k-centre minimises.

    `embeddings` is float[n, d], `chosen_embeddings` float[c, d]; infinite if nothing is chosen. A `k_center_greedy`
    over the same rows has it already, as `Coverage.radius`.

    >>> coverage_radius(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0]]))
    4.0
    """
    squared = nearest_squared(Rows(embeddings, normalize=normalize), chosen_embeddings)
    return float(np.sqrt(squared.max()))
