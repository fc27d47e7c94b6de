"""What a comparison leaves: tables, figures, report, and all of it as JSON, from the runs that are complete."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tithe.evaluation import (
    BASELINE,
    FULL,
    ComparedRun,
    Section,
    budget_curves,
    budget_text,
    comparison_rows,
    csv_text,
    difference_rows,
    environment,
    markdown_table,
    mean_overlaps,
    overlap_matrix,
    readable_rows,
    seed_scores,
    time_rows,
    write_atomic,
    write_report,
    write_results,
)
from tithe.recipes.comparison_progress import run_name
from tithe.recipes.comparison_runs import DONE, FAILED, Run
from tithe.trainers import Ledger


SPLITS = ("test", "validation")
_HOW_TO_READ = (
    "In percent: mean ± standard deviation over seeds. Share of full: the mean accuracy over that of all data, over "
    "the seeds that both have. Minus random: the mean difference in accuracy to random of the same seed and budget, "
    "with its 95 % confidence interval (Student's t over seeds), which is not corrected for the number of strategies. "
    "The CSV files have both for every metric."
)
_HOW_TO_READ_OVERLAP = (
    "Rows that both chose over rows that either chose, averaged over seeds; on the diagonal between different seeds "
    "of one strategy. Two random choices of a share b come to b / (2 - b)."
)
_HOW_TO_READ_TIME = (
    "Mean seconds of a run. Selection is reading the pool and choosing; training is without it. A run that was "
    "stopped counts what it trained since its last start."
)
Figures = list[tuple[Path, str]]


def write_comparison(folder: Path, runs: Sequence[Run], settings: Mapping[str, Any]) -> list[str]:
    """Write every file of the comparison from the complete ones of `runs`; returns what to know of them, in words.

    `settings` are the resolved arguments. Without a complete run nothing is written.
    """
    complete = [run for run in runs if run.state == DONE]
    notes = _notes(runs, complete)
    if not complete:
        return notes
    compared = [_compared(run) for run in complete]
    rows = {split: comparison_rows(compared, split) for split in SPLITS}
    for split in SPLITS:
        write_atomic(folder / f"{split}.csv", csv_text(rows[split]))
    data = complete[0].results["data"]
    write_atomic(folder / "tables.md", _markdown(data["name"], compared, rows, notes))
    figures, overlaps = _figures(folder / "figures", compared, rows["test"])
    record = {
        "recipe": "compare_strategies",
        "notes": notes,
        "test": rows["test"],
        "validation": rows["validation"],
        "overlap": overlaps,
        "runs": [_record(run) for run in runs],
        "data": data,
        "environment": environment(),
        "args": settings,
    }
    _write_report(folder, record, compared, figures)
    write_results(folder / "comparison.json", record)
    return notes


def _compared(run: Run) -> ComparedRun:
    results = run.results
    timings = results["timings"]
    selection = timings["scoring"] + timings["selecting"]
    return ComparedRun(
        strategy=run.strategy,
        budget=run.budget,
        seed=run.seed,
        metrics=results["metrics"],
        chosen=Ledger.load(run.folder).selected,
        pool=results["selection"]["pool"],
        # The rounds of all starts of a run are counted, its training since the last one.
        seconds={"selection": selection, "training": max(0.0, timings["training"] - selection)},
    )


def _notes(runs: Sequence[Run], complete: Sequence[Run]) -> list[str]:
    notes = []
    if missing := [run_name(run) for run in runs if run.state not in (DONE, FAILED)]:
        notes.append(f"{len(missing)} of {len(runs)} runs are missing: {'; '.join(missing)}")
    if failed := [run_name(run) for run in runs if run.state == FAILED]:
        notes.append(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")
    if len({run.results["data"]["fingerprint"] for run in complete}) > 1:
        notes.append("The runs have read different data: their figures cannot be compared")
    return notes


def _markdown(
    name: str, runs: Sequence[ComparedRun], rows: Mapping[str, list[dict[str, Any]]], notes: Sequence[str]
) -> str:
    parts = [f"# Strategies on {name}", *(f"**{note}.**" for note in notes), _HOW_TO_READ]
    for split in SPLITS:
        parts += [f"## {split.capitalize()}", markdown_table(readable_rows(rows[split])).strip()]
    parts += ["## What selection cost", _HOW_TO_READ_TIME, markdown_table(time_rows(runs)).strip()]
    return "\n\n".join(parts) + "\n"


def _figures(
    folder: Path, runs: Sequence[ComparedRun], rows: Sequence[Mapping[str, Any]]
) -> tuple[Figures, list[dict[str, Any]]]:
    """The figures with their captions, and the overlaps that they show."""
    figures, overlaps = [], []
    budgets = sorted({run.budget for run in runs if run.budget is not None})
    if len(budgets) > 1:
        figures.append(_budget_curves(folder / "budget_curves.png", runs))
    for budget in budgets or (None,):
        order = [row["strategy"] for row in rows if row["budget"] in (None, budget)]
        shown = [run for run in runs if run.budget in (None, budget)]
        scores = {name: [_accuracy(run) for run in shown if run.strategy == name] for name in order}
        path = folder / f"accuracy_{_file_name(budget)}.png"
        title = f"Accuracy at a budget of {budget_text(budget)}"
        figures.append(
            (seed_scores(path, scores, title=title), f"{title}, on test: a dot per seed, a bar at the mean")
        )
    for budget in budgets:
        names, matrix = mean_overlaps([run for run in runs if run.budget == budget])
        overlaps.append({"budget": budget, "strategies": names, "jaccard": matrix})
        title = f"Overlap at a budget of {budget_text(budget)}"
        path = overlap_matrix(folder / f"overlap_{_file_name(budget)}.png", names, matrix, title=title)
        figures.append((path, f"{title}: share of common rows in what the strategies chose"))
    return figures, overlaps


def _budget_curves(path: Path, runs: Sequence[ComparedRun]) -> tuple[Path, str]:
    curves: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        if run.budget is not None:
            curves.setdefault(run.strategy, {}).setdefault(len(run.chosen) / run.pool, []).append(_accuracy(run))
    full = [_accuracy(run) for run in runs if run.strategy == FULL]
    return budget_curves(
        path, curves, full=full
    ), "Accuracy on test against the budget; bars are one standard deviation"


def _file_name(budget: float | None) -> str:
    return FULL if budget is None else f"{budget:.12g}"


def _accuracy(run: ComparedRun) -> float:
    return float(run.metrics["test"]["accuracy"] or 0)


def _record(run: Run) -> dict[str, Any]:
    known: dict[str, Any] = {"strategy": run.strategy, "budget": run.budget, "seed": run.seed}
    known |= {"folder": run.folder.name, "state": run.state, "reason": run.reason or None, "flags": run.flags}
    return known | {name: run.results[name] for name in ("metrics", "selection", "timings") if name in run.results}


def _write_report(folder: Path, record: Mapping[str, Any], runs: Sequence[ComparedRun], figures: Figures) -> None:
    overlaps = [figure for figure in figures if figure[0].name.startswith("overlap")]
    others = [figure for figure in figures if figure not in overlaps]
    failed = [{"run": part["folder"], "why": part["reason"]} for part in record["runs"] if part["state"] == FAILED]
    sections = [
        Section("Test", _HOW_TO_READ, table=_narrow(readable_rows(record["test"]))),
        Section("Test, minus random", table=_narrow(difference_rows(record["test"]))),
        Section("Validation", table=_narrow(readable_rows(record["validation"]))),
        Section("Validation, minus random", table=_narrow(difference_rows(record["validation"]))),
        Section("Figures", figures=others),
        Section("What the strategies chose", _HOW_TO_READ_OVERLAP, figures=overlaps),
        Section("What selection cost", _HOW_TO_READ_TIME, table=time_rows(runs)),
        Section("Failed runs", table=failed),
        Section("Data", facts={name: value for name, value in record["data"].items() if name != "class_counts"}),
        Section("Environment", facts=record["environment"]),
        Section("Arguments", facts=record["args"]),
    ]
    shown = [part for part in sections if part.facts or part.table or part.figures]
    summary = "\n\n".join([*(f"{note}." for note in record["notes"]), _summary(record["test"])]).strip()
    title = f"compare_strategies: {record['data']['name']}"
    write_report(folder / "report.html", title=title, sections=shown, summary=summary)


def _narrow(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows for a page: figures are not broken over two lines, and the differences have a table of their own."""
    return [
        {
            name: value.replace(" ", "\N{NO-BREAK SPACE}") if isinstance(value, str) else value
            for name, value in row.items()
            if not name.startswith("minus random")
        }
        for row in rows
    ]


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The best strategy on test at each budget, beside the baseline."""
    parts = []
    for budget in dict.fromkeys(row["budget"] for row in rows if row["budget"] is not None):
        there = {row["strategy"]: row["accuracy_mean"] for row in rows if row["budget"] == budget}
        best = next(iter(there))  # they are in this order
        text = f"{budget_text(budget)}: {best} {there[best]:.1%}"
        parts.append(
            text if best == BASELINE or BASELINE not in there else f"{text} ({BASELINE} {there[BASELINE]:.1%})"
        )
    return f"Best accuracy on test at {', at '.join(parts)}." if parts else ""
