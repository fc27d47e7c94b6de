"""`tithe compare`: metrics, arguments and paired differences of runs that have ended."""

import csv

import numpy as np
import pytest

from tithe.evaluation import (
    SplitPredictions,
    classification_metrics,
    paired_comparison,
    write_predictions,
    write_results,
)
from tithe.recipes import cli


ROWS = 40
LABELS = np.arange(ROWS) % 2


def put(folder, wrong, *, seed=1, texts=None, metrics=None, recipe="data_selection"):
    """A finished run that is wrong on the rows `wrong` of test."""
    right = np.where(np.isin(np.arange(ROWS), wrong), 1 - LABELS, LABELS)
    probabilities = np.eye(2)[right] * 0.8 + 0.1
    texts = texts or [f"text {n}" for n in range(ROWS)]
    folder.mkdir(parents=True)
    write_predictions(
        folder / "predictions.parquet",
        [SplitPredictions("test", range(ROWS), texts, probabilities, LABELS)],
        ["a", "b"],
    )
    scores = {"test": metrics or classification_metrics(probabilities, LABELS)}
    args = {"seed": seed, "budget": 0.1, "output_dir": str(folder)}
    write_results(folder / "results.json", {"recipe": recipe, "metrics": scores, "data": {"name": "d"}, "args": args})
    return str(folder)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *argv])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_scores_arguments_and_paired_differences(tmp_path, capsys):
    one, other = put(tmp_path / "one", [0, 1]), put(tmp_path / "other", [1, 2, 3, 4, 5, 6, 7], seed=2)
    cli.main(["compare", one, other])
    text = capsys.readouterr().out
    assert "0.9500" in text and "0.8250" in text and "seed" in text and "output_dir" not in text
    found = list(csv.DictReader((tmp_path / "runs/compared/comparison.csv").open()))
    assert [row["run"] for row in found] == ["one", "other"] and float(found[0]["accuracy"]) == 0.95
    right = [np.isin(np.arange(ROWS), wrong, invert=True).astype(float) for wrong in ([0, 1], range(1, 8))]
    paired = paired_comparison(*right)
    table = (tmp_path / "runs/compared/comparison.md").read_text()
    assert f"| one | other | {paired.difference:.4f} | {paired.low:+.4f} to {paired.high:+.4f} |" in table
    assert (paired.wins, paired.losses) == (6, 1) and table.rstrip().endswith("| 6 | 1 |")
    page = (tmp_path / "runs/compared/report.html").read_text()
    assert "What they differ in" in page and "Differences" in page


def test_runs_on_other_rows_are_not_paired(tmp_path, capsys):
    one = put(tmp_path / "one", [0])
    other = put(tmp_path / "other", [0], texts=[f"other {n}" for n in range(ROWS)])
    cli.main(["compare", one, other, "--output_dir", "here", "--metric", "accuracy"])
    assert "no two runs predicted the same rows" in capsys.readouterr().out
    assert list(next(csv.DictReader(open("here/comparison.csv")))) == ["run", "recipe", "data", "accuracy"]


def test_runs_of_one_name_are_told_apart_by_their_path(tmp_path, capsys):
    put(tmp_path / "a" / "run", [0])
    put(tmp_path / "b" / "run", [0])
    cli.main(["compare", "a/run", "b/run"])
    assert "a/run" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    one, other = put(tmp_path / "one", [0]), put(tmp_path / "two", [0], metrics={"bleu": 0.5}, recipe="prompt_tune")
    (tmp_path / "unfinished").mkdir()
    assert "each once" in refused(capsys, one, one) and "two runs" in refused(capsys, one)
    assert "has no results.json" in refused(capsys, one, str(tmp_path / "unfinished"))
    assert "no metric in common" in refused(capsys, one, other)
    assert "it has them on test" in refused(capsys, one, other, "--split", "validation")
    put(tmp_path / "three", [1])
    assert "not all runs have `bleu`" in refused(capsys, one, "three", "--metric", "bleu")
