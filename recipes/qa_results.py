"""What a question-answering run leaves: scores by mode with their intervals, memory, examples, a card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tithe.evaluation import (
    ANSWER_METRICS,
    Section,
    environment,
    memory_over_time,
    public_name,
    run_sections,
    write_atomic,
    write_report,
    write_results,
)
from tithe.recipes.cards import write_run_cards
from tithe.recipes.qa_prompts import MODES
from tithe.recipes.qa_stages import ANSWERS_NAME, BASE, TUNED, read_predictions
from tithe.recipes.stage_results import print_models, stage_figures
from tithe.recipes.staged_run import StagedRun
from tithe.recipes.stages import StageResult
from tithe.recipes.tracking import log_scores


_SHOWN = ("token_recall", "exact_match", "f1", "answer_in_text", "refusal")
_NAMES = {"token_recall": "Token Recall", "exact_match": "EM", "f1": "F1", "precision": "precision"}
_NAMES |= {"answer_in_text": "answer in text", "refusal": "refusals"}
_EXPLANATION = (
    "Means over the questions, with 95 % bootstrap intervals. Token Recall is the share of an answer's words that the "
    "text has (the best of several answers), EM whether both are equal, F1 of their words, all after SQuAD's "
    "normalisation; refusals are answers that decline, of which fewer are better."
)
_EXAMPLES = 12
_MIB = 2**20


def write_run(run: StagedRun) -> dict[str, Any]:
    """Write every file; `results.json` comes last: where it lies, the run is complete. Returns what is in it."""
    modes = [stage for stage in run.stages if stage.name in MODES]
    results: dict[str, Any] = {
        "recipe": "slm_qa",
        "metrics": {stage.name: stage.metrics[stage.name] for stage in modes},
        "intervals": {stage.name: stage.notes["intervals"] for stage in modes},
        "answers": {stage.name: str(Path(stage.name) / ANSWERS_NAME) for stage in modes},
        "context": {
            stage.name: {name: stage.notes[name] for name in ("passages_left_out", "prompts_shortened")}
            for stage in modes
        },
        "stages": [{"stage": stage.name, "seconds": stage.seconds} for stage in run.stages],
        "selection": {},
        "timings": run.timings,
        "memory": run.memory.to_dict(),
        "environment": environment(),
        "data": {"name": run.data.name, "fingerprint": run.data.fingerprint, **run.data.report},
        "args": run.args,
    }
    usage = _memory_usage(run, modes)
    write_atomic(run.folder / "memory_usage.json", json.dumps(usage, indent=2) + "\n")
    figures = stage_figures(run.folder / "figures", run.stages, told={TUNED: "tuned model"}, aside="")
    drawn = memory_over_time(run.folder / "figures" / "memory.png", usage["timeline"])
    figures.append((drawn, "Memory of the process; dotted lines are where its phases began"))
    sizes = {name: f"{value / _MIB:.1f} MiB" for name, value in _sizes(usage).items()}
    extra = [
        Section("Scores", _EXPLANATION, table=_score_rows(results, intervals=True)),
        Section("Memory of model and retriever", facts=sizes),
        Section("Examples", table=_examples(modes)),
    ]
    sections = [part for part in run_sections(results, figures=figures, extra=extra) if part.title != "Results"]
    title = f"slm_qa: {run.data.name}"
    write_report(run.folder / "report.html", title=title, sections=sections, summary=_summary(results))
    _write_card(run, results)
    scores = {f"{mode}/{name}": v for mode, values in results["metrics"].items() for name, v in values.items()}
    log_scores(run.args["report_to"], run.folder, scores)
    write_results(run.folder / "results.json", results)
    return results


def _memory_usage(run: StagedRun, modes: Sequence[StageResult]) -> dict[str, Any]:
    """Model and retriever apart, the exact peaks of the phases, and the samples over time."""
    index = [stage.notes["retriever_bytes"] for stage in modes if "retriever_bytes" in stage.notes]
    return {
        "model": {"footprint_bytes": modes[-1].notes["model_bytes"]},
        "retriever": {"index_bytes": index[0]} if index else None,
        "phases": run.memory.to_dict(),
        "timeline": list(run.timeline),
    }


def _sizes(usage: Mapping[str, Any]) -> dict[str, int]:
    found = {"model": usage["model"]["footprint_bytes"]}
    return found | ({"index of the retriever": usage["retriever"]["index_bytes"]} if usage["retriever"] else {})


def _score_rows(results: Mapping[str, Any], intervals: bool = False) -> list[dict[str, str]]:
    """One row a mode; of retrieved contexts how often the right passage was found."""
    rows = []
    for mode, metrics in results["metrics"].items():
        row = {"mode": mode.replace("_", " ")}
        for name in ANSWER_METRICS if intervals else _SHOWN:
            low, high = results["intervals"][mode][name]
            between = f" [{low:.3f}, {high:.3f}]" if intervals else ""
            row[_NAMES[name]] = f"{metrics[name]:.3f}{between}"
        others = {name: value for name, value in metrics.items() if name not in ANSWER_METRICS}
        if intervals:
            row["other scores"] = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
        rows.append(row)
    return rows


def _examples(modes: Sequence[StageResult]) -> list[dict[str, str]]:
    """The first questions, their answers, and what was answered in each mode."""
    given = {stage.name.replace("_", " "): read_predictions(Path(stage.folder))[:_EXAMPLES] for stage in modes}
    first = next(iter(given.values()))
    return [
        {
            "question": row["question"],
            "answers": " / ".join(row["answers"]),
            **{mode: rows[place]["prediction"] for mode, rows in given.items()},
        }
        for place, row in enumerate(first)
    ]


def _summary(results: Mapping[str, Any]) -> str:
    told = (
        f"{scores['token_recall']:.3f} with {mode.replace('_', ' ')}" for mode, scores in results["metrics"].items()
    )
    return "Token Recall " + ", ".join(told).replace("with no context", "without context")


def _write_card(run: StagedRun, results: Mapping[str, Any]) -> None:
    trained = [stage for stage in run.stages if stage.name in (TUNED, BASE)]
    found: dict[str, Any] = {}
    if trained:
        facts, found["model"] = trained[-1].card, Path(trained[-1].folder)
        found["base"] = BASE if len(trained) > 1 else None
    else:  # nothing was trained: it is the model that was named
        facts, found["location"] = {"task": "text-generation"}, public_name(run.args.get("model_name_or_path"))
    found["tags"] = [tag for tag in facts.get("tags", ()) if tag != "generated_from_trainer"] + ["question-answering"]
    write_run_cards(
        run,
        facts,
        metrics={mode: {name: scores[name] for name in ANSWER_METRICS} for mode, scores in results["metrics"].items()},
        intervals=results["intervals"],
        summary=_summary(results) + ".",
        **found,
    )


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """The table of the scores, and the path of the report as the last line."""
    print_models(f"slm_qa: {results['data']['name']}", _score_rows(results), folder, console)
