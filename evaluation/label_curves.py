"""What labels buy: a score against the number of labels, and how many labels reach a score."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, drawing, ensure_png, legend_below
from .files import PathLike


# Number of labels → score.
LabelCurve = Mapping[int, float]
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
_MARKERS = ("o", "s", "^", "D", "v")


def labels_to_reach(curve: LabelCurve, score: float) -> float | None:
    """How many labels reach `score` for good: linearly between two points, None where the last is below it.

    For good, since a curve that touches a score by chance and falls below it again has not reached it.

    >>> labels_to_reach({100: 0.5, 200: 0.7, 300: 0.8}, 0.75)
    250.0
    >>> labels_to_reach({100: 0.8, 200: 0.7, 300: 0.8}, 0.75)
    250.0
    """
    labels = sorted(curve)
    below = [number for number, count in enumerate(labels) if curve[count] < score]
    if not below:
        return float(labels[0])
    if below[-1] == len(labels) - 1:
        return None
    left, right = labels[below[-1]], labels[below[-1] + 1]
    return left + (right - left) * (score - curve[left]) / (curve[right] - curve[left])


def label_curves(
    path: PathLike,
    curves: Mapping[str, Sequence[LabelCurve]],
    *,
    levels: Mapping[str, float] | None = None,
    metric: str = "accuracy on test",
    title: str = "Accuracy against labels",
) -> Path:
    """Draw `metric` against the number of labels: the mean over the runs of each name, ± one sd where it has several.

    `levels` are scores of models that have all labels: dashed lines. A name that has `random` in it is drawn as the
    dotted baseline. Raises `ValueError` if there is no curve.
    """
    target = ensure_png(path)
    if not any(curves.values()):
        raise ValueError("`curves` is empty: there is no curve to draw")
    with drawing(target, 6.8, 4.6) as figure:
        axes = figure.add_subplot()
        for number, (name, runs) in enumerate(curves.items()):
            labels = sorted(set.intersection(*(set(run) for run in runs)))
            values = np.array([[run[count] for count in labels] for run in runs])
            baseline = "random" in name
            colour = GREY if baseline else _COLOURS[number % len(_COLOURS)]
            axes.errorbar(
                labels,
                values.mean(0),
                yerr=values.std(0, ddof=1) if len(runs) > 1 else None,
                color=colour,
                linestyle=":" if baseline else "-",
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4,
                capsize=2,
                label=name,
            )
        for number, (name, level) in enumerate((levels or {}).items()):
            axes.axhline(level, color=_COLOURS[-1 - number % len(_COLOURS)], linestyle="--", linewidth=1.2, label=name)
        axes.set(xlabel="labels asked for", ylabel=metric, title=title)
        axes.set_xlim(left=0)
        legend_below(figure)
    return target
