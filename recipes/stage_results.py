"""What the results of every distillation recipe share: series out of a history, the table of the models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def series(history: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """The logged values of `key` as points of a figure, `step` and `value`."""
    return [{"step": log["step"], "value": log[key]} for log in history if key in log]


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
