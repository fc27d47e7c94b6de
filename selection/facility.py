"""Greedy facility location over a graph of nearest neighbours: rows that together resemble all rows."""

from dataclasses import dataclass

import numpy as np

from .rows import Rows


_CHUNK_ELEMENTS = 1 << 22
# Two rows that are each other's best gain exactly the same, and only rounding tells them apart.
_TIE = 4e-6


@dataclass(frozen=True, eq=False)
class FacilityLocation:
    """What `facility_location_greedy` found: `order` as positions in `embeddings`, and `values` of greedy's objective.

    Of a pick the value just before it was picked, of any other row the value at the end.
    """

    order: np.ndarray
    values: np.ndarray


def facility_location_greedy(
    embeddings: np.ndarray,
    k: int,
    *,
    quality: np.ndarray,
    alpha: float,
    selected_embeddings: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    neighbours: int = 64,
) -> FacilityLocation:
    """Pick k rows, each the maximum of `(1 - alpha) * gain / scale + alpha * quality`.

    The gain of a row is how much it raises the sum, over all rows, of the cosine to the most similar pick (at least
    0); scale is the largest gain at the start. `selected_embeddings` are rows that serve as picks from the start.
    Of rows whose gains are equal to float32 rounding the one with the lowest of `ids` is picked.

    Each row counts only its `neighbours` nearest rows, itself among them: exact where there are no more rows than
    that, otherwise an approximation with O(n · neighbours) memory. Building the graph takes time quadratic in n.
    """
    positions = np.arange(len(embeddings)) if ids is None else np.argsort(ids, kind="stable")
    view = Rows(embeddings, positions, normalize=True)
    best = _served(view, selected_embeddings)
    near, similar = _neighbour_graph(view, min(neighbours, len(view)))
    extra = np.maximum(similar - best[:, None], 0)
    gains = np.bincount(near.ravel(), weights=extra.ravel(), minlength=len(view))
    weight = (1 - alpha) / gains.max() if gains.max() > 0 else 0.0
    values = weight * gains + alpha * np.asarray(quality, dtype=np.float64)[positions]
    clients = np.argsort(near.ravel(), kind="stable")
    ends = np.searchsorted(near.ravel()[clients], np.arange(len(view) + 1))

    order, at_pick = np.empty(k, dtype=np.int64), np.empty(k)
    for pick in range(k):
        row = int((values >= values.max() - weight * _TIE).argmax())
        order[pick], at_pick[pick] = row, values[row]
        values[row] = -np.inf
        # Only rows that count the pick among their neighbours gain, and only their other neighbours are worth less.
        client, slot = np.divmod(clients[ends[row] : ends[row + 1]], near.shape[1])
        level = similar[client, slot]
        client, level = client[level > best[client]], level[level > best[client]]
        lost = extra[client] - np.maximum(similar[client] - level[:, None], 0)
        np.subtract.at(values, near[client].ravel(), weight * lost.ravel())
        extra[client] -= lost
        best[client] = level
    values[order] = at_pick
    placed = np.empty(len(view))
    placed[positions] = values
    return FacilityLocation(positions[order], placed)


def _served(view: Rows, selected_embeddings: np.ndarray | None) -> np.ndarray:
    """The cosine of each row to the most similar of the rows selected already, at least 0."""
    best = np.zeros(len(view), dtype=np.float32)
    if selected_embeddings is not None:
        step = max(1, _CHUNK_ELEMENTS // len(view))
        for start in range(0, len(selected_embeddings), step):
            centres = view.centres_of(selected_embeddings[start : start + step])
            np.maximum(best, view.products(centres).max(axis=0), out=best)
    return best


def _neighbour_graph(view: Rows, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Per row the positions of its nearest rows, and their cosines, both [n, neighbours]."""
    near = np.empty((len(view), neighbours), dtype=np.int32)
    similar = np.empty((len(view), neighbours), dtype=np.float32)
    step = max(1, _CHUNK_ELEMENTS // len(view))
    for start in range(0, len(view), step):
        chunk = np.arange(start, min(start + step, len(view)))
        cosines = view.products(view.take(chunk))
        nearest = np.argpartition(cosines, len(view) - neighbours, axis=1)[:, len(view) - neighbours :]
        nearest.sort(axis=1)
        near[chunk] = nearest
        similar[chunk] = np.take_along_axis(cosines, nearest, axis=1)
    return near, similar
