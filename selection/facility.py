"""Greedy facility location over a graph of nearest neighbours: rows that together resemble all rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .neighbours import nearest_rows
from .pool import Pool, Selection, check_request
from .rows import BLOCK_ROWS, Rows


_CHUNK_ELEMENTS = 1 << 22
# Two rows that are each other's best gain exactly the same, and only rounding tells them apart.
_TIE = 4e-6
# Picks between two updates of the rows that no neighbour serves.
_BATCH = 16


@dataclass(frozen=True)
class FacilityLocation:
    """The rows that together resemble all candidates best: greedy facility location (Lin & Bilmes 2011).

    Maximises f(S) = sum over all candidates i of max(0, max over j in S of cos(i, j)), one pick at a time: each is the
    candidate that raises f most. S starts from the rows of earlier rounds. f is submodular, so greedy reaches at least
    1 - 1/e of the largest f any k rows could reach, and a gain bounds every later one (Minoux 1978).

    Each candidate counts only its `neighbours` nearest candidates: with 64 of them and 10 % picked, f is as large as
    that of greedy over all pairs (1.0001 of it on 17,533 real sentence embeddings); with 20 picks it is 1 % less, so
    give more neighbours to very small budgets. Needs `embeddings`, and `selected_embeddings` after the first round;
    draws nothing from `rng`.

    Scores are gains divided by the largest one at the start: of a pick, just before it was picked; of the others, at
    the end. Where the neighbours of all rows are served, gains are 0 and the lowest ids are picked.

    Prefer it to `KCenter` wherever the picks should stand for the mass of the rows: outliers serve nobody and stay
    out. It is the best one-round start with many classes: a MiniLM fine-tuned on a tenth chosen by it reached 87.2 %
    on banking77, k-centre 81.0 %, random 83.1 %. With two classes it gains nothing: 78.8 % on rotten_tomatoes, random
    79.0 %; coverage of topics says nothing about where the classes meet.

    Args:
        neighbours: how many nearest rows each row counts, at least 1; exact from the pool's size on, and slow.

    >>> pool = Pool(ids=[0, 1, 2, 3], embeddings=[[1.0, 0.0], [0.9, 0.1], [0.9, -0.1], [-1.0, 0.0]])
    >>> FacilityLocation().select(pool, 2, np.random.default_rng(0)).indices.tolist()
    [0, 3]
    """

    neighbours: int = 64

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "selected_embeddings"})

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"`neighbours` must be at least 1, got {self.neighbours}.")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("facility_location", pool, k, self.needs)
        assert pool.embeddings is not None
        served = facility_location_greedy(
            pool.embeddings,
            k,
            selected_embeddings=pool.selected_embeddings,
            ids=pool.ids,
            neighbours=self.neighbours,
        )
        return Selection(pool.ids[served.order], served.values)


@dataclass(frozen=True, eq=False)
class Served:
    """What `facility_location_greedy` found: `order` as positions in `embeddings`, and `values` of greedy's objective.

    Of a pick the value just before it was picked, of any other row the value at the end; NaN for rows that could not
    be picked.
    """

    order: np.ndarray
    values: np.ndarray


def facility_location_greedy(
    embeddings: np.ndarray,
    k: int,
    *,
    quality: np.ndarray | None = None,
    alpha: float = 0.0,
    weights: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    selected_embeddings: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    neighbours: int = 64,
) -> Served:
    """Pick k rows, each the maximum of `(1 - alpha) * gain / scale + alpha * quality`.

    The gain of a row is how much it raises the sum, over all rows, of the cosine to the most similar pick (at least
    0), times the row's weight; scale is the largest gain at the start. Of rows whose gains are equal to float32
    rounding the one with the lowest id is picked.

    Each row counts only its `neighbours` nearest rows among those that can be picked, itself among them if it can:
    exact where there are no more of these than that. Otherwise it is an approximation: what a row farther off would
    gain from a pick is left out. How well the picks serve a row that has none of them among its neighbours is not, but
    is brought up to date in batches; on 17,533 real sentence embeddings with 1,753 picks that reaches 1.0001 of the
    value of greedy over all pairs, without it 0.9986.

    Takes O(n · (d + neighbours)) memory and time quadratic in n, most of it for the products of rows with each other.

    Args:
        embeddings: float[n, d] in any float type; only directions matter.
        k: how many rows to pick, at most the number of rows that can be picked.
        quality: float[n], read only where `alpha` is above 0.
        alpha: weight of `quality`, 0 to 1.
        weights: float[n], at least 0: how much each row counts as one to be served, whether or not it can be picked.
            By default all rows count the same; only ratios matter.
        rows: positions of the rows that can be picked, all by default. The others are served nevertheless.
        selected_embeddings: float[m, d], rows that serve as picks from the start.
        ids: int[n], which decide between equal gains. By default the positions.
        neighbours: how many rows each row can be served by.

    Raises:
        ValueError: `k` is not from 1 to the number of rows that can be picked, or a weight is negative or not finite.

    >>> rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.9, -0.1], [-1.0, 0.0]])
    >>> facility_location_greedy(rows, 2).order.tolist()
    [0, 3]
    >>> facility_location_greedy(rows, 1, rows=np.array([1, 2, 3])).order.tolist()
    [1]
    """
    positions = np.arange(len(embeddings)) if ids is None else np.argsort(ids, kind="stable")
    able = np.ones(len(positions), dtype=bool) if rows is None else np.isin(positions, rows)
    if not 1 <= k <= able.sum():
        raise ValueError(f"`k` must be from 1 to the {able.sum()} rows that can be picked, got {k}.")
    view = Rows(embeddings, positions, normalize=True)
    among = None if rows is None else np.flatnonzero(able)
    near, similar = nearest_rows(view, neighbours, among)
    best = _served(view, selected_embeddings)
    greedy = _Greedy(near, similar, _relative(weights, positions), best)
    if quality is not None and alpha > 0:
        greedy.weigh(np.asarray(quality, dtype=np.float64)[positions], alpha)
    greedy.values[~able] = -np.inf
    order, at_pick = greedy.run(k, view)
    values = np.where(able, greedy.values, np.nan)
    values[order] = at_pick
    placed = np.empty(len(positions))
    placed[positions] = values
    return Served(positions[order], placed)


def _relative(weights: np.ndarray | None, positions: np.ndarray) -> np.ndarray:
    """The weights divided by the largest, in the order of `positions`."""
    if weights is None:
        return np.ones(len(positions), dtype=np.float32)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != positions.shape or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"`weights` must be {len(positions)} finite numbers of at least 0, one per row.")
    return (weights[positions] / (weights.max() or 1.0)).astype(np.float32)


def _served(view: Rows, selected_embeddings: np.ndarray | None) -> np.ndarray:
    """The cosine of each row to the most similar of the rows selected already, at least 0."""
    best = np.zeros(len(view), dtype=np.float32)
    if selected_embeddings is not None:
        step = max(1, _CHUNK_ELEMENTS // len(view))
        for start in range(0, len(selected_embeddings), step):
            centres = view.centres_of(selected_embeddings[start : start + step])
            np.maximum(best, view.products(centres).max(axis=0), out=best)
    return best


class _Greedy:
    """The state of one run: how well each row is served, and the value of picking each row, kept up to date.

    A pick changes the gains only of the rows that are neighbours of the rows it now serves: some thousand entries of
    the graph. Bringing those up to date is cheaper here than lazy evaluation (Minoux 1978), which recomputes the gain
    of some thirty rows per pick.
    """

    def __init__(self, near: np.ndarray, similar: np.ndarray, weights: np.ndarray, best: np.ndarray) -> None:
        n, width = near.shape
        self.near, self.similar, self.weights, self.best = near, similar, weights, best
        self.floor = similar.min(axis=1)
        ends = near.ravel()
        # Of 16 bits NumPy sorts by counting, several times as fast.
        edges = np.argsort(ends.astype(np.uint16) if n <= 1 << 16 else ends, kind="stable")
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))])
        self.clients = (edges // width).astype(np.int32)
        self.levels = similar.ravel()[edges]
        extra = np.maximum(similar - best[:, None], 0) * weights[:, None]
        gains = np.bincount(ends, weights=extra.ravel(), minlength=n)
        self.weight = 1 / gains.max() if gains.max() > 0 else 0.0
        self.values = self.weight * gains

    def weigh(self, quality: np.ndarray, alpha: float) -> None:
        self.weight *= 1 - alpha
        self.values = (1 - alpha) * self.values + alpha * quality

    def run(self, k: int, view: Rows) -> tuple[np.ndarray, np.ndarray]:
        order, at_pick = np.empty(k, dtype=np.int64), np.empty(k)
        done = 0
        for pick in range(k):
            if pick >= done + _BATCH + done // 8:
                self._serve_from_afar(view, order[done:pick])
                done = pick
            order[pick], at_pick[pick] = self._pick()
        self._serve_from_afar(view, order[done:])
        return order, at_pick

    def _pick(self) -> tuple[int, float]:
        """The first row whose value is the largest up to rounding, and that value; its neighbours are served by it."""
        row = int((self.values >= self.values.max() - self.weight * _TIE).argmax())
        value = float(self.values[row])
        self.values[row] = -np.inf
        part = slice(self.starts[row], self.starts[row + 1])
        self._serve(self.clients[part], self.levels[part])
        return row, value

    def _serve_from_afar(self, view: Rows, picks: np.ndarray) -> None:
        """Serve by `picks` the rows that are not served by a neighbour: no other row is nearer to a farther pick."""
        alone = np.flatnonzero(self.best < self.floor)
        centres = view.take(picks).vectors
        for start in range(0, len(alone), BLOCK_ROWS):
            rows = alone[start : start + BLOCK_ROWS]
            self._serve(rows, (view.take(rows).vectors @ centres.T).max(axis=1))

    def _serve(self, clients: np.ndarray, levels: np.ndarray) -> None:
        """Raise how well `clients` are served to `levels`, and lower the gains that this takes from others."""
        better = levels > self.best[clients]
        clients, levels = clients[better], levels[better]
        # What a neighbour has above the old level is lost to it up to the new one.
        lost = np.minimum(self.similar[clients], levels[:, None]) - self.best[clients, None]
        np.maximum(lost, 0, out=lost)
        lost *= self.weights[clients, None]
        np.subtract.at(self.values, self.near[clients].ravel(), self.weight * lost.ravel())
        self.best[clients] = levels
