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
    console = console or Console()
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    print(f"report: {folder / 'report.html'}", flush=True)
