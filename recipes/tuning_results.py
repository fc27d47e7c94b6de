"""What a tuning run leaves: the report of the search, the table of its trials, and the results of the main run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tithe.evaluation import (
    PeakMemory,
    Section,
    csv_text,
    environment,
    memory_over_time,
    optimisation_history,
    parallel_coordinates,
    parameter_importance,
    run_sections,
    trial_curves,
    write_atomic,
    write_report,
    write_results,
)
from tithe.recipes.tuning_arguments import TuneConfig
from tithe.recipes.tuning_stages import Batch
from tithe.trainers import Range, Tuning


Figures = list[tuple[Path, str]]
_HOW_TO_READ = (
    "Each trial trained on a part of a stratified sample of the training rows and was scored on the rest of it; "
    "validation and test were not touched. Values that few trials tell apart are chance: look at how far the best "
    "trials lie from each other before you trust a difference."
)


@dataclass
class TunedRun:
    """All that the files of a tuning run are made of; `run` are the results of the main run."""

    folder: Path
    run: Mapping[str, Any]
    found: Tuning
    batch: Batch | None
    args: Mapping[str, Any]
    timings: Mapping[str, float]
    memory: PeakMemory
    timeline: Sequence[Mapping[str, Any]]


def write_search(folder: Path, args: TuneConfig, batch: Batch | None, found: Tuning) -> None:
    """The report and the table of a search that has ended, before the main run."""
    write_atomic(folder / "trials.csv", csv_text(_readable(found.trials)))
    sections = _search_sections(folder, args, batch, found)
    sections.append(Section("Arguments", facts={name: _plain(value) for name, value in _named(args).items()}))
    write_report(folder / "report.html", title="tune", sections=sections, summary=_best_line(args.objective, found))


def write_tuned(tuned: TunedRun, args: TuneConfig) -> dict[str, Any]:
    """Write every file of the run; `results.json` comes last. Returns what is in it."""
    run, found, folder = tuned.run, tuned.found, tuned.folder
    results = {
        "recipe": "tune",
        "metrics": run["metrics"],
        "selection": run["selection"],
        "tuning": {
            "objective": args.objective,
            "value": found.value,
            "best": found.best,
            "trials": len(found.trials),
            "states": _states(found),
            "importance": found.importance,
            "batch_size": None if tuned.batch is None or tuned.batch.found is None else tuned.batch.found["rows"],
        },
        "timings": tuned.timings,
        "memory": tuned.memory.to_dict(),
        "environment": environment(),
        "data": run["data"],
        "args": tuned.args,
    }
    tuned.memory.write(folder / "memory_usage.json")
    over_time = memory_over_time(folder / "figures" / "memory.png", tuned.timeline)
    data = {name: value for name, value in run["data"].items() if name != "class_counts"}
    extra = [
        *_search_sections(folder, args, tuned.batch, found),
        Section("The main run", "With the best values. Its own report and its model lie in the folder `run`."),
    ]
    selection = {name: value for name, value in run["selection"].items() if not isinstance(value, list)}
    sections = run_sections(
        {**results, "data": data, "selection": selection},
        extra=extra,
        figures=[(over_time, "Memory of this process; the phases are named where they begin")],
    )
    test = list(run["metrics"])[-1]
    summary = (
        f"{run['metrics'][test]['accuracy']:.1%} accuracy on {test} with the best of {len(found.trials)} trials. "
        + _best_line(args.objective, found)
    )
    write_report(folder / "report.html", title=f"tune: {run['data']['name']}", sections=sections, summary=summary)
    write_results(folder / "results.json", results)
    return results


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """A table of the best values, the score on test, and the path of the report as the last line."""
    console = console or Console()
    tuning = results["tuning"]
    table = Table(title=f"tune: {results['data']['name']}")
    table.add_column("hyper-parameter")
    table.add_column("best", justify="right")
    table.add_column("importance", justify="right")
    for name, value in tuning["best"].items():
        share = tuning["importance"].get("adam_betas" if name.startswith("adam_beta") else name)
        table.add_row(name, _plain(value), "–" if share is None else f"{share:.2f}")
    console.print(table)
    split, scores = list(results["metrics"].items())[-1]
    line = f"{tuning['objective']} {tuning['value']:.4f} in the search, accuracy {scores['accuracy']:.4f} on {split}"
    console.print(line, highlight=False)
    print(f"report: {folder / 'report.html'}", flush=True)


def _search_sections(folder: Path, args: TuneConfig, batch: Batch | None, found: Tuning) -> list[Section]:
    best = [
        {"hyper-parameter": name, "best": _plain(value), "searched": _searched(args, name)}
        for name, value in found.best.items()
    ]
    sections = [Section("Best values", _best_line(args.objective, found), table=best)]
    if batch is not None and batch.found is not None:
        sections.append(_batch_section(batch))
    ordered = sorted(found.trials, key=lambda row: _order(row, args))
    return [
        *sections,
        Section("The search", _HOW_TO_READ, figures=_figures(folder / "figures", args, found)),
        Section("Trials, the best first", table=_readable(ordered)),
    ]


def _figures(folder: Path, args: TuneConfig, found: Tuning) -> Figures:
    objective, greater = args.objective, args.maximises
    space = args.space()
    searched = [name for name, values in space.items() if isinstance(values, Range) or len(values.values) > 1]
    logarithmic = [name for name, values in space.items() if isinstance(values, Range) and values.log]
    best = next(row["trial"] for row in sorted(found.trials, key=lambda row: _order(row, args)))
    figures = [
        (
            optimisation_history(folder / "history.png", found.trials, objective, greater_is_better=greater),
            "The trials in the order in which they were drawn",
        ),
        (
            parameter_importance(folder / "importance.png", found.importance),
            "How much of the differences between trials each hyper-parameter explains",
        ),
    ]
    if searched:
        path = folder / "parallel.png"
        parallel_coordinates(
            path, found.trials, objective, searched, logarithmic=logarithmic, greater_is_better=greater
        )
        figures.append((path, "Every trial as a line; dark is better"))
    if any(len(curve) > 1 for curve in found.curves.values()):
        figures.append(
            (trial_curves(folder / "curves.png", found.curves, best, objective), "The trials while they trained")
        )
    return figures


def _batch_section(batch: Batch) -> Section:
    found: Mapping[str, Any] = batch.found or {}
    most = found["rows"] == max(each["rows"] for each in found["tries"])
    text = (
        f"{found['rows']} rows of {found['length']} tokens fit on one device{', the most that were tried' * most}, "
        f"within {_gib(found['limit_bytes'])} ({found['limit_source']}). Each step has {batch.per_device} rows per "
        f"device, {batch.accumulation} times."
    )
    rows = [
        {
            "rows": each["rows"],
            "fits": "yes" if each["fits"] else "no",
            "memory": _gib(each["peak_bytes"]),
            "measured": "expected" if each["seconds"] is None else "measured",
            "rows per second": None if not each["seconds"] else 1 / each["seconds"],
        }
        for each in found["tries"]
    ]
    return Section("Batch size", text, table=rows)


def _order(row: Mapping[str, Any], args: TuneConfig) -> tuple[bool, float, int]:
    value = row[args.objective]
    sign = -1 if args.maximises else 1
    return (row["state"] != "complete", 0.0 if value is None else sign * value, row["trial"])


def _readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: _plain(value) if isinstance(value, tuple | list) else value for name, value in row.items()}
        for row in rows
    ]


def _named(args: TuneConfig) -> dict[str, Any]:
    return {name: getattr(args, name) for name in TuneConfig.__annotations__ if getattr(args, name) is not None}


def _searched(args: TuneConfig, name: str) -> str:
    searched = args.space()["adam_betas" if name.startswith("adam_beta") else name]
    if isinstance(searched, Range):
        return f"{searched.low:g} to {searched.high:g}" + (" (log)" if searched.log else "")
    return "; ".join(_plain(value) for value in searched.values)


def _states(found: Tuning) -> dict[str, int]:
    states = [row["state"] for row in found.trials]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _best_line(objective: str, found: Tuning) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in _states(found).items())
    return f"Best {objective} on held-out rows {found.value:.4f}; trials: {counts}."


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
