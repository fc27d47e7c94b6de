"""What the results of every distillation recipe share: series out of a history, the table of the models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tithe.evaluation import learning_curve, loss_curve
from tithe.recipes.stages import StageResult


Figures = list[tuple[Path, str]]


def series(history: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """The logged values of `key` as points of a figure, `step` and `value`."""
    return [{"step": log["step"], "value": log[key]} for log in history if key in log]


def stage_figures(
    folder: Path,
    stages: Sequence[StageResult],
    score: str | None = None,
    metric: str = "",
    told: Mapping[str, str] | None = None,
    aside: str = "; on validation that of the labels alone",
) -> Figures:
    """The loss of each stage, and its `score` on validation, if it has one, drawn into `folder`, with captions.

    Args:
        score: the metric's name in the history, without `eval_`; the loss is drawn in any case.
        metric: what the axis calls it.
        told: what captions call a stage, where that is not its name.
        aside: what captions of losses say besides.
    """
    figures: Figures = []
    for stage in stages:
        name, called = stage.name.replace(" ", "_"), (told or {}).get(stage.name, stage.name)
        if losses := series(stage.history, "loss"):
            path = loss_curve(folder / f"loss_{name}.png", losses, series(stage.history, "eval_loss"))
            figures.append((path, f"Loss of the {called}{aside}"))
        if score is not None and (scores := series(stage.history, f"eval_{score}")):
            path = learning_curve(folder / f"{score}_{name}.png", scores, metric=f"validation {metric}")
            figures.append((path, f"{metric.capitalize()} of the {called} on validation"))
    return figures


def print_models(title: str, rows: Sequence[Mapping[str, str]], folder: Path, console: Console | None = None) -> None:
    """A table of `rows`, one a model, and the path of the report as the last line."""
    print_table(title, rows, console or Console())
    print(f"report: {folder / 'report.html'}", flush=True)


def print_table(title: str, rows: Sequence[Mapping[str, str]], console: Console) -> None:
    """`rows` under their keys; the first column is text, the others are numbers."""
    table = Table(title=title)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
