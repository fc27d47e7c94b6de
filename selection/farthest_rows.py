"""The greedy choice of farthest rows, block by block and in any number of processes; `kcenter` has what it is for."""

from typing import NamedTuple

import numpy as np

from .rows import Centres, Exchange, Rows, alone, squared_among


_TOLD = 16  # rows that a process tells of at least


class _Block(NamedTuple):
    """The rows with the largest values, of all processes in order of their keys, and the largest value outside."""

    keys: np.ndarray
    least: np.ndarray
    bonus: np.ndarray
    squares: np.ndarray
    bound: float
    bound_key: float


class Greedy:
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
