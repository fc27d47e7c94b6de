"""The nearest rows of every row by cosine, exactly, at little more than the cost of the products themselves.

Picking the largest of n cosines per row out of n² of them takes longer than computing them. So the products with a
sample of the rows come first, and say above which cosine rather more than the wanted number lie; of all further tiles
of the product only the few cosines above that bound are kept. Rows for which the bound was too high are done again
without one. Cosines are symmetric, so half of the tiles will do.
"""

import numpy as np

from .rows import BLOCK_ROWS, Rows


_COLUMNS = 2 * BLOCK_ROWS
# Rows and cosines of one tile that are kept: for which row of a block, which neighbour, which cosine.
_Hits = tuple[np.ndarray, np.ndarray, np.ndarray]


def nearest_rows(rows: Rows, count: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """For every one of `rows`, which must be normalised, the `count` rows with the largest cosine to it.

    A row counts itself, with a cosine of exactly 1 (0 for a row of zeros). `among` are the distinct positions that may
    be neighbours, all by default. Returns positions in `rows`, int32[n, c], and cosines, float32[n, c], with c the
    smaller of `count` and the number of possible neighbours; a row's neighbours are in no special order. Which of
    several equal cosines are left out is not defined, but always the same for the same rows.

    Takes O(n · (d + count)) memory.
    """
    n = len(rows)
    # A fixed seed: the order decides what is sampled, and so the speed, not which rows are nearest.
    shuffled = np.random.default_rng(0).permutation(n)
    vectors = np.concatenate([rows.take(shuffled[at : at + BLOCK_ROWS]).vectors for at in range(0, n, BLOCK_ROWS)])
    if among is None:
        search = _Search(vectors, vectors, count, symmetric=True)
        names = shuffled
    else:
        place = np.empty(n, dtype=np.int64)
        place[shuffled] = np.arange(n)
        drawn = np.sort(place[among])
        search = _Search(vectors, vectors[drawn], count, symmetric=False)
        names = shuffled[drawn]
    search.run()
    near = np.empty_like(search.near)
    similar = np.empty_like(search.similar)
    near[shuffled], similar[shuffled] = names[search.near], search.similar
    row, slot = np.nonzero(near == np.arange(n)[:, None])
    similar[row, slot] = rows.squares[row]
    return near, similar


class _Search:
    """The `count` of `others` nearest to each of `vectors`, both in random order.

    `least` bounds the cosines of each row that are kept; `found` is False for rows that are done without a bound.
    """

    def __init__(self, vectors: np.ndarray, others: np.ndarray, count: int, symmetric: bool) -> None:
        n, m = len(vectors), len(others)
        self.vectors = vectors
        self.others = others
        self.symmetric = symmetric
        self.count = min(count, m)
        self.near = np.empty((n, self.count), dtype=np.int32)
        self.similar = np.empty((n, self.count), dtype=np.float32)
        self.least = np.empty(n, dtype=np.float32)
        self.found = np.ones(n, dtype=bool)
        self.starts = range(0, n, BLOCK_ROWS)
        self.hits: list[list[_Hits]] = [[] for _ in self.starts]
        # Whole blocks, so that a tile lies in the sample or outside it.
        self.sample = min(m, BLOCK_ROWS * max(1, round(m / 32 / BLOCK_ROWS)))
        # New memory for every tile would take a tenth of the time to be handed out.
        self.tile = np.empty(BLOCK_ROWS * max(_COLUMNS, self.sample), dtype=np.float32)
        self.masks = np.empty((2, len(self.tile)), dtype=bool)

    def run(self) -> None:
        if self.count < len(self.others):
            for start in self.starts:
                self._block(slice(start, min(start + BLOCK_ROWS, len(self.vectors))))
            for block in range(len(self.hits)):
                self._settle(block)
        else:
            self.found[:] = False
        self._complete()

    def _block(self, part: slice) -> None:
        """The tiles of a block of rows: with the sample, and with what no block before has paired it with."""
        sample = slice(0, self.sample)
        cosines = self._product(part, sample)
        self._bound(part, cosines)
        self._keep(part, sample, cosines)
        end = part.stop if self.symmetric else len(self.others)
        for left in range(self.sample, end, _COLUMNS):
            columns = slice(left, min(left + _COLUMNS, end))
            self._keep(part, columns, self._product(part, columns))

    def _product(self, part: slice, columns: slice) -> np.ndarray:
        shape = (part.stop - part.start, columns.stop - columns.start)
        out = self.tile[: shape[0] * shape[1]].reshape(shape)
        return np.matmul(self.vectors[part], self.others[columns].T, out=out)

    def _bound(self, part: slice, cosines: np.ndarray) -> None:
        """Guess the bounds from the sample: so low that about 1 row in 500 gets too few neighbours by it."""
        expected = self.count * self.sample / len(self.others)
        rank = min(self.sample, int(np.ceil(expected + 3 * np.sqrt(expected) + 1)))
        least = np.partition(cosines, self.sample - rank, axis=1)[:, self.sample - rank]
        # Very many equal cosines, as of duplicates, would all be kept.
        crowded = (cosines >= least[:, None]).sum(axis=1) > 2 * rank
        self.least[part] = np.where(crowded, np.inf, least)
        self.found[part] = ~crowded

    def _keep(self, part: slice, columns: slice, cosines: np.ndarray) -> None:
        # Rows of the sample meet each other in both orders anyway.
        mutual = self.symmetric and part.start >= self.sample
        keep, also = (mask[: cosines.size].reshape(cosines.shape) for mask in self.masks)
        np.greater_equal(cosines, self.least[part, None], out=keep)
        if mutual:
            keep |= np.greater_equal(cosines, self.least[columns], out=also)
        places = np.flatnonzero(keep)
        row, column = np.divmod(places, cosines.shape[1])
        cosine = cosines.ravel()[places]
        ours = cosine >= self.least[part][row]
        column += columns.start
        self.hits[part.start // BLOCK_ROWS].append(_compact(row[ours], column[ours], cosine[ours]))
        if mutual:
            theirs = (cosine >= self.least[column]) & (column < part.start)
            row, column, cosine = row[theirs] + part.start, column[theirs], cosine[theirs]
            for start in range(columns.start, min(columns.stop, part.start), BLOCK_ROWS):
                here = (column >= start) & (column < start + BLOCK_ROWS)
                self.hits[start // BLOCK_ROWS].append(_compact(column[here] - start, row[here], cosine[here]))

    def _settle(self, block: int) -> None:
        """Of what was kept for the rows of a block take the nearest."""
        row, neighbour, cosine = (np.concatenate(parts) for parts in zip(*self.hits[block], strict=True))
        self.hits[block] = []
        start = self.starts[block]
        size = min(BLOCK_ROWS, len(self.vectors) - start)
        order = np.argsort(row, kind="stable")
        row = row[order]
        counts = np.bincount(row, minlength=size)
        width = max(self.count, int(counts.max()))
        flat = np.arange(len(row)) + np.repeat(np.arange(size) * width - (np.cumsum(counts) - counts), counts)
        cosines = np.full(size * width, -np.inf, dtype=np.float32)
        cosines[flat] = cosine[order]
        names = np.zeros(size * width, dtype=np.int32)
        names[flat] = neighbour[order]
        best = np.argpartition(cosines.reshape(size, width), width - self.count, axis=1)[:, width - self.count :]
        best += np.arange(0, size * width, width)[:, None]
        self.near[start : start + size] = names[best]
        self.similar[start : start + size] = cosines[best]
        self.found[start : start + size] &= counts >= self.count

    def _complete(self) -> None:
        """Do the rows that are left with all of their cosines."""
        left = np.flatnonzero(~self.found)
        step = max(1, BLOCK_ROWS * _COLUMNS // len(self.others))
        for at in range(0, len(left), step):
            rows = left[at : at + step]
            cosines = self.vectors[rows] @ self.others.T
            best = np.argpartition(cosines, len(self.others) - self.count, axis=1)[:, -self.count :]
            self.near[rows] = best
            self.similar[rows] = np.take_along_axis(cosines, best, axis=1)


def _compact(row: np.ndarray, neighbour: np.ndarray, cosine: np.ndarray) -> _Hits:
    """Rows of a block fit 16 bits, which NumPy sorts by counting."""
    return row.astype(np.uint16), neighbour.astype(np.int32), cosine
