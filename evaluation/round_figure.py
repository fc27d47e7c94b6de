"""One figure of one round of selection: what it chose, beside what was there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .drawing import BLUE, LIGHT, ORANGE, drawing, ensure_png, legend_below
from .figures import balance_bars
from .files import PathLike
from .plane import principal_plane, sampled


if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MAPPED = 5_000  # rows of the pool in a map
MOST_CLASSES = 20
BINS = 40
BEFORE = "chosen in earlier rounds"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PoolPlane:
    """The pool in the plane of its first two principal components.

    Attributes:
        sample: places [m, 2] of a fixed random sample of at most 5,000 rows.
        mean: [d] of that sample.
        axes: the plane's axes [d, 2].
    """

    sample: Floats
    mean: Floats
    axes: Floats

    @classmethod
    def of(cls, embeddings: NDArray[np.floating]) -> "PoolPlane":
        """The plane of embeddings [n, d], memory-mapped if large."""
        points = embeddings[sampled([np.arange(len(embeddings))], MOST_MAPPED)[0]].astype(np.float64)
        mean, axes, _ = principal_plane(points)
        return cls((points - mean) @ axes, mean, axes)

    def places(self, embeddings: NDArray[np.floating]) -> Floats:
        """Where rows [k, d] lie in the plane [k, 2]."""
        return (embeddings.astype(np.float64) - self.mean) @ self.axes


@dataclass(frozen=True)
class RoundMap:
    """Places in a plane: of the pool [m, 2], of rows that were chosen before [s, 2] and in this round [k, 2]."""

    pool: Floats
    before: Floats
    chosen: Floats


def round_figure(
    path: PathLike,
    *,
    title: str,
    names: Sequence[str] = (),
    pool_labels: ArrayLike | None = None,
    selected_labels: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    chosen_scores: ArrayLike | None = None,
    places: RoundMap | None = None,
) -> Path | None:
    """Draw what is known of a round, side by side, as PNG: classes, scores, a map of the pool.

    Args:
        names: of the classes [c].
        pool_labels, selected_labels: classes of the pool and of all rows selected by now, in [0, c); drawn where both
            are given.
        scores, chosen_scores: of all candidates and of the rows chosen in this round; NaN where there is none.
        places: the map.

    Returns:
        `path`; None, and no file, where nothing is known.
    """
    target = ensure_png(path)
    found, picked = (_finite(values) for values in (scores, chosen_scores))
    panels: list[str] = []
    if pool_labels is not None and selected_labels is not None and np.size(selected_labels) and len(names):
        panels.append("classes")
    if len(picked) and np.ptp(found) > 0:  # scores that are all the same say nothing
        panels.append("scores")
    if places is not None:
        panels.append("map")
    if not panels:
        return None
    with drawing(target, 4.6 * len(panels), 4.4) as figure:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            if panel == "classes":
                pool, selected = (_shares(labels, len(names)) for labels in (pool_labels, selected_labels))
                balance_bars(axes, pool, selected, names, most=MOST_CLASSES)
                which = f"the {MOST_CLASSES} classes that differ most" if len(names) > MOST_CLASSES else "classes"
                axes.set_title(f"{which}, of all rows selected")
            elif panel == "scores":
                _histogram(axes, found, picked)
            elif places is not None:
                _map(axes, places)
            if panel != panels[0]:  # the colours mean the same in all: one legend for them
                _leave_out_of_legend(axes)
        legend_below(figure, columns=3)
    return target


def _histogram(axes: "Axes", found: Floats, picked: Floats) -> None:
    edges = np.histogram_bin_edges(found, BINS).tolist()
    axes.hist(found, edges, color=LIGHT, label="pool")
    axes.hist(picked, edges, color=BLUE, label="chosen")
    axes.set(xlabel="score", ylabel="rows", title="scores of candidates")


def _map(axes: "Axes", places: RoundMap) -> None:
    for points, size, colour, label in (
        (places.pool, 4, LIGHT, "pool"),
        (places.before, 8, ORANGE, BEFORE),
        (places.chosen, 12, BLUE, "chosen"),
    ):
        if len(points):
            axes.scatter(points[:, 0], points[:, 1], s=size, color=colour, linewidths=0, label=label, rasterized=True)
    axes.set(xticks=[], yticks=[], title="first two principal components")
    axes.grid(visible=False)


def _leave_out_of_legend(axes: "Axes") -> None:
    artists: list[Any] = [*axes.containers, *axes.patches, *axes.collections]
    for artist in artists:
        if artist.get_label() != BEFORE:
            artist.set_label("_")


def _shares(labels: ArrayLike | None, classes: int) -> Floats:
    counts = np.bincount(np.asarray(labels), minlength=classes)
    return 100 * counts / counts.sum()


def _finite(values: ArrayLike | None) -> Floats:
    array = np.asarray([] if values is None else values, dtype=np.float64)
    return array[np.isfinite(array)]
