"""Finished question-answering runs side by side: models × modes × retrievers, and a paired test of each difference."""

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tithe.evaluation import (
    Section,
    answer_scores,
    csv_text,
    grouped_bars,
    markdown_table,
    paired_comparison,
    read_results,
    write_atomic,
    write_report,
)
from tithe.recipes.errors import user_errors
from tithe.recipes.qa_prompts import NO_CONTEXT, ORACLE
from tithe.recipes.qa_stages import read_predictions
from tithe.recipes.stage_results import print_models


_METRIC = "token_recall"


@dataclass(frozen=True)
class AnsweredRun:
    """A finished run: its results, and for each mode the Token Recall of every question."""

    name: str
    results: Mapping[str, Any]
    recalls: Mapping[str, Sequence[float]]

    @property
    def model(self) -> str:
        """The model's last name, and whether it was tuned."""
        args = self.results["args"]
        model = str(args["model_name_or_path"]).rstrip("/").split("/")[-1]
        bits = "".join(f" {n}-bit" for n in (8, 4) if args.get(f"load_in_{n}bit"))
        return model + bits + (" tuned" if args.get("tune") else "")

    def context(self, mode: str) -> str:
        """What stood before the questions: `bm25 × 3` for three passages that BM25 found."""
        args = self.results["args"]
        if mode in (NO_CONTEXT, ORACLE):
            return "none" if mode == NO_CONTEXT else "oracle"
        return f"{args['retriever']}{' + reranker' if args.get('reranker') else ''} × {args['passages']}"


def compare_runs(argv: Sequence[str]) -> None:
    """`--compare RUN RUN … [--output_dir FOLDER]`: the table, the figure and the report of finished runs."""
    parser = argparse.ArgumentParser(prog="slm_qa.py --compare", description=__doc__)
    parser.add_argument("--compare", nargs="+", required=True, metavar="RUN", help="Folders of finished runs.")
    parser.add_argument("--output_dir", default="runs/slm_qa_compared", help="Folder for table, figure and report.")
    args = parser.parse_args(list(argv))
    with user_errors():
        folders = [Path(name).resolve() for name in args.compare]
        last = [folder.name for folder in folders]
        names = [name if last.count(name) == 1 else given for name, given in zip(last, args.compare, strict=True)]
        if len(set(folders)) < len(folders):
            raise ValueError(f"`compare` names a run twice: {' '.join(args.compare)}")
        runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
        write_comparison(Path(args.output_dir), runs)


def read_run(folder: Path, name: str) -> AnsweredRun:
    """The run in `folder`, called `name`; a `ValueError` where there is none, or it is not complete."""
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(f"`compare` {folder}: no complete run lies there (it has no results.json)")
    results = read_results(path)
    if results.get("recipe") != "slm_qa":
        raise ValueError(f"`compare` {folder} is a run of {results.get('recipe')}, not of slm_qa")
    recalls = {}
    for mode in results["metrics"]:
        rows = read_predictions(folder / mode)
        scores = answer_scores([row["prediction"] for row in rows], [row["answers"] for row in rows])
        recalls[mode] = scores[_METRIC].tolist()
    return AnsweredRun(name, results, recalls)


def write_comparison(folder: Path, runs: Sequence[AnsweredRun]) -> None:
    """Write `comparison.md`, `comparison.csv`, a figure and `report.html` of `runs`, and print the table."""
    table = [_row(run, mode) for run in runs for mode in run.results["metrics"]]
    pairs = list(paired_rows(runs))
    write_atomic(folder / "comparison.csv", csv_text(table))
    tables = [markdown_table([_rounded(row) for row in rows]) for rows in (table, pairs) if rows]
    write_atomic(folder / "comparison.md", "\n\n".join(tables))
    figure = grouped_bars(
        folder / "figures" / "token_recall.png",
        _bars(runs),
        metric="Token Recall",
    )
    sections = [
        Section("Models, modes and retrievers", table=table, figures=[(figure, "Token Recall, with 95 % intervals")]),
        Section(
            "Differences",
            "Token Recall of the first less that of the second on the same questions, with the paired bootstrap's "
            "95 % interval, and the p-value of the sign-flip permutation test. Not corrected for the number of pairs.",
            table=pairs,
        ),
    ]
    sections = [part for part in sections if part.table]
    write_report(folder / "report.html", title="slm_qa: runs compared", sections=sections)
    shown = [{name: str(value) for name, value in _rounded(row).items()} for row in table]
    print_models("slm_qa: runs compared", shown, folder, Console(file=sys.stdout))


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Scores with three digits behind the point, p-values with two that count."""
    forms = {"p": ".2g"}
    return {k: format(v, forms.get(k, ".3f")) if isinstance(v, float) else v for k, v in row.items()}


def _row(run: AnsweredRun, mode: str) -> dict[str, Any]:
    scores = run.results["metrics"][mode]
    found = {"run": run.name, "model": run.model, "context": run.context(mode)}
    return found | {name: scores[name] for name in (_METRIC, "exact_match", "f1", "answer_in_text", "refusal")}


def _bars(runs: Sequence[AnsweredRun]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Run → context → Token Recall and its interval."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for run in runs:
        bars = {}
        for mode, scores in run.results["metrics"].items():
            low, high = run.results["intervals"][mode][_METRIC]
            bars[run.context(mode)] = (scores[_METRIC], low, high)
        found[f"{run.model} ({run.name})"] = bars
    return found


def paired_rows(runs: Sequence[AnsweredRun]) -> list[dict[str, Any]]:
    """Every two answerings of the same questions, compared question by question."""
    keyed = [(run, mode) for run in runs for mode in run.results["metrics"]]
    rows = []
    for (one, first), (other, second) in itertools.combinations(keyed, 2):
        same = one.results["data"]["fingerprint"] == other.results["data"]["fingerprint"]
        if not same or one.results["args"]["eval_split"] != other.results["args"]["eval_split"]:
            continue
        if one is not other and first != second:
            continue  # what differs in two ways says little
        found = paired_comparison(one.recalls[first], other.recalls[second])
        rows.append(
            {
                "first": f"{one.name}: {one.context(first)}",
                "second": f"{other.name}: {other.context(second)}",
                "difference": found.difference,
                "low": found.low,
                "high": found.high,
                "p": found.p_value,
                "won": found.wins,
                "tied": found.ties,
                "lost": found.losses,
            }
        )
    return rows
