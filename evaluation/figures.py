"""Figures of a classifier's predictions. Each function writes one PNG, in one step, and returns its path."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    SEQUENTIAL,
    drawing,
    ensure_png,
    legend_below,
    note,
    shorten,
    thinned,
)
from .files import PathLike
from .metrics import (
    calibration_bins,
    check_labels,
    check_scores,
    class_names,
    confusion_counts,
    expected_calibration_error,
    scorable_classes,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NUMBERED_CLASSES = 20  # above it the numbers in the cells of a confusion matrix cannot be read
MOST_NAMED_CLASSES = 40
MOST_BARS = 30
GRID = np.linspace(0.0, 1.0, 1001)

Floats = NDArray[np.float64]
Curve = tuple[Floats, Floats, float]  # x [m], y [m], area
CurveOf = Callable[[NDArray[np.bool_], Floats], Curve]


def confusion_matrix(
    path: PathLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    names: Sequence[str],
    *,
    normalise: bool = False,
    title: str | None = None,
) -> Path:
    """Draw how often each label (row) was predicted as each class (column).

    `labels` and `predictions` are integers [n] in [0, c), `names` [c]. Cells are numbers of examples or, with
    `normalise`, shares of their row; a row without examples stays blank. Up to 20 classes have their numbers written
    in the cells; above 40 not every class is named. Raises `ValueError` as `confusion_counts` does.
    """
    from matplotlib.colors import PowerNorm

    target = ensure_png(path)
    counts = confusion_counts(labels, predictions, len(names))
    with np.errstate(invalid="ignore"):
        values = counts / (counts.sum(axis=1, keepdims=True) if normalise else 1)
    classes = len(names)
    side = float(np.clip(2.2 + 0.42 * classes, 3.6, 9.0))
    with drawing(target, side + 1.4, side + 0.4) as figure:
        axes = figure.add_subplot()
        top = 1.0 if normalise else max(float(values.max()), 1.0)
        # Among many classes each mistake is rare: the square root keeps it visible.
        norm = PowerNorm(0.5 if classes > MOST_NUMBERED_CLASSES else 1.0, vmin=0.0, vmax=top)
        image = axes.imshow(values, cmap=SEQUENTIAL, norm=norm, interpolation="nearest")
        if classes <= MOST_NUMBERED_CLASSES:
            _number_cells(axes, values, top, normalise)
        _name_cells(axes, names)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("share of the label's examples" if normalise else "examples")
        axes.set_title(title or ("Confusion matrix, shares of each row" if normalise else "Confusion matrix, counts"))
    return target


def roc_curves(
    path: PathLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    title: str = "ROC curve",
) -> Path:
    """Draw true against false positive rates: of class 1 of two, or of every class against the rest.

    With more than two classes the mean curve is drawn over the classes' own, which are grey but for the three of least
    area. Inputs and errors as in `classification_metrics`; where no class has both positives and negatives the
    figure says so.
    """
    target = ensure_png(path)
    with drawing(target, 5.6, 5.8) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="chance (0.500)")
        _draw_curves(axes, _roc, probabilities, labels, names, "AUC")
        legend_below(figure)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    return target


def pr_curves(
    path: PathLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    title: str = "Precision-recall curve",
) -> Path:
    """Draw precision against recall, as `roc_curves` does; the areas are average precisions."""
    target = ensure_png(path)
    with drawing(target, 5.6, 5.8) as figure:
        axes = figure.add_subplot()
        _draw_curves(axes, _precision_recall, probabilities, labels, names, "AP")
        if np.shape(probabilities)[1] == 2:
            share = float(np.mean(np.asarray(labels) == 1))
            axes.axhline(share, color=GREY, linestyle=":", linewidth=1.2, label=f"chance ({share:.3f})")
        legend_below(figure)
        axes.set(xlabel="recall", ylabel="precision", title=title)
    return target


def reliability_diagram(
    path: PathLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = 15,
    title: str = "Reliability",
) -> Path:
    """Draw accuracy against confidence in `bins` equal bins, above the share of predictions that fall in each.

    Inputs and errors as in `classification_metrics`, bins as in `calibration_bins`.
    """
    target = ensure_png(path)
    counts, confidence, accuracy = calibration_bins(probabilities, labels, bins)
    error = expected_calibration_error(probabilities, labels, bins)
    centres, filled = (np.arange(bins) + 0.5) / bins, counts > 0
    with drawing(target, 5.6, 6.2) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.bar(centres, np.where(filled, accuracy, 0), width=0.92 / bins, color=BLUE, label="accuracy of the bin")
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.4, label="perfectly calibrated")
        upper.plot(
            confidence[filled], accuracy[filled], "o", color=ORANGE, markersize=4, label="mean confidence of the bin"
        )
        upper.set(ylabel="accuracy", ylim=(0, 1.02), title=f"{title}: expected calibration error {error:.3f}")
        lower.bar(centres, counts / counts.sum(), width=0.92 / bins, color=GREY)
        lower.set(xlabel="confidence (largest probability)", ylabel="share of rows", xlim=(0, 1))
        legend_below(figure)
    return target


def class_balance(
    path: PathLike,
    pool_labels: ArrayLike,
    chosen_labels: ArrayLike,
    names: Sequence[str],
    *,
    title: str = "Class balance",
) -> Path:
    """Draw the share of each class among the chosen examples beside its share of the pool.

    `pool_labels` [n] and `chosen_labels` [m] are integers in [0, c), `names` [c]. Up to 30 classes are in class order;
    of more, the 30 whose share differs most are shown, the most over-represented first. Raises `ValueError` if a label
    is out of range or either is empty.
    """
    target = ensure_png(path)
    shares = [_shares(pool_labels, len(names), "pool_labels"), _shares(chosen_labels, len(names), "chosen_labels")]
    pool, chosen = (100 * share for share in shares)
    shown = min(len(names), MOST_BARS)
    if shown < len(names):
        title = f"{title}: the {MOST_BARS} of {len(names)} classes that differ most"
    with drawing(target, 6.8, 1.9 + 0.3 * shown) as figure:
        axes = figure.add_subplot()
        balance_bars(axes, pool, chosen, names)
        axes.set_title(title)
        legend_below(figure)
    return target


def balance_bars(axes: "Axes", pool: Floats, chosen: Floats, names: Sequence[str], most: int = MOST_BARS) -> None:
    """Draw the shares [c] of the classes in per cent, of the pool and of what was chosen.

    Up to `most` classes are in class order; of more those whose share differs most, the most over-represented first.
    """
    rows = np.arange(len(names))
    if len(names) > most:
        rows = np.argsort(-np.abs(chosen - pool), kind="stable")[:most]
        rows = rows[np.argsort(-(chosen - pool)[rows], kind="stable")]
    places = np.arange(len(rows))
    axes.barh(places - 0.2, pool[rows], height=0.38, color=LIGHT, label="pool")
    axes.barh(places + 0.2, chosen[rows], height=0.38, color=BLUE, label="chosen")
    axes.set_yticks(places, [shorten(names[int(row)]) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of examples (%)")


def _number_cells(axes: "Axes", values: Floats, top: float, normalise: bool) -> None:
    size = 10 if len(values) <= 8 else 7.5
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.2f}" if normalise else f"{value:.0f}"
            colour = "white" if value > 0.6 * top else INK if value else GREY
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _name_cells(axes: "Axes", names: Sequence[str]) -> None:
    shown = thinned(len(names), MOST_NAMED_CLASSES)
    size = 9 if len(names) <= MOST_NUMBERED_CLASSES else 7
    texts = [shorten(names[k]) for k in shown]
    upright = len(names) > 3 or max(map(len, texts)) > 10
    axes.set_xticks(shown, texts, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(shown, texts, fontsize=size)
    axes.tick_params(length=2 if len(shown) < len(names) else 0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="prediction", ylabel="label")


def _draw_curves(
    axes: "Axes", curve: CurveOf, probabilities: ArrayLike, labels: ArrayLike, names: Sequence[str] | None, area: str
) -> None:
    p, y = check_scores(probabilities, labels)
    labels_of = class_names(names, p.shape[1])
    classes = scorable_classes(y, p.shape[1])
    binary = p.shape[1] == 2
    curves = {k: curve(y == k, p[:, k]) for k in classes if k == 1 or not binary}
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    if not curves:
        note(axes, "not defined here: no class has\nboth positives and negatives")
    elif binary:
        x, height, size = curves[1]
        axes.plot(x, height, color=BLUE, label=f"{shorten(labels_of[1])} ({area} {size:.3f})")
    else:
        _draw_class_curves(axes, curves, labels_of, area)


def _draw_class_curves(axes: "Axes", curves: dict[int, Curve], names: Sequence[str], area: str) -> None:
    """The classes' curves in grey, the three of least area in colour, and over them the mean curve."""
    for x, height, _ in curves.values():
        axes.plot(x, height, color=LIGHT, linewidth=0.8)
    mean = np.mean([np.interp(GRID, x, height) for x, height, _ in curves.values()], axis=0)
    average = np.mean([size for _, _, size in curves.values()])
    start = np.mean([height[0] for _, height, _ in curves.values()])
    axes.plot(
        [0, *GRID],
        [start, *mean],
        color=BLUE,
        linewidth=2.6,
        zorder=4,
        label=f"mean of {len(curves)} ({area} {average:.3f})",
    )
    worst = sorted(curves, key=lambda k: curves[k][2])[:3]
    for colour, k in zip((ORANGE, GREEN, PURPLE), worst, strict=False):
        x, height, size = curves[k]
        axes.plot(x, height, color=colour, linewidth=1.2, label=f"{shorten(names[k], 18)} ({size:.3f})")


def _roc(positive: NDArray[np.bool_], score: Floats) -> Curve:
    from sklearn.metrics import auc, roc_curve

    x, y, _ = roc_curve(positive, score)
    return x, y, float(auc(x, y))


def _precision_recall(positive: NDArray[np.bool_], score: Floats) -> Curve:
    """The steps whose area is the average precision: at each recall the precision when it is first reached."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, score)
    reached, first = np.unique(recall[-2::-1], return_index=True)  # without the point (0, 1), which no threshold gives
    height = precision[-2::-1][first][reached > 0]
    x = np.concatenate([[0.0], np.repeat(reached[reached > 0], 2)[:-1]])
    return x, np.repeat(height, 2), float(average_precision_score(positive, score))


def _shares(labels: ArrayLike, classes: int, what: str) -> Floats:
    y = check_labels(labels, classes, what)
    if not len(y):
        raise ValueError(f"`{what}` is empty: there is no balance to draw")
    return np.bincount(y, minlength=classes) / len(y)
