"""What a classification run leaves when it ends: predictions, figures, report, results, model card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tithe.evaluation import (
    Emissions,
    PeakMemory,
    Section,
    SplitPredictions,
    class_balance,
    classification_intervals,
    classification_metrics,
    confused_pairs,
    confusion_matrix,
    environment,
    learning_curve,
    loss_curve,
    per_class_table,
    pool_map,
    pr_curves,
    reliability_diagram,
    roc_curves,
    run_sections,
    write_predictions,
    write_report,
    write_results,
)
from tithe.recipes.cards import write_run_cards


@dataclass
class ClassificationRun:
    """All that the files of a run are made of.

    Attributes:
        recipe: the recipe's name.
        folder: where the files go.
        names: the classes, in the order of the model's outputs.
        splits: name → rows with `text` and `label`, in the order of `probabilities`.
        probabilities: name of a split → (rows, classes).
        data: name, fingerprint and what was found in the data.
        args: the resolved arguments.
        timings: seconds by name.
        rounds: the rows of `rounds.jsonl`, where rows were selected.
        history: `trainer_state.log_history`, where a model was trained.
        selection: what is said of the selection as a whole.
        pool: for the map and the class balance: see `PoolView`.
        card: what the trainer says of itself (`facts_of`), where a model was trained.
        emissions: what was tracked, if it was.
        publish: puts the card of a folder on the hub, where the model is there.
    """

    recipe: str
    folder: Path
    names: list[str]
    splits: Mapping[str, Dataset]
    probabilities: Mapping[str, NDArray[np.float32]]
    data: Mapping[str, Any]
    memory: PeakMemory
    args: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    rounds: Sequence[Mapping[str, Any]] = ()
    history: Sequence[Mapping[str, Any]] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)
    pool: "PoolView | None" = None
    card: Mapping[str, Any] = field(default_factory=dict)
    emissions: Emissions | None = None
    publish: Callable[[Path], None] | None = None


@dataclass
class PoolView:
    """The pool, or a sample of it, as the trained model sees it.

    Attributes:
        embeddings: (rows, d)
        rounds: per round the chosen rows, as positions in `embeddings`.
        labels: of the whole pool.
        chosen_labels: of all chosen rows.
    """

    embeddings: NDArray[np.float32]
    rounds: list[NDArray[np.int64]]
    labels: NDArray[np.int64]
    chosen_labels: NDArray[np.int64]


def write_run(run: ClassificationRun) -> dict[str, Any]:
    """Write every file; `results.json` comes last: where it lies, the run is complete. Returns what is in it."""
    labels = {split: np.asarray(rows["label"][:], dtype=np.int64) for split, rows in run.splits.items()}
    _write_predictions(run, labels)
    metrics = {split: classification_metrics(p, labels[split]) for split, p in run.probabilities.items()}
    results = {
        "recipe": run.recipe,
        "metrics": metrics,
        "selection": run.selection,
        "timings": run.timings,
        "memory": run.memory.to_dict(),
        "environment": environment(),
        "data": run.data,
        "args": run.args,
    }
    figures = [*_split_figures(run, labels), *_training_figures(run), *_pool_figures(run)]
    run.memory.write(run.folder / "memory_usage.json")
    _write_report(run, results, figures, labels)
    _write_card(run, metrics, labels)
    write_results(run.folder / "results.json", results)
    return results


def _write_predictions(run: ClassificationRun, labels: Mapping[str, NDArray[np.int64]]) -> None:
    parts = [
        SplitPredictions(split, range(len(rows)), rows["text"][:], run.probabilities[split], labels[split])
        for split, rows in run.splits.items()
    ]
    write_predictions(run.folder / "predictions.parquet", parts, run.names)


def _split_figures(run: ClassificationRun, labels: Mapping[str, NDArray[np.int64]]) -> list[tuple[Path, str]]:
    """The figures of the last split: test, where there is one."""
    split = list(run.splits)[-1]
    truth, probabilities, folder = labels[split], run.probabilities[split], run.folder / "figures"
    guesses = probabilities.argmax(1)
    return [
        (confusion_matrix(folder / "confusion_matrix.png", truth, guesses, run.names), f"Predictions on {split}"),
        (
            confusion_matrix(folder / "confusion_matrix_normalised.png", truth, guesses, run.names, normalise=True),
            f"Predictions on {split}, as shares of each class",
        ),
        (roc_curves(folder / "roc_curves.png", probabilities, truth, run.names), f"ROC curves on {split}"),
        (pr_curves(folder / "pr_curves.png", probabilities, truth, run.names), f"Precision and recall on {split}"),
        (reliability_diagram(folder / "reliability.png", probabilities, truth), f"Calibration on {split}"),
    ]


def _training_figures(run: ClassificationRun) -> list[tuple[Path, str]]:
    def series(key: str) -> list[dict[str, Any]]:
        return [{"step": log["step"], "value": log[key]} for log in run.history if key in log]

    folder, figures = run.folder / "figures", []
    if scores := series("eval_f1_macro"):
        path = learning_curve(folder / "learning_curve.png", scores, run.rounds)
        figures.append((path, "Validation score over the steps; dashed lines are the rounds"))
    if losses := series("loss"):
        figures.append((loss_curve(folder / "loss_curve.png", losses, series("eval_loss")), "Loss over the steps"))
    return figures


def _pool_figures(run: ClassificationRun) -> list[tuple[Path, str]]:
    if run.pool is None:
        return []
    folder, pool = run.folder / "figures", run.pool
    return [
        (
            pool_map(folder / "pool_map.png", pool.embeddings, pool.rounds),
            "The pool as the trained model sees it, and what each round chose",
        ),
        (
            class_balance(folder / "class_balance.png", pool.labels, pool.chosen_labels, run.names),
            "Classes among the chosen rows and in the pool",
        ),
    ]


def _write_report(
    run: ClassificationRun,
    results: Mapping[str, Any],
    figures: Sequence[tuple[Path, str]],
    labels: Mapping[str, NDArray[np.int64]],
) -> None:
    split = list(run.splits)[-1]
    probabilities = run.probabilities[split]
    extra = [
        Section("Classes", f"On {split}.", table=per_class_table(probabilities, labels[split], run.names)),
        Section(
            "Most frequent mistakes",
            f"On {split}.",
            table=confused_pairs(labels[split], probabilities.argmax(1), run.names),
        ),
    ]
    data = {name: value for name, value in results["data"].items() if name != "class_counts"}  # long, and in figures
    sections = run_sections({**results, "data": data}, rounds=run.rounds, figures=figures, extra=extra)
    title = f"{run.recipe}: {run.data['name']}"
    write_report(run.folder / "report.html", title=title, sections=sections, summary=_summary(run, results))


def _summary(run: ClassificationRun, results: Mapping[str, Any]) -> str:
    split = list(run.splits)[-1]
    score = f"{results['metrics'][split]['accuracy']:.1%} accuracy on {split}"
    if not run.selection:
        return score
    chosen, pool = run.selection["selected"], run.selection["pool"]
    return f"{score}, trained on {chosen:,} of {pool:,} rows, chosen by {run.selection['strategy']}"


def _write_card(
    run: ClassificationRun, metrics: Mapping[str, Mapping[str, float]], labels: Mapping[str, NDArray[np.int64]]
) -> None:
    if not run.history:
        return
    shown = {
        split: {name: values[name] for name in ("accuracy", "f1_macro", "roc_auc", "ece")}
        for split, values in metrics.items()
    }
    write_run_cards(
        run,
        run.card,
        metrics=shown,
        intervals={split: classification_intervals(p, labels[split]) for split, p in run.probabilities.items()},
        summary=_summary(run, {"metrics": metrics}) + ".",
    )


def _cost(seconds: Mapping[str, float], training: float) -> str:
    """What selection cost beside training, whose seconds include it."""
    scoring, selecting = seconds["scoring"], seconds["selecting"]
    rest = max(training - scoring - selecting, 0.0)
    return (
        f"selection took {scoring + selecting:.1f} s ({scoring:.1f} reading signals, {selecting:.1f} choosing), "
        f"training {rest:.1f} s"
    )


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """A table of the metrics, and the path of the report as the last line."""
    console = console or Console()
    splits = results["metrics"]
    table = Table(title=f"{results['recipe']}: {results['data']['name']}")
    table.add_column("metric")
    for split in splits:
        table.add_column(split, justify="right")
    for name in next(iter(splits.values())):
        values = [values[name] for values in splits.values()]
        table.add_row(name, *("–" if v is None or not np.isfinite(v) else f"{v:.4f}" for v in values))
    console.print(table)
    if chosen := results["selection"]:
        console.print(f"trained on {chosen['selected']:,} of {chosen['pool']:,} rows, chosen by {chosen['strategy']}")
        console.print(_cost(chosen["seconds"], results["timings"]["training"]), highlight=False)
    # Not through the console: it would break a long path.
    print(f"report: {folder / 'report.html'}", flush=True)
