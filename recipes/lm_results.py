"""What distilling a language model leaves: the table of its models, figures of losses, a report, a model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tithe.evaluation import (
    Section,
    environment,
    run_sections,
    write_report,
    write_results,
)
from tithe.recipes.cards import write_run_cards
from tithe.recipes.stage_results import print_models, stage_figures
from tithe.recipes.staged_run import StagedRun
from tithe.recipes.stages import StageResult


_EXPLANATION = (
    "Perplexity is exp of the mean loss of a token, on test; untrained is that of the stage's first weights. Latency "
    "(ms) is the median of single blocks, throughput (rows / s) blocks a second in batches of 32, both on this device "
    "and of use against each other. MB are those of the weights on disk."
)


_PRINTED = ("model", "parameters", "MB", "untrained", "perplexity", "ms", "rows / s")
"""The columns that fit a terminal; the report has them all."""


def write_run(run: StagedRun) -> dict[str, Any]:
    """Write every file; `results.json` comes last: where it lies, the run is complete. Returns what is in it."""
    last = run.stages[-1] if run.stages[-1].name != "student alone" else run.stages[-2]
    data = {
        "name": run.data.name,
        "fingerprint": run.data.fingerprint,
        "blocks": {split: len(rows) for split, rows in run.rows.items()},
        **run.data.report,
    }
    results: dict[str, Any] = {
        "recipe": "distill_lm",
        "metrics": last.metrics,
        "models": model_rows(run.stages),
        "selection": {},
        "timings": run.timings,
        "memory": run.memory.to_dict(),
        "environment": environment(),
        "data": data,
        "args": run.args,
    }
    run.memory.write(run.folder / "memory_usage.json")
    extra = [
        Section("Models", _EXPLANATION, table=_readable(results["models"])),
        Section("Stages", facts={stage.name: stage.notes for stage in run.stages if stage.notes}),
    ]
    figures = stage_figures(run.folder / "figures", run.stages, "perplexity", "perplexity")
    sections = run_sections(results, figures=figures, extra=extra)
    title = f"distill_lm: {run.data.name}"
    write_report(run.folder / "report.html", title=title, sections=sections, summary=_summary(run.stages, last))
    _write_card(run, last)
    write_results(run.folder / "results.json", results)
    return results


def model_rows(stages: Sequence[StageResult]) -> list[dict[str, Any]]:
    """One row a model: how large, how good before and after its training, how fast."""
    return [
        {
            "model": stage.name,
            "parameters": stage.parameters,
            "bytes": stage.bytes_on_disk,
            "untrained": stage.notes.get("perplexity untrained"),
            "perplexity": stage.metrics["test"]["perplexity"],
            "token_accuracy": stage.metrics["test"]["token_accuracy"],
            "latency_ms": stage.speed["latency_ms"],
            "throughput": stage.speed["throughput"],
            "seconds": stage.seconds,
        }
        for stage in stages
    ]


def _readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "model": row["model"],
            "parameters": f"{row['parameters']:,}",
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "untrained": "–" if row["untrained"] is None else f"{row['untrained']:,.1f}",
            "perplexity": f"{row['perplexity']:,.2f}",
            "accuracy": f"{row['token_accuracy']:.1%}",
            "ms": f"{row['latency_ms']:.1f}",
            "rows / s": f"{row['throughput']:,.0f}",
            "trained (s)": f"{row['seconds']:.0f}",
        }
        for row in rows
    ]


def _summary(stages: Sequence[StageResult], last: StageResult) -> str:
    teacher, text = stages[0], f"perplexity {last.metrics['test']['perplexity']:,.2f} on test"
    if last is teacher:
        return f"The teacher has {teacher.parameters:,} parameters and {text}"
    return (
        f"The {last.name} has {last.parameters:,} parameters ({teacher.parameters:,} in the teacher) and {text} "
        f"({teacher.metrics['test']['perplexity']:,.2f} for the teacher)"
    )


def _write_card(run: StagedRun, last: StageResult) -> None:
    # given by a hub id, the teacher is what the student was made from
    base = {"base_model": run.args["teacher_checkpoint"]} if run.args.get("teacher_checkpoint") else {}
    write_run_cards(
        run,
        last.card,
        metrics={split: {k: v for k, v in values.items() if k != "loss"} for split, values in last.metrics.items()},
        intervals={"test": last.notes["intervals"]} if "intervals" in last.notes else {},
        summary=_summary(run.stages, last) + ".",
        model=Path(last.folder),
        sections=[Section("Models", _EXPLANATION, table=_readable(model_rows(run.stages)))],
        **base,
    )


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """The table of the models, and the path of the report as the last line."""
    rows = [{name: row[name] for name in _PRINTED} for row in _readable(results["models"])]
    print_models(f"distill_lm: {results['data']['name']}", rows, folder, console)
