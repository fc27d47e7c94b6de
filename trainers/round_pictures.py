"""A picture of each round, for the trackers of a run: classes, scores, and a map of the pool."""

import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation import PoolPlane, RoundMap, round_figure
from ..selection import Selection
from .pool_data import UNKNOWN


MOST_PICTURES = 10
MOST_MAPPED = 5_000  # rows chosen before that a map shows


class PoolMap:
    """Where rows lie in the plane of the embeddings that a strategy read; the plane is kept while those are the same.

    To be used on the process that selects. It keeps no embeddings.
    """

    def __init__(self) -> None:
        self._plane: PoolPlane | None = None
        self._of: Any = None  # a weak reference to the embeddings that the plane is of
        self._current: RoundMap | None = None

    def draw(self, embeddings: NDArray[np.float32] | None, before: NDArray[np.int64], now: NDArray[np.int64]) -> None:
        """Make the map of a round that chose the rows `now`; there is none without `embeddings`."""
        self._current = None
        if embeddings is None:
            return
        plane = self._plane
        if plane is None or self._of is None or self._of() is not embeddings:
            plane = self._plane = PoolPlane.of(embeddings)
            self._of = weakref.ref(embeddings)
        points: Any = embeddings
        before = np.sort(before[-MOST_MAPPED:])  # ascending, as a memory map is read fastest
        now = np.sort(now[:MOST_MAPPED])
        self._current = RoundMap(plane.sample, plane.places(points[before]), plane.places(points[now]))

    def taken(self) -> RoundMap | None:
        """The map of the last round, once."""
        current, self._current = self._current, None
        return current


def rounds_to_show(rounds: int) -> set[int]:
    """Of `rounds` rounds those that have a picture, which takes a third of a second: ten at most, first and last."""
    return set(np.linspace(0, rounds - 1, min(rounds, MOST_PICTURES)).round().astype(int).tolist())


def show_round(
    show: Callable[[str, Path], Any],
    number: int,
    chosen: Selection,
    selected: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
    names: Sequence[str],
    places: RoundMap | None,
    title: str,
) -> None:
    """Draw round `number` and `show` it, under a name of its own, as rounds may begin at one step.

    Args:
        chosen: what the round chose, with scores of all rows.
        selected: all rows selected by now.
        labels: of the pool, `UNKNOWN` where they are not known; then classes are drawn only once all are.
    """
    if labels is not None and ((labels == UNKNOWN).any() or labels.max() >= len(names)):
        labels = None
    with tempfile.TemporaryDirectory() as scratch:
        path = round_figure(
            Path(scratch) / "round.png",
            title=title,
            names=names,
            pool_labels=labels,
            selected_labels=None if labels is None else labels[selected],
            scores=chosen.scores,
            chosen_scores=chosen.scores[chosen.indices],
            places=places,
        )
        if path is not None:
            show(f"rounds/{number:02}", path)
