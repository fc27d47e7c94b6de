"""What an expert-loop run leaves: what labels bought, what was asked for, and what the teachers said of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from tithe.evaluation import (
    Section,
    SplitPredictions,
    classification_intervals,
    environment,
    expected_calibration_error,
    label_curves,
    labels_to_reach,
    reliability_diagram,
    run_sections,
    write_json_lines,
    write_predictions,
    write_report,
    write_results,
)
from tithe.recipes.cards import write_run_cards
from tithe.recipes.loop_records import PROBABILITIES_NAME
from tithe.recipes.loop_stages import CONTROL
from tithe.recipes.stage_results import print_models, print_table, stage_figures
from tithe.recipes.staged_run import StagedRun
from tithe.recipes.stages import StageResult


LOOPS = ("expert loop", CONTROL)
SHARES = (0.8, 0.9, 0.95, 0.99)
_SHOWN = 6  # examples of an iteration in the report
_EXPLANATION = (
    "Scores on test. Labels are those that the student learnt from; teachers learnt from rows of their own, which are "
    "not counted there. ECE is the expected calibration error, lower is better."
)
_COST = (
    "How many labels a loop asked for until its accuracy on test reached a share of that of `supervised`, which has "
    "all labels of the pool, and stayed there; linearly between iterations. A dash: not reached."
)


def write_run(run: StagedRun) -> dict[str, Any]:
    """Write every file; `results.json` comes last: where it lies, the run is complete. Returns what is in it."""
    students = {stage.name: stage for stage in run.stages if not stage.name.startswith("teacher")}
    kept = {stage.name: _arrays(stage) for stage in run.stages}
    main = students.get("expert loop") or list(students.values())[-1]
    curves = {name: curve_of(students[name]) for name in LOOPS if name in students}
    results: dict[str, Any] = {
        "recipe": "expert_loop",
        "metrics": main.metrics,
        "models": [_model_row(stage, kept[stage.name], run) for stage in run.stages],
        "curves": {name: {str(count): value for count, value in curve.items()} for name, curve in curves.items()},
        "iterations": [],
        "label_cost": label_cost(curves, students.get("supervised")),
        "selection": {},
        "timings": run.timings,
        "memory": run.memory.to_dict(),
        "environment": environment(),
        "data": {"name": run.data.name, "fingerprint": run.data.fingerprint, "pool": len(run.rows["train"])}
        | run.data.report,
        "args": run.args,
    }
    asked = _asked(kept[main.name], run) if main.name in LOOPS else []
    if asked:
        results["iterations"] = _iterations(main, asked)
        results["selection"] = {"asked": len(asked), "by": main.notes["by"], "stopped": main.notes["stopped"]}
        write_json_lines(run.folder / "asked.jsonl", asked)
    _write_predictions(run, kept[main.name])
    run.memory.write(run.folder / "memory_usage.json")
    sections = _sections(run, results, asked, kept)
    title = f"expert_loop: {run.data.name}"
    write_report(run.folder / "report.html", title=title, sections=sections, summary=_summary(results, main))
    _write_card(run, results, main, kept[main.name])
    write_results(run.folder / "results.json", results)
    return results


# Numbers


def curve_of(stage: StageResult) -> dict[int, float]:
    """Number of labels → accuracy on test, at the end of each iteration."""
    scored = [log for log in stage.history if "test_accuracy" in log and "labels" in log]
    return {int(log["labels"]): float(log["test_accuracy"]) for log in scored}


def label_cost(curves: Mapping[str, Mapping[int, float]], supervised: StageResult | None) -> list[dict[str, Any]]:
    """One row a share of the supervised accuracy: the labels that each loop needed, and how many fewer than random."""
    if supervised is None or not curves:
        return []
    full, rows = supervised.metrics["test"]["accuracy"], []
    for share in SHARES:
        needed = {name: labels_to_reach(curve, share * full) for name, curve in curves.items()}
        row: dict[str, Any] = {"share": share, "accuracy": share * full, **needed}
        ours, control = needed.get("expert loop"), needed.get(CONTROL)
        row["fewer"] = 1 - ours / control if ours and control else None
        rows.append(row)
    return rows


def _arrays(stage: StageResult) -> dict[str, NDArray[Any]]:
    with np.load(Path(stage.folder) / PROBABILITIES_NAME) as file:
        return dict(file)


def _labels(run: StagedRun, split: str) -> NDArray[np.int64]:
    return np.asarray(getattr(run.data, split)["label"][:], dtype=np.int64)


def _model_row(stage: StageResult, kept: Mapping[str, NDArray[Any]], run: StagedRun) -> dict[str, Any]:
    test = stage.metrics["test"]
    return {
        "model": stage.name,
        "labels": stage.notes.get("labels"),
        "parameters": stage.parameters,
        "accuracy": test["accuracy"],
        "f1_macro": test["f1_macro"],
        "ece": expected_calibration_error(kept["test"], _labels(run, "test")),
        "throughput": stage.speed["throughput"],
        "seconds": stage.seconds,
        "stopped": stage.notes.get("stopped"),
    }


def _asked(kept: Mapping[str, NDArray[Any]], run: StagedRun) -> list[dict[str, Any]]:
    """One row a label that was asked for, in order: the text, who labelled it how, and what each teacher thought."""
    names = [run.data.id2label[i] for i in range(len(run.data.id2label))]
    opinions = kept.get("opinions")
    texts = run.rows["train"]["text"][:]
    rows = []
    for place, row in enumerate(kept["rows"].tolist()):
        label = int(kept["labels"][place])
        entry: dict[str, Any] = {"iteration": int(kept["iterations"][place]), "row": row, "text": texts[row]}
        entry |= {"label": names[label] if label >= 0 else None, "by": str(kept["by"][place])}
        if opinions is not None:
            entry["teachers"] = [
                {"label": names[int(p.argmax())], "probability": round(float(p.max()), 4)} for p in opinions[:, place]
            ]
        rows.append(entry)
    return rows


def _iterations(stage: StageResult, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an iteration: what was asked for, what it led to, and how right the teachers were about it."""
    scores: dict[int, dict[str, Any]] = {}
    for log in stage.history:
        if "iteration" in log and "eval_accuracy" in log:
            scores.setdefault(int(log["iteration"]), {})["validation"] = log["eval_accuracy"]
        if "iteration" in log and "test_accuracy" in log:
            scores.setdefault(int(log["iteration"]), {})["test"] = log["test_accuracy"]
    rows, labelled = [], 0
    for iteration in sorted({entry["iteration"] for entry in asked}):
        part = [entry for entry in asked if entry["iteration"] == iteration]
        labelled += sum(entry["label"] is not None for entry in part)
        row: dict[str, Any] = {"iteration": iteration, "asked": len(part), "labels": labelled}
        row |= {f"by {source}": sum(e["by"] == source for e in part) for source in sorted({e["by"] for e in part})}
        if "teachers" in part[0]:
            opinions = [(entry["label"], teacher) for entry in part for teacher in entry["teachers"]]
            told = [label == teacher["label"] for label, teacher in opinions if label is not None]
            row["teachers right"] = float(np.mean(told)) if told else None
            row["teachers sure"] = float(np.mean([teacher["probability"] for _, teacher in opinions]))
        rows.append(row | scores.get(iteration, {}))
    return rows


# Files


def _write_predictions(run: StagedRun, kept: Mapping[str, NDArray[Any]]) -> None:
    parts = []
    for split in ("validation", "test"):
        rows = getattr(run.data, split)
        parts.append(SplitPredictions(split, range(len(rows)), rows["text"][:], kept[split], _labels(run, split)))
    names = [run.data.id2label[i] for i in range(len(run.data.id2label))]
    write_predictions(run.folder / "predictions.parquet", parts, names)


def _sections(
    run: StagedRun,
    results: Mapping[str, Any],
    asked: Sequence[Mapping[str, Any]],
    kept: Mapping[str, Mapping[str, NDArray[Any]]],
) -> list[Section]:
    first = [Section("Models", _EXPLANATION, table=_readable(results["models"]))]
    if results["label_cost"]:
        first.append(Section("Label cost", _COST, table=_readable_cost(results["label_cost"])))
    extra = []
    if asked:
        iterations = [_percent(row) for row in results["iterations"]]
        extra.append(Section("Iterations", "Shares and scores in percent.", table=iterations))
        text = f"The first {_SHOWN} of each iteration; all of them are in asked.jsonl."
        extra.append(Section("Asked for", text, table=_examples(asked)))
    extra.append(Section("Stages", facts={stage.name: stage.notes for stage in run.stages if stage.notes}))
    return [*first, *run_sections(results, figures=_figures(run, results, kept), extra=extra)]


def _figures(
    run: StagedRun, results: Mapping[str, Any], kept: Mapping[str, Mapping[str, NDArray[Any]]]
) -> list[tuple[Path, str]]:
    folder, figures = run.folder / "figures", []
    students = [stage for stage in run.stages if not stage.name.startswith("teacher")]
    curves = {name: [curve_of(stage)] for stage in students if (name := stage.name) in LOOPS}
    levels = {s.name: s.metrics["test"]["accuracy"] for s in students if s.name not in LOOPS}
    if curves:
        named = {f"{name} queries" if name == CONTROL else name: runs for name, runs in curves.items()}
        path = label_curves(folder / "accuracy_by_labels.png", named, levels=levels)
        figures.append((path, "Accuracy on test against labels; dashed: with all labels of the pool"))
    for stage in students:
        name = stage.name.replace(" ", "_")
        path = folder / f"reliability_{name}.png"
        reliability_diagram(path, kept[stage.name]["test"], _labels(run, "test"), title=stage.name.capitalize())
        figures.append((path, f"Calibration of {stage.name} on test"))
    return [*figures, *stage_figures(folder, run.stages, "accuracy", "accuracy")]


def _readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "model": row["model"],
            "labels": f"{row['labels']:,}",
            "accuracy": f"{row['accuracy']:.1%}",
            "macro F1": f"{row['f1_macro']:.1%}",
            "ECE": f"{row['ece']:.3f}",
            "parameters": f"{row['parameters']:,}",
            "seconds": f"{row['seconds']:.0f}",
        }
        for row in rows
    ]


def _readable_cost(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "of supervised": f"{row['share']:.0%}",
            "accuracy": f"{row['accuracy']:.1%}",
            **{name: "–" if row[name] is None else f"{row[name]:,.0f} labels" for name in LOOPS if name in row},
            "fewer than random": "–" if row["fewer"] is None else f"{row['fewer']:.0%}",
        }
        for row in rows
    ]


def _percent(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: f"{v:.1%}" if isinstance(v, float) else "–" if v is None else v for k, v in row.items()}


def _examples(asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows, seen = [], dict.fromkeys((entry["iteration"] for entry in asked), 0)
    for entry in asked:
        seen[entry["iteration"]] += 1
        if seen[entry["iteration"]] > _SHOWN:
            continue
        told = " · ".join(f"{t['label']} {t['probability']:.0%}" for t in entry.get("teachers", ()))
        text = entry["text"] if len(entry["text"]) <= 120 else entry["text"][:119] + "…"
        row = {"iteration": entry["iteration"], "text": text, "label": entry["label"] or "–", "by": entry["by"]}
        rows.append(row | ({"teachers": told} if told else {}))
    return rows


def _summary(results: Mapping[str, Any], main: StageResult) -> str:
    text = (
        f"The {main.name} student learnt from {main.notes['labels']:,} labels of a pool of "
        f"{results['data']['pool']:,} rows, and is right on {main.metrics['test']['accuracy']:.1%} of test"
    )
    for row in results["label_cost"]:
        if row["share"] == 0.95 and row.get("expert loop"):
            text += f"; it reached 95 % of the supervised accuracy with {row['expert loop']:,.0f} labels"
            if row.get(CONTROL):
                text += f" (random queries: {row[CONTROL]:,.0f})"
    return text


def _write_card(
    run: StagedRun, results: Mapping[str, Any], main: StageResult, kept: Mapping[str, NDArray[Any]]
) -> None:
    sections = [Section("Models", _EXPLANATION, table=_readable(results["models"]))]
    if results["label_cost"]:
        sections.append(Section("Label cost", _COST, table=_readable_cost(results["label_cost"])))
    write_run_cards(
        run,
        main.card,
        metrics=main.metrics,
        intervals={
            split: classification_intervals(kept[split], _labels(run, split)) for split in ("validation", "test")
        },
        summary=_summary(results, main) + ".",
        model=Path(main.folder),
        sections=sections,
    )


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """The table of the models, that of the label cost, and the path of the report as the last line."""
    console = console or Console()
    rows = [{k: v for k, v in row.items() if k != "parameters"} for row in _readable(results["models"])]
    if results["label_cost"]:
        print_table("Label cost", _readable_cost(results["label_cost"]), console)
    print_models(f"expert_loop: {results['data']['name']}", rows, folder, console)
