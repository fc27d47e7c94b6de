"""Figures of a hyper-parameter search. Each function writes one PNG, in one step, and returns its path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import BLUE, GREY, INK, LIGHT, ORANGE, ORDERED, drawing, ensure_png, legend_below, note, shorten
from .files import PathLike


if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMPLETE = "complete"
_CATEGORIES = 8  # more values of one hyper-parameter are drawn as a scale where they are numbers


def optimisation_history(
    path: PathLike, trials: Sequence[Mapping[str, Any]], objective: str, *, greater_is_better: bool = False
) -> Path:
    """Draw the objective of each trial, and the best so far as a line. Trials that were not completed are ticks below.

    `trials` are rows with `trial`, `state` and the objective. Raises `ValueError` if there is no trial.
    """
    from matplotlib.ticker import MaxNLocator

    target = ensure_png(path)
    if not trials:
        raise ValueError("`trials` is empty: there is nothing to draw")
    done = _completed(trials, objective)
    with drawing(target, 6.8, 4.0) as figure:
        axes = figure.add_subplot()
        if done:
            numbers, values = [row["trial"] for row in done], [row[objective] for row in done]
            best = np.maximum.accumulate(values) if greater_is_better else np.minimum.accumulate(values)
            axes.step(numbers, best, where="post", color=ORANGE, label="best so far")
            axes.plot(numbers, values, "o", color=BLUE, markersize=5, label="trial")
        else:
            note(axes, "no trial was completed")
        if others := [row["trial"] for row in trials if row["state"] != COMPLETE]:
            below = axes.get_xaxis_transform()
            axes.plot(others, [0.02] * len(others), "|", color=GREY, transform=below, label="not completed")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel=objective, title=f"{_words(objective)} of the trials")
        legend_below(figure, columns=3)
    return target


def parameter_importance(path: PathLike, importance: Mapping[str, float]) -> Path:
    """Draw the share of the objective's variance that each hyper-parameter accounts for, the greatest on top."""
    target = ensure_png(path)
    ordered = sorted(importance.items(), key=lambda pair: pair[1])
    with drawing(target, 6.0, 1.4 + 0.4 * max(len(ordered), 2)) as figure:
        axes = figure.add_subplot()
        if ordered:
            places = range(len(ordered))
            axes.barh(places, [share for _, share in ordered], height=0.6, color=BLUE)
            axes.set_yticks(places, [shorten(name) for name, _ in ordered])
            for place, (_, share) in enumerate(ordered):
                axes.text(share, place, f" {share:.2f}", va="center", fontsize=9, color=INK)
            axes.set_xlim(0, 1.08 * max(max(importance.values()), 1e-3))
        else:
            note(axes, "too few trials, or all alike")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="share of the variance (fANOVA)", title="Importance of each hyper-parameter")
    return target


def parallel_coordinates(
    path: PathLike,
    trials: Sequence[Mapping[str, Any]],
    objective: str,
    names: Sequence[str],
    *,
    logarithmic: Sequence[str] = (),
    greater_is_better: bool = False,
) -> Path:
    """Draw each completed trial as a line over one axis for each of `names` and one for the objective.

    Lines are coloured by the objective's rank, the best one on top in orange. Raises `ValueError` if `names` is empty.
    """
    target = ensure_png(path)
    if not names:
        raise ValueError("`names` is empty: there is no axis to draw")
    done = _completed(trials, objective)
    with drawing(target, max(6.4, 1.55 * (len(names) + 1)), 4.2) as figure:
        axes = figure.add_subplot()
        columns = [*names, objective]
        if done:
            scales = [_scale([row[name] for row in done], name in logarithmic) for name in columns]
            _draw_lines(axes, done, columns, scales, greater_is_better)
            for place, scale in enumerate(scales):
                axes.axvline(place, color=LIGHT, linewidth=1, zorder=0)
                for height, text in scale.ticks:
                    axes.text(place + 0.04, height, text, fontsize=8, color=INK, va="center", zorder=5, **_BACKED)
        else:
            note(axes, "no trial was completed")
        axes.set_xticks(range(len(columns)), [shorten(name.replace("_", " ")) for name in columns])
        axes.set_xlim(-0.15, len(columns) - 0.55)
        axes.set_ylim(-0.06, 1.06)
        axes.set_yticks([])
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"The trials; the best {objective} in orange")
    return target


def trial_curves(path: PathLike, curves: Mapping[int, Mapping[int, float]], best: int | None, objective: str) -> Path:
    """Draw the objective of each trial over its steps: trial → step → value. `best` is the number of the best one."""
    target = ensure_png(path)
    with drawing(target, 6.8, 4.0) as figure:
        axes = figure.add_subplot()
        if not curves:
            note(axes, "no trial was evaluated while it trained")
        for number, curve in curves.items():
            steps = sorted(curve)
            style: dict[str, Any] = {"color": BLUE, "alpha": 0.4, "linewidth": 1.2}
            if number == best:
                style = {"color": ORANGE, "zorder": 3}
            axes.plot(steps, [curve[step] for step in steps], marker=".", **style)
        axes.set(xlabel="step", ylabel=objective, title=f"{_words(objective)} during the trials; orange: the best")
    return target


_BACKED: dict[str, Any] = {"bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}}


@dataclass(frozen=True)
class _Scale:
    """Where the values of one axis lie, from 0 to 1, and the `ticks` that are written at it."""

    heights: list[float]
    ticks: list[tuple[float, str]]


def _scale(values: Sequence[Any], logarithmic: bool) -> _Scale:
    values = [tuple(value) if isinstance(value, list) else value for value in values]
    distinct = list(dict.fromkeys(values))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    if not numbers or (len(distinct) <= _CATEGORIES and len(distinct) < len(values) and not logarithmic):
        distinct = sorted(distinct, key=lambda value: (str(type(value)), value))
        places = {value: (0.5 if len(distinct) == 1 else n / (len(distinct) - 1)) for n, value in enumerate(distinct)}
        return _Scale([places[value] for value in values], [(place, _text(v)) for v, place in places.items()])
    found = np.asarray(values, dtype=np.float64)
    found = np.log(found) if logarithmic else found
    low, high = float(found.min()), float(found.max())
    heights = [0.5] * len(values) if high == low else ((found - low) / (high - low)).tolist()
    back = np.exp if logarithmic else np.asarray
    marks = [0.5] if high == low else [0.0, 0.5, 1.0]
    return _Scale(heights, [(mark, _text(float(back(low + mark * (high - low))))) for mark in marks])


def _draw_lines(
    axes: "Axes",
    done: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    scales: Sequence[_Scale],
    greater_is_better: bool,
) -> None:
    from matplotlib import colormaps

    values = np.asarray([row[columns[-1]] for row in done], dtype=np.float64)
    order = np.argsort(-values if greater_is_better else values, kind="stable")
    colours = colormaps[ORDERED]
    for rank, row in reversed(list(enumerate(order))):
        share = rank / max(len(order) - 1, 1)
        style: dict[str, Any] = {"color": colours(0.9 * share), "alpha": 0.55, "linewidth": 1.2}
        if rank == 0:
            style = {"color": ORANGE, "linewidth": 2.6, "zorder": 4}
        axes.plot(range(len(columns)), [scale.heights[row] for scale in scales], **style)


def _completed(trials: Sequence[Mapping[str, Any]], objective: str) -> list[Mapping[str, Any]]:
    return [row for row in trials if row["state"] == COMPLETE and np.isfinite(row[objective])]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else shorten(str(value), 14)


def _words(objective: str) -> str:
    return objective.replace("_", " ").capitalize()
