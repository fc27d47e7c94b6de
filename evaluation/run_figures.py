"""Figures of a run: how it learnt and what it chose. Each function writes one PNG, in one step; returns its path."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .drawing import (
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    SKY,
    drawing,
    ensure_png,
    legend_below,
    ordered_colours,
)
from .files import PathLike
from .plane import principal_plane, sampled


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BACKGROUND = 20_000
MOST_CHOSEN = 10_000
MOST_LEGEND_ROUNDS = 8
MOST_MARKERS = 60
SMOOTH_FROM = 50  # points; a shorter loss curve is drawn as it is
CLOSEST_LABELS = 0.08  # of the axis

Floats = NDArray[np.float64]


def learning_curve(
    path: PathLike,
    evals: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]] = (),
    *,
    metric: str = "validation F1 (macro)",
    title: str = "Learning curve",
) -> Path:
    """Draw a metric over the training steps, with the rounds of selection marked.

    `evals` are rows with `step` and `value` (None or NaN leaves a gap), `rounds` rows with `step`, where the round
    begins, and `size`, the number of examples selected by then. Sizes stand on the upper axis, as many as fit; of
    rounds that begin at one step the last one's. Raises `ValueError` if `evals` is empty.
    """
    target = ensure_png(path)
    steps, values = _series(evals, "evals")
    with drawing(target, 6.8, 4.4) as figure:
        axes = figure.add_subplot()
        axes.plot(steps, values, color=BLUE, marker="o" if len(steps) <= MOST_MARKERS else None, markersize=4)
        begins = [float(row["step"]) for row in rounds]
        last = max([*steps, *begins, 1.0])
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.set(xlabel="training step", ylabel=metric, title=title)
        if rounds:
            axes.grid(axis="x", visible=False)
            for step in sorted(set(begins)):
                axes.axvline(step, color=ORANGE, linestyle="--", linewidth=1.0, alpha=0.6, zorder=1)
            _label_sizes(axes, rounds, last)
    return target


def loss_curve(
    path: PathLike,
    rows: Sequence[Mapping[str, Any]],
    evals: Sequence[Mapping[str, Any]] = (),
    *,
    title: str = "Loss",
) -> Path:
    """Draw the training loss over the steps and, where `evals` are given, the validation loss.

    Both are rows with `step` and `value` (None or NaN leaves a gap). From 50 rows on the training loss is drawn pale
    under its centred moving average over a twenty-fifth of the rows. Raises `ValueError` if `rows` is empty.
    """
    target = ensure_png(path)
    steps, values = _series(rows, "rows")
    with drawing(target, 6.8, 4.4) as figure:
        axes = figure.add_subplot()
        if len(steps) < SMOOTH_FROM:
            axes.plot(steps, values, color=BLUE, marker="o", markersize=4, label="training")
        else:
            axes.plot(steps, values, color=SKY, linewidth=0.8, alpha=0.6)
            axes.plot(steps, _smooth(values), color=BLUE, label="training, moving average")
        if evals:
            axes.plot(*_series(evals, "evals"), color=ORANGE, marker="s", markersize=4, label="validation")
            legend_below(figure)
        axes.set(xlabel="training step", ylabel="loss", title=title)
    return target


def pool_map(
    path: PathLike,
    embeddings: ArrayLike,
    rounds: Sequence[ArrayLike],
    *,
    title: str = "What was chosen from the pool",
) -> Path:
    """Draw the pool in the plane of its first two principal components, with the chosen examples coloured by round.

    `embeddings` are finite numbers [n, d], memory-mapped if large; `rounds` has the chosen rows, in [0, n), of each
    round, numbered from 0. Above 20,000 rows of the pool a fixed random sample of that size is drawn, and gives the
    components; of more than 10,000 chosen rows a sample of each round in proportion. The same input gives the same
    figure. Raises `ValueError` if the embeddings are not such a matrix or a row is out of range.
    """
    target = ensure_png(path)
    points = np.asanyarray(embeddings)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"`embeddings` must be a matrix of n rows and d columns, got shape {points.shape}")
    chosen = [_chosen_rows(rows, len(points), number) for number, rows in enumerate(rounds)]
    chosen = sampled(chosen, MOST_CHOSEN)
    background = points[sampled([np.arange(len(points))], MOST_BACKGROUND)[0]].astype(np.float64)
    picked = [points[rows].astype(np.float64) for rows in chosen]
    if not all(np.isfinite(part).all() for part in [background, *picked]):
        raise ValueError("`embeddings` hold NaN or infinity")
    mean, axes_of_plane, shares = principal_plane(background)
    with drawing(target, 6.8, 5.6) as figure:
        axes = figure.add_subplot()
        pool = (background - mean) @ axes_of_plane
        axes.scatter(
            pool[:, 0], pool[:, 1], s=5, color=LIGHT, linewidths=0, rasterized=True, label=f"pool ({len(points):,})"
        )
        places = [(part - mean) @ axes_of_plane for part in picked]
        _scatter_rounds(figure, axes, places, [np.size(rows) for rows in rounds])
        axes.grid(visible=False)
        axes.set_title(title)
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second principal component ({shares[1]:.0%} of the variance)")
    return target


def _label_sizes(axes: "Axes", rounds: Sequence[Mapping[str, Any]], last: float) -> None:
    """Ticks on an upper axis with the number of examples selected, none closer to the next than can be read."""
    shown: list[tuple[float, str]] = []
    for row in sorted(rounds, key=lambda row: (row["step"], row["size"]), reverse=True):
        step = float(row["step"])
        if not shown or shown[-1][0] - step >= CLOSEST_LABELS * last:
            shown.append((step, f"{row['size']:,}"))
    upper = axes.secondary_xaxis("top")
    upper.set_xticks([step for step, _ in shown], [size for _, size in shown])
    upper.set_xlabel("examples selected (dashed: a round begins)", color=ORANGE)
    upper.tick_params(labelcolor=ORANGE, color=ORANGE)
    upper.spines[:].set_visible(False)


def _scatter_rounds(figure: "Figure", axes: "Axes", places: Sequence[Floats], sizes: Sequence[int]) -> None:
    """The chosen points, with a legend for a few rounds and a scale of colours for many."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    colours = ordered_colours(len(places))
    total = sum(len(points) for points in places)
    size = 26 if total <= 500 else 14 if total <= 3000 else 7
    for number, (points, colour) in enumerate(zip(places, colours, strict=True)):
        name = "chosen" if len(places) == 1 else f"round {number}"
        label = f"{name} ({sizes[number]:,})" if len(places) <= MOST_LEGEND_ROUNDS else None
        axes.scatter(
            points[:, 0], points[:, 1], s=size, color=[colour], edgecolors="white", linewidths=0.3, label=label
        )
    if len(places) <= MOST_LEGEND_ROUNDS:
        return legend_below(figure, columns=3)
    edges = np.arange(len(places) + 1) - 0.5
    scale = ScalarMappable(BoundaryNorm(edges, len(places)), ListedColormap(colours))
    bar = figure.colorbar(scale, ax=axes, shrink=0.8, pad=0.02)
    bar.outline.set_edgecolor(GREY)
    bar.set_ticks(np.unique(np.linspace(0, len(places) - 1, 6).round()).tolist())
    bar.set_label("round in which it was chosen")
    return None


def _series(rows: Sequence[Mapping[str, Any]], what: str) -> tuple[Floats, Floats]:
    """Steps and values [n] in the order of steps."""
    if not rows:
        raise ValueError(f"`{what}` is empty: there is no curve to draw")
    ordered = sorted(rows, key=lambda row: row["step"])
    values = [float("nan") if row["value"] is None else float(row["value"]) for row in ordered]
    return np.array([float(row["step"]) for row in ordered]), np.array(values)


def _smooth(values: Floats) -> Floats:
    """Centred moving average [n] over about n / 25 values, of the finite ones: it does not lag behind the curve."""
    window = np.ones(2 * max(1, len(values) // 50) + 1)
    finite = np.isfinite(values)
    weights = np.convolve(finite, window, mode="same")
    totals = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    return np.divide(totals, weights, out=np.full(len(values), np.nan), where=weights > 0.5)


def _chosen_rows(rows: ArrayLike, pool: int, number: int) -> NDArray[np.int64]:
    chosen = np.asarray(rows)
    if chosen.size and (chosen.ndim != 1 or chosen.dtype.kind not in "iu"):
        raise ValueError(f"round {number} must be a vector of row numbers, got {chosen.dtype} {chosen.shape}")
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < pool:
        raise ValueError(f"round {number} has rows from {chosen.min()} to {chosen.max()} of a pool of {pool}")
    return chosen.astype(np.int64).reshape(-1)
