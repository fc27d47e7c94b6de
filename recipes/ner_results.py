"""What distilling a tagger leaves: the table of its models, figures, pages of predictions, a report, a model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

from tithe.evaluation import (
    Section,
    TaggedSentence,
    atomic_path,
    confusion_matrix,
    entity_errors,
    entity_intervals,
    entity_page,
    entity_table,
    environment,
    run_sections,
    token_ids,
    write_report,
    write_results,
)
from tithe.models import loaded_whole
from tithe.recipes.cards import write_run_cards
from tithe.recipes.stage_results import print_models, stage_figures
from tithe.recipes.staged_run import StagedRun
from tithe.recipes.stages import StageResult
from tithe.recipes.tagger import encode


Tags = list[list[str]]

_TOLD = {"factorized": "factorized teacher", "student alone": "student without a teacher"}


def write_run(run: StagedRun) -> dict[str, Any]:
    """Write every file; `results.json` comes last: where it lies, the run is complete. Returns what is in it."""
    last = run.stages[-1] if run.stages[-1].name != "student alone" else run.stages[-2]
    results: dict[str, Any] = {
        "recipe": "distill_ner",
        "metrics": last.metrics,
        "models": model_rows(run.stages),
        "selection": {},
        "timings": run.timings,
        "memory": run.memory.to_dict(),
        "environment": environment(),
        "data": {"name": run.data.name, "fingerprint": run.data.fingerprint, **run.data.report},
        "args": run.args,
    }
    words, predicted, wanted = _predict(run, last)
    _write_predictions(run.folder / "predictions.parquet", words, predicted, wanted)
    sentences = [TaggedSentence(*row) for row in zip(words, predicted, wanted, strict=True)]
    entity_page(run.folder / "entities.html", sentences, title=f"Entities on test: {run.data.name}, {last.name}")
    figures = _figures(run, predicted, wanted)
    run.memory.write(run.folder / "memory_usage.json")
    extra = [
        Section("Entities by type", f"Of the {last.name}, on test.", table=entity_table(predicted, wanted)),
        Section("Errors", f"Of the {last.name}, on test; each is in entities.html.", entity_errors(predicted, wanted)),
        Section("Stages", facts={stage.name: stage.notes for stage in run.stages if stage.notes}),
    ]
    models = Section("Models", _EXPLANATION, table=_readable(results["models"]))
    sections = [models, *run_sections(results, figures=figures, extra=extra)]
    title = f"distill_ner: {run.data.name}"
    write_report(run.folder / "report.html", title=title, sections=sections, summary=_summary(run.stages, last))
    _write_card(run, last, predicted, wanted)
    write_results(run.folder / "results.json", results)
    return results


def model_rows(stages: Sequence[StageResult]) -> list[dict[str, Any]]:
    """One row a model: how large, how good, how fast."""
    teacher = stages[0].metrics["test"]["f1"]
    return [
        {
            "model": stage.name,
            "parameters": stage.parameters,
            "bytes": stage.bytes_on_disk,
            "f1": stage.metrics["test"]["f1"],
            "share": stage.metrics["test"]["f1"] / teacher if teacher else None,
            "latency_ms": stage.speed["latency_ms"],
            "throughput": stage.speed["throughput"],
            "seconds": stage.seconds,
        }
        for stage in stages
    ]


_EXPLANATION = (
    "F1 is that of entities on test, strict; the share is that of the teacher's. MB are those of the weights on disk. "
    "`ms` is the median time of a single sentence, `rows / s` are sentences a second in batches of 32, both on this "
    "device and of use against each other."
)


def _readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "model": row["model"],
            "parameters": f"{row['parameters']:,}",
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "F1": f"{row['f1']:.4f}",
            "share": "–" if row["share"] is None else f"{row['share']:.1%}",
            "ms": f"{row['latency_ms']:.1f}",
            "rows / s": f"{row['throughput']:,.0f}",
            "trained (s)": f"{row['seconds']:.0f}",
        }
        for row in rows
    ]


def _predict(run: StagedRun, stage: StageResult) -> tuple[list[list[str]], Tags, Tags]:
    """Words of test, what the model of `stage` says of them, and the right labels; words that were cut count as O."""
    with loaded_whole():  # by one process
        model, tokenizer = AutoModelForTokenClassification.from_pretrained(stage.folder), _tokenizer(stage.folder)
    names, test = run.data.names, run.data.test
    encoded = encode(test, tokenizer, names, "first", int(run.args["max_length"]))
    rows = encoded.select_columns(["input_ids", "attention_mask", "labels"])
    collate = DataCollatorForTokenClassification(tokenizer)
    order = np.argsort([-len(ids) for ids in rows["input_ids"]], kind="stable").tolist()
    predicted: Tags = [[] for _ in order]
    model.eval()
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        batch = dict(collate([rows[i] for i in numbers]))
        labels = batch.pop("labels")
        with torch.inference_mode():
            guesses = model(**batch).logits.argmax(-1)
        for i, guess, label in zip(numbers, guesses, labels, strict=True):
            predicted[i] = [names[g] for g in guess[label != -100].tolist()]
    words = [list(row) for row in test["words"]]
    wanted = [[names[label] for label in row] for row in test["labels"]]
    return words, [row + ["O"] * (len(w) - len(row)) for row, w in zip(predicted, words, strict=True)], wanted


def _tokenizer(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _write_predictions(path: Path, words: list[list[str]], predicted: Tags, wanted: Tags) -> None:
    table = pa.table(
        {
            "split": ["test"] * len(words),
            "row": list(range(len(words))),
            "words": words,
            "label": wanted,
            "prediction": predicted,
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _figures(run: StagedRun, predicted: Tags, wanted: Tags) -> list[tuple[Path, str]]:
    folder, names = run.folder / "figures", run.data.names
    confusion = confusion_matrix(
        folder / "token_confusion.png", token_ids(wanted, names), token_ids(predicted, names), names, normalise=True
    )
    figures = [(confusion, "Labels of words on test, as shares of each label")]
    return [*figures, *stage_figures(folder, run.stages, "f1", "F1 (entities)", _TOLD)]


def _summary(stages: Sequence[StageResult], last: StageResult) -> str:
    rows = {row["model"]: row for row in model_rows(stages)}
    row = rows[last.name]
    return (
        f"The {last.name} has {row['parameters']:,} parameters ({rows['teacher']['parameters']:,} in the teacher) and "
        f"F1 {row['f1']:.3f} on test" + ("" if row["share"] is None else f", {row['share']:.1%} of the teacher's")
    )


def _write_card(run: StagedRun, last: StageResult, predicted: Tags, wanted: Tags) -> None:
    write_run_cards(
        run,
        last.card,
        metrics={split: {k: v for k, v in values.items() if k != "loss"} for split, values in last.metrics.items()},
        intervals={"test": entity_intervals(predicted, wanted)},
        summary=_summary(run.stages, last) + ".",
        model=Path(last.folder),
        sections=[Section("Models", _EXPLANATION, table=_readable(model_rows(run.stages)))],
    )


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """The table of the models, and the path of the report as the last line."""
    rows = [{name: row[name] for name in row if name != "trained (s)"} for row in _readable(results["models"])]
    print_models(f"distill_ner: {results['data']['name']}", rows, folder, console)
