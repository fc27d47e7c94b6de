"""How far a comparison has come: a live table on a terminal, elsewhere a line for every start and end of a run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tithe.evaluation import budget_text
from tithe.recipes.comparison_runs import DONE, FAILED, RUNNING, Run


_STYLES = {DONE: "green", FAILED: "bold red", RUNNING: "yellow"}


class Progress:
    """Shows the state of `runs`; inside `shown()` `update` is told of every change."""

    def __init__(self, runs: Sequence[Run], console: Console | None = None) -> None:
        self.runs, self.console = runs, console or Console()
        self._live: Live | None = None
        self._start = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self.console.is_terminal:
            self.print_line(f"{len(self.runs)} runs, {sum(run.state == DONE for run in self.runs)} of them complete")
            yield
            return
        with Live(self.table(), console=self.console, auto_refresh=False) as self._live:
            yield
            self._live.update(self.table(), refresh=True)

    def update(self, run: Run | None) -> None:
        """`run` has started or ended; None: time has passed."""
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
        elif run is not None:
            self.print_line(self.describe(run))

    def describe(self, run: Run) -> str:
        ended = sum(r.state in (DONE, FAILED) for r in self.runs)
        line = f"[{ended}/{len(self.runs)}] {run_name(run)}: {run.state}"
        return f"{line}, {_cell(run)}" if run.state == DONE else f"{line}\n{run.reason}" if run.reason else line

    def print_line(self, line: str) -> None:
        # Not through rich: it would break and colour paths.
        print(line, file=self.console.file, flush=True)

    def table(self) -> Table:
        """A row for each strategy and budget, a column for each seed; and what it adds up to."""
        seeds = list(dict.fromkeys(run.seed for run in self.runs))
        states = [run.state for run in self.runs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        table = Table(caption=f"{counts}; {time.monotonic() - self._start:.0f} s elapsed", caption_justify="left")
        table.add_column("strategy")
        table.add_column("budget", justify="right")
        for seed in seeds:
            table.add_column(f"seed {seed}", justify="right")
        cells: dict[tuple[str, float | None], dict[int, Run]] = {}
        for run in self.runs:
            cells.setdefault((run.strategy, run.budget), {})[run.seed] = run
        for (strategy, budget), row in cells.items():
            shown = (Text(_cell(row[seed]), style=_STYLES.get(row[seed].state, "dim")) for seed in seeds)
            table.add_row(strategy, budget_text(budget), *shown)
        return table


def run_name(run: Run) -> str:
    """A run in words."""
    return f"{run.strategy}, {budget_text(run.budget)}, seed {run.seed}"


def _cell(run: Run) -> str:
    seconds = "" if run.seconds is None else f" {run.seconds:.0f} s"
    if run.state != DONE:
        return f"{run.state}{seconds}"
    accuracy = run.results["metrics"]["test"]["accuracy"]
    return f"{accuracy:.4f}{seconds}"
