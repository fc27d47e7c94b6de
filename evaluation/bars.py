"""Scores with their intervals as bars, grouped: one group a model, one bar a setting."""

from collections.abc import Mapping
from pathlib import Path

from .drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, YELLOW, drawing, ensure_png, legend_below, shorten
from .files import PathLike


_COLOURS = (GREY, BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)

Scores = Mapping[str, tuple[float, float, float]]


def grouped_bars(path: PathLike, groups: Mapping[str, Scores], *, metric: str) -> Path:
    """Draw a score and its interval as a bar for each setting of each group, as a PNG. Returns `path`.

    Args:
        groups: name of the group → name of the setting → score, and the low and high end of its interval; a setting
            has its colour in all groups, and need not be in each.
        metric: what the axis is called.

    Raises:
        ValueError: there is nothing to draw, or `path` is no PNG.
    """
    path = ensure_png(path)
    settings = list(dict.fromkeys(name for scores in groups.values() for name in scores))
    if not settings:
        raise ValueError("there are no scores to draw")
    width = 0.8 / len(settings)
    with drawing(path, width=max(5.0, 1.2 + 1.6 * len(groups)), height=4.2) as figure:
        axes = figure.subplots()
        for number, setting in enumerate(settings):
            places = [place for place, scores in enumerate(groups.values()) if setting in scores]
            values = [scores[setting] for scores in groups.values() if setting in scores]
            means = [value for value, _, _ in values]
            errors = [
                [max(0.0, value - low) for value, low, _ in values],
                [max(0.0, high - value) for value, _, high in values],
            ]
            axes.bar(
                [place + (number - (len(settings) - 1) / 2) * width for place in places],
                means,
                width=0.92 * width,
                color=_COLOURS[number % len(_COLOURS)],
                yerr=errors,
                error_kw={"ecolor": INK, "elinewidth": 0.9, "capsize": 2},
                label=shorten(setting),
            )
        axes.set_xticks(range(len(groups)), [shorten(name) for name in groups], rotation=20 if len(groups) > 3 else 0)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(metric)
        legend_below(figure, columns=min(4, len(settings)))
    return path
