"""Squared distances from many rows to a few, one block of rows at a time.

The strategies read embeddings that may be larger than memory, in any float type and any row order. `Rows` fixes an
order, reads the array block by block as float32, and never holds a whole copy unless that copy is small.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .screen import Screen


BLOCK_ROWS = 1024
COPY_BYTES = 64 << 20
_WORTH_A_SCREEN = 4096  # rows

Exchange: TypeAlias = Callable[[Any], list[Any]]
"""Takes what a process has to tell; gives what all of them told, in the order of processes. All must call it."""


def alone(told: Any) -> list[Any]:
    """The `Exchange` of a single process."""
    return [told]


class Centres(NamedTuple):
    """Vectors that rows are compared with, and half of their squared norms."""

    vectors: np.ndarray
    half_squares: np.ndarray


class Rows:
    """The rows `positions` of an embedding array, in that order, for squared Euclidean distances in float32.

    With `normalize`, distances are between the rows divided by their norms; a row of zeros stays at the origin.
    A squared distance within float32 rounding of zero (`2 * eps * sqrt(d)` of the squared norm, a distance of 0.2 %
    of the norm at 384 dimensions) counts as zero, so duplicates are at distance zero whatever the BLAS rounds to.
    Without `normalize`, rows that lie far from the origin are shifted towards it first, which changes no distance
    and saves the digits that the shift would otherwise cost. Where `share` joins several processes, each with rows of
    its own, all shift by the same.

    Raises:
        ValueError: a squared norm overflows float32.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        positions: np.ndarray | None = None,
        normalize: bool = False,
        share: Exchange = alone,
    ) -> None:
        self._array = np.asarray(embeddings)
        if positions is not None and np.array_equal(positions, np.arange(len(self._array))):
            positions = None
        self._positions = positions
        self._copied = False
        self._length = len(self._array) if positions is None else len(positions)
        self._normalize, self._share = normalize, share
        self._shift = None if normalize else self._far_offset()
        self._keep_small_copy()
        none = np.empty(0, np.float32)
        squares = np.concatenate([none, *(np.einsum("ij,ij->i", block, block) for _, block in self.blocks())])
        if not np.isfinite(squares).all():
            raise ValueError("`embeddings` are too large for float32 distances. Scale them down, or normalise them.")
        self._scales = _inverse_norms(squares) if normalize else None
        self.squares = (squares > 0).astype(np.float32) if normalize else squares
        self._zero = _rounding(self._array.shape[1]) * self.squares

    def __len__(self) -> int:
        return self._length

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield every block of rows, shifted but not normalised, with the slice of rows it holds."""
        for start in range(0, len(self), BLOCK_ROWS):
            part = slice(start, min(start + BLOCK_ROWS, len(self)))
            yield part, self._read(part)

    def take(self, where: np.ndarray) -> Centres:
        """The rows `where` as centres."""
        return self._as_centres(self._read(where))

    def centres_of(self, vectors: np.ndarray) -> Centres:
        """Any other vectors as centres, shifted and normalised as the rows are."""
        return self._as_centres(self._shifted(np.asarray(vectors)))

    def _as_centres(self, vectors: np.ndarray) -> Centres:
        if self._normalize:
            vectors = vectors * _inverse_norms(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        return Centres(vectors, np.einsum("ij,ij->i", vectors, vectors) / 2)

    def mean(self) -> np.ndarray:
        """The mean of the (normalised) rows of all processes, float64[1, d], in the rows' shifted coordinates."""
        total = np.zeros(self._array.shape[1])
        for part, block in self.blocks():
            weights = np.ones(len(block), np.float32) if self._scales is None else self._scales[part]
            total += weights @ block
        totals, lengths = zip(*self._share((total, len(self))), strict=True)
        return sum(totals)[None] / sum(lengths)

    def from_mean(self) -> np.ndarray:
        """Squared distances of the rows to the mean of those of all processes, float32[n]."""
        mean = self.mean().astype(np.float32)
        least = np.full(len(self), np.inf, dtype=np.float32)
        self.lower(least, Centres(mean, np.einsum("ij,ij->i", mean, mean) / 2))
        return least

    def lower(self, least: np.ndarray, centres: Centres) -> None:
        """Lower `least` in place to the squared distance to the nearest of `centres`, where that is less."""
        if not len(centres.vectors):
            return
        columns = np.ascontiguousarray(centres.vectors.T)
        screen = Screen.over(columns, centres.half_squares) if len(self) >= _WORTH_A_SCREEN else None
        for part, block in self.blocks():
            if screen is None:
                near = self._squared(part, block, columns, centres.half_squares)
                np.minimum(least[part], near, out=least[part])
                continue
            scales = None if self._scales is None else self._scales[part]
            rows = screen.may_be_nearer(block, scales, self.squares[part], least[part])
            if len(rows):
                where = part.start + rows
                near = self._squared(where, block[rows], columns, centres.half_squares)
                least[where] = np.minimum(least[where], near)

    def _squared(
        self, where: slice | np.ndarray, block: np.ndarray, columns: np.ndarray, half: np.ndarray
    ) -> np.ndarray:
        """Squared distance of the rows `where`, which are `block`, to the nearest of the centres in `columns`."""
        product = block @ columns
        # What is the same for all centres can wait until after the maximum over them, which is much cheaper.
        if self._scales is not None and np.abs(half - 0.5).max() < 1e-3:
            best = product.max(axis=1) * self._scales[where] - np.float32(0.5)
        else:
            if self._scales is not None:
                product *= self._scales[where][:, None]
            product -= half
            best = product.max(axis=1)
        squared = self.squares[where] - 2 * best
        squared[squared <= self._zero[where]] = 0
        return squared

    def among(self, where: np.ndarray) -> np.ndarray:
        """Squared distances between the rows `where`, float32[len(where), len(where)]."""
        return squared_among(self.take(where), self.squares[where])

    def products(self, centres: Centres) -> np.ndarray:
        """Inner products (cosines, with `normalize`) of `centres` with every row, float32[len(centres), n]."""
        products = np.empty((len(centres.vectors), len(self)), dtype=np.float32)
        for part, block in self.blocks():
            products[:, part] = centres.vectors @ block.T
            if self._scales is not None:
                products[:, part] *= self._scales[part]
        return products

    def _raw(self, part: slice | np.ndarray) -> np.ndarray:
        return self._array[part] if self._positions is None else self._array[self._positions[part]]

    def _read(self, part: slice | np.ndarray) -> np.ndarray:
        return self._raw(part) if self._copied else self._shifted(self._raw(part))

    def _shifted(self, raw: np.ndarray) -> np.ndarray:
        if self._shift is not None:
            raw = raw - self._shift
        return np.ascontiguousarray(raw, dtype=np.float32)

    def _far_offset(self) -> np.ndarray | None:
        """A point near the rows' mean, if the mean lies more than twice as far out as the rows lie around it."""
        mean = np.zeros(self._array.shape[1])
        spread = 0.0
        starts, length = range(0, len(self), BLOCK_ROWS), sum(self._share(len(self)))
        for start in starts:
            mean += self._raw(slice(start, start + BLOCK_ROWS)).sum(axis=0, dtype=np.float64) / length
        mean = np.sum(self._share(mean), axis=0)
        for start in starts:
            spread += float(np.square(self._raw(slice(start, start + BLOCK_ROWS)) - mean).sum()) / length
        spread = sum(self._share(spread))
        if mean @ mean <= 4 * spread:
            return None
        # On a grid no finer than the spread the shift is exact, so equal distances stay equal.
        grid = 2.0 ** np.floor(np.log2(np.sqrt(spread / len(mean)))) if spread > 0 else 1.0
        wide = np.result_type(self._array.dtype, np.float32)
        return (np.round(mean / grid) * grid).astype(wide)

    def _keep_small_copy(self) -> None:
        """Convert and reorder once instead of in every pass, where the result takes little memory."""
        converted = self._array.dtype == np.float32 and self._positions is None and self._shift is None
        if not converted and len(self) * self._array.shape[1] * 4 <= COPY_BYTES:
            self._array = self._read(slice(0, len(self)))
            self._positions = None
            self._copied = True


def nearest_squared(rows: Rows, vectors: np.ndarray, batch: int = 512) -> np.ndarray:
    """Squared distance of every row to the nearest of `vectors`, infinite if there is none."""
    least = np.full(len(rows), np.inf, dtype=np.float32)
    for start in range(0, len(vectors), batch):
        rows.lower(least, rows.centres_of(vectors[start : start + batch]))
    return least


def squared_among(rows: Centres, squares: np.ndarray) -> np.ndarray:
    """Squared distances between rows that were taken from `Rows`, whose `squares` these are, float32[m, m]."""
    squared = rows.vectors @ rows.vectors.T
    squared -= rows.half_squares
    squared *= -2
    squared += squares[:, None]
    squared[squared <= _rounding(rows.vectors.shape[1]) * squares[:, None]] = 0
    return squared


def _rounding(dimensions: int) -> np.float32:
    """The share of a squared norm within which a squared distance counts as zero."""
    return np.float32(2 * np.finfo(np.float32).eps * np.sqrt(dimensions))


def _inverse_norms(squares: np.ndarray) -> np.ndarray:
    norms = np.sqrt(squares)
    return np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
