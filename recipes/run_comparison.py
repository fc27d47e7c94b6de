"""`tithe compare RUN RUN …`: finished runs of any recipe side by side."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from tithe.evaluation import (
    Section,
    csv_text,
    markdown_table,
    paired_comparison,
    read_results,
    write_atomic,
    write_report,
)
from tithe.recipes.qa_comparison import read_run as read_answers
from tithe.recipes.qa_comparison import write_comparison as compare_answers
from tithe.recipes.stage_results import print_table


_FIRST = ("accuracy", "f1_macro", "f1", "perplexity", "loss")
_SHOWN = 8  # metrics, where none is asked for
_ASIDE = {"output_dir", "overwrite", "disable_tqdm"}
_CELL = 60
_RUNS_ABREAST = 4


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: `correct` is whether each row of the split was predicted right, None where that is not known.

    `rows` says which rows those are: two runs are paired where they are the same.
    """

    name: str
    results: Mapping[str, Any]
    correct: NDArray[np.float64] | None
    rows: int


def compare_runs(folders: Sequence[Path], output_dir: Path, *, split: str, metrics: Sequence[str] = ()) -> None:
    """Print the metrics of the runs on `split`, and leave tables and a report in `output_dir`.

    Runs of `slm_qa` are compared as `slm_qa --compare` does, by mode and retriever.

    Raises:
        ValueError: fewer than two runs, one twice, one that is not complete, or without the split or a metric.
    """
    places = [folder.resolve() for folder in folders]
    if len(places) < 2 or len(set(places)) < len(places):
        raise ValueError(f"name two runs or more, each once; got {' '.join(map(str, folders))}")
    last = [place.name for place in places]
    names = [name if last.count(name) == 1 else str(given) for name, given in zip(last, folders, strict=True)]
    recipes = [_results(folder)["recipe"] for folder in folders]
    if set(recipes) == {"slm_qa"}:
        compare_answers(output_dir, [read_answers(place, name) for place, name in zip(places, names, strict=True)])
        return
    runs = [_read(folder, name, split) for folder, name in zip(folders, names, strict=True)]
    table = [_scores(run, split, _metrics_of(runs, split, metrics)) for run in runs]
    pairs, differing = _pairs(runs), _differing(runs)
    _print(table, pairs, differing)
    _write(output_dir, split, table, pairs, differing)
    print(f"report: {output_dir / 'report.html'}", flush=True)


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.is_file():
        own = " (the runs of a comparison lie in its folder `runs`)" if (folder / "comparison.json").is_file() else ""
        raise ValueError(f"{folder}: no finished run lies there, it has no results.json{own}")
    return read_results(path)


def _read(folder: Path, name: str, split: str) -> FinishedRun:
    results = _results(folder)
    if split not in results["metrics"]:
        raise ValueError(f"{folder} has no metrics on `{split}`; it has them on {', '.join(results['metrics'])}")
    path = folder / "predictions.parquet"
    if not path.is_file() or "correct" not in pq.read_schema(path).names:
        return FinishedRun(name, results, None, 0)
    table = pq.read_table(path, columns=["text", "label", "correct"], filters=[("split", "=", split)])
    if table.column("correct").null_count:
        return FinishedRun(name, results, None, 0)
    told = hash((tuple(table.column("text").to_pylist()), tuple(table.column("label").to_pylist())))
    return FinishedRun(name, results, np.asarray(table.column("correct").to_pylist(), dtype=np.float64), told)


def _metrics_of(runs: Sequence[FinishedRun], split: str, wanted: Sequence[str]) -> list[str]:
    """Those that are asked for, else those that all runs have, the best known first."""
    known = [run.results["metrics"][split] for run in runs]
    shared = [name for name in known[0] if all(name in scores for scores in known)]
    if missing := [name for name in wanted if name not in shared]:
        raise ValueError(
            f"not all runs have `{missing[0]}` on {split}; they have {', '.join(shared) or 'none'} in common"
        )
    if not shared:
        raise ValueError(f"the runs have no metric in common on {split}: runs of different tasks cannot be compared")
    first = [name for name in _FIRST if name in shared]
    return list(wanted) or [*first, *(name for name in shared if name not in first)][:_SHOWN]


def _scores(run: FinishedRun, split: str, metrics: Sequence[str]) -> dict[str, Any]:
    scores, data = run.results["metrics"][split], run.results["data"]
    return {"run": run.name, "recipe": run.results["recipe"], "data": data["name"]} | {m: scores[m] for m in metrics}


def _pairs(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Every two runs that predicted the same rows."""
    rows = []
    for one, other in itertools.combinations(runs, 2):
        if one.correct is None or other.correct is None or one.rows != other.rows:
            continue
        found = paired_comparison(one.correct, other.correct)
        rows.append(
            {"first": one.name, "second": other.name, "difference": found.difference}
            | {"95 %": f"{found.low:+.4f} to {found.high:+.4f}", "p": found.p_value}
            | {"won": found.wins, "lost": found.losses}
        )
    return rows


def _differing(runs: Sequence[FinishedRun]) -> list[dict[str, str]]:
    """The arguments, a row each, that not all runs share."""
    given = [run.results.get("args", {}) for run in runs]
    names = sorted({name for args in given for name in args} - _ASIDE)
    return [
        {"argument": name} | {run.name: _cell(args.get(name)) for run, args in zip(runs, given, strict=True)}
        for name in names
        if any(args.get(name) != given[0].get(name) for args in given)
    ]


def _cell(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _text(row: Mapping[str, Any]) -> dict[str, str]:
    forms = {"p": ".2g"}
    return {k: format(v, forms.get(k, ".4f")) if isinstance(v, float) else _cell(v) for k, v in row.items()}


def _print(table: list[dict[str, Any]], pairs: list[dict[str, Any]], differing: list[dict[str, str]]) -> None:
    console, one_recipe = Console(), len({row["recipe"] for row in table}) == 1
    alike = {name for name in ("recipe", "data") if len({row[name] for row in table}) == 1}
    shown = [{k: v for k, v in _text(row).items() if k not in alike} for row in table]
    print_table("Runs", _turned(shown) if len(shown) <= _RUNS_ABREAST else shown, console)
    if differing and one_recipe:
        print_table("What they differ in", differing, console)
    if pairs:
        print_table("Accuracy: first less second", [_text(row) for row in pairs], console)
    else:
        console.print("no two runs predicted the same rows, so there are no paired differences")


def _turned(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows as columns: the metrics are more than the runs, and their names longer."""
    names = [name for name in rows[0] if name != "run"]
    return [{"": name} | {row["run"]: row[name] for row in rows} for name in names]


def _write(
    folder: Path,
    split: str,
    table: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    differing: list[dict[str, str]],
) -> None:
    write_atomic(folder / "comparison.csv", csv_text(table))
    tables = [markdown_table([_text(row) for row in rows]) for rows in (table, differing, pairs) if rows]
    write_atomic(folder / "comparison.md", "\n".join(tables))
    told = (
        "Accuracy of the first less that of the second on the same rows, with the paired bootstrap's 95 % interval, "
        "and the p-value of the sign-flip permutation test. Not corrected for the number of pairs, and silent on what "
        "another seed would give."
    )
    sections = [
        Section("Scores", f"On {split}.", table=table),
        Section("What they differ in", table=differing),
        Section("Differences", told, table=pairs),
    ]
    shown = [part for part in sections if part.table]
    write_report(folder / "report.html", title=f"{len(table)} runs compared", sections=shown)
