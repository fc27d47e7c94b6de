"""The figure of the README, drawn from the tables of RESULTS.md: python benchmarks/draw_results.py."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tithe.evaluation.drawing import BLUE, GREY, INK, ORANGE, drawing


if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent
FIGURE = ROOT / "docs" / "images" / "a_tenth.png"
SETS = {"banking77": "77 classes, 900 of 9,003 rows", "rotten_tomatoes": "2 classes, 853 of 8,530 rows"}
COLOURS = {"margin_coverage": ORANGE, "all": INK, "random": BLUE}
_SCORE = re.compile(r"(?P<mean>[\d.]+) ± (?P<sd>[\d.]+)")


def accuracies(name: str, results: str) -> dict[str, tuple[float, float]]:
    """Strategy → mean and standard deviation of the accuracy on test of the data set `name`, in %, best first."""
    section = results.split(f"\n## {name} (")[1]
    found = {}
    for line in section.split("### Test")[1].split("###")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 3 and (score := _SCORE.fullmatch(cells[3])):
            found[cells[0]] = (float(score["mean"]), float(score["sd"]))
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def draw(path: Path = FIGURE) -> None:
    """A dot with its standard deviation for each strategy, a panel for each data set."""
    results = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    with drawing(path, width=9.6, height=4.0) as figure:
        for axes, (name, told) in zip(figure.subplots(1, len(SETS)), SETS.items(), strict=True):
            _panel(axes, accuracies(name, results))
            axes.set_title(name)
            axes.set_xlabel(f"accuracy on test, % ({told})")
    print(path)


def _panel(axes: "Axes", scores: dict[str, tuple[float, float]]) -> None:
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for place, (strategy, (mean, sd)) in enumerate(reversed(scores.items())):
        colour = COLOURS.get(strategy, GREY)
        axes.errorbar(mean, place, xerr=sd, fmt="o", color=colour, markersize=6, capsize=3)
        if strategy in COLOURS:
            beside = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
            axes.annotate(f"{mean:.2f}", (mean - sd, place), bbox=plain, **beside)
    axes.axvline(scores["random"][0], color=BLUE, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(scores)), ["all rows" if name == "all" else name for name in reversed(scores)])
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == "margin_coverage" else "normal")
    axes.grid(axis="y", visible=False)


if __name__ == "__main__":
    draw()
