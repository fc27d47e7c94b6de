"""Figures of a comparison of strategies. Each function writes one PNG, in one step, and returns its path."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .comparison import BASELINE, spread
from .drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    SEQUENTIAL,
    SKY,
    YELLOW,
    drawing,
    ensure_png,
    legend_below,
    shorten,
)
from .files import PathLike


if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P")
LOGARITHMIC_FROM = 4  # times the least budget is the greatest

Floats = NDArray[np.float64]
# Budget, as a share of the pool → one value per seed.
Curve = Mapping[float, Sequence[float]]


def budget_curves(
    path: PathLike,
    curves: Mapping[str, Curve],
    *,
    full: Sequence[float] = (),
    metric: str = "accuracy on test",
    title: str = "Accuracy against budget",
) -> Path:
    """Draw the mean over seeds of `metric` against the budget, one line for each strategy, with ± one sd as bars.

    `curves` are by strategy; a strategy called `random` is drawn as the dotted baseline. `full` are the values of the
    runs on all data: a dashed line, in a band of one sd. From four times the least budget on the axis is logarithmic.
    Raises `ValueError` if there is no curve.
    """
    target = ensure_png(path)
    budgets = sorted({budget for curve in curves.values() for budget in curve})
    if not budgets:
        raise ValueError("`curves` is empty: there is no curve to draw")
    with drawing(target, 7.0, 4.6 + 0.2 * -(-len(curves) // 3)) as figure:
        axes = figure.add_subplot()
        if full:
            whole = spread(full)
            axes.axhline(whole.mean, color=INK, linestyle="--", linewidth=1.2, label="all data")
            if whole.count > 1:
                axes.axhspan(whole.mean - whole.sd, whole.mean + whole.sd, color=LIGHT, alpha=0.4, linewidth=0)
        for number, (name, curve) in enumerate(_baseline_last(curves).items()):
            _draw_curve(axes, name, curve, number)
        if budgets[-1] >= LOGARITHMIC_FROM * budgets[0]:
            axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{100 * budget:.3g} %" for budget in budgets])
        axes.minorticks_off()
        axes.set(xlabel="budget (share of the pool)", ylabel=metric, title=title)
        legend_below(figure, columns=3)
    return target


def seed_scores(
    path: PathLike,
    scores: Mapping[str, Sequence[float]],
    *,
    metric: str = "accuracy on test",
    title: str = "Score by strategy",
) -> Path:
    """Draw one line for each strategy, in the order given from the top: a dot per seed and a bar at their mean.

    The mean of a strategy called `random` is drawn as a dotted line through all of them. Raises `ValueError` if there
    is no strategy.
    """
    target = ensure_png(path)
    if not scores:
        raise ValueError("`scores` is empty: there is nothing to draw")
    with drawing(target, 6.8, 1.6 + 0.34 * len(scores)) as figure:
        axes = figure.add_subplot()
        if BASELINE in scores:
            axes.axvline(spread(scores[BASELINE]).mean, color=GREY, linestyle=":", linewidth=1.4, zorder=1)
        for place, (name, values) in enumerate(scores.items()):
            colour = GREY if name == BASELINE else BLUE
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.6, markeredgewidth=0)
            axes.plot(spread(values).mean, place, "|", color=INK, markersize=15, markeredgewidth=2)
        axes.set_yticks(range(len(scores)), [shorten(name) for name in scores])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(scores) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=metric, title=title)
    return target


def overlap_matrix(
    path: PathLike,
    names: Sequence[str],
    overlaps: ArrayLike,
    *,
    title: str = "Overlap of what the strategies chose",
) -> Path:
    """Draw the Jaccard overlaps [s, s] of the strategies `names` [s], as `mean_overlaps` gives them.

    A cell that is NaN stays blank. Raises `ValueError` if the matrix does not fit the names or leaves [0, 1].
    """
    from matplotlib.colors import PowerNorm

    target = ensure_png(path)
    values = np.asarray(overlaps, dtype=np.float64)
    if values.shape != (len(names), len(names)) or not len(names):
        raise ValueError(f"`overlaps` must be a square matrix of the {len(names)} names, got shape {values.shape}")
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"`overlaps` must lie in [0, 1], got {np.nanmin(values):.4g} to {np.nanmax(values):.4g}")
    side = float(np.clip(2.6 + 0.5 * len(names), 4.4, 12.0))
    with drawing(target, side + 1.2, side + 0.2) as figure:
        axes = figure.add_subplot()
        # Random choices of a tenth overlap by 0.05: the square root tells them from none at all.
        image = axes.imshow(values, cmap=SEQUENTIAL, norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > 0.36 else INK
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
        texts = [shorten(name) for name in names]
        axes.set_xticks(range(len(names)), texts, rotation=90)
        axes.set_yticks(range(len(names)), texts)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("rows in both / rows in either")
        axes.set_title(title)
    return target


def _baseline_last(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    others = {name: curve for name, curve in curves.items() if name != BASELINE}
    return others | {name: curve for name, curve in curves.items() if name == BASELINE}


def _draw_curve(axes: "Axes", name: str, curve: Curve, number: int) -> None:
    budgets = sorted(curve)
    found = [spread(curve[budget]) for budget in budgets]
    baseline = name == BASELINE
    axes.errorbar(
        budgets,
        [values.mean for values in found],
        yerr=[0.0 if values.count < 2 else values.sd for values in found],
        color=INK if baseline else COLOURS[number % len(COLOURS)],
        linestyle=":" if baseline else "-",
        # A new marker with every turn through the colours: no two lines look alike.
        marker="x" if baseline else MARKERS[number // len(COLOURS) % len(MARKERS)],
        markersize=5,
        capsize=2,
        elinewidth=0.9,
        label=shorten(name),
    )
