"""`tithe report`: the report of a run that has ended is the one it wrote; that of another says how far it came."""

import json

import pytest

from tithe.evaluation import Section, learning_curve, write_report, write_results
from tithe.recipes import cli
from tithe.recipes.rebuilt_report import rebuild_report
from tithe.trainers.checkpoints import mark_finished


HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "eval_loss": 1.7, "eval_f1_macro": 0.25}]
ROUND = {"round": 0, "step": 0, "size": 10, "strategy": "KCenter()", "indices": [1, 2]}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.yaml").write_text("budget: 0.125\n")
    return folder


def checkpoint(folder, rounds=True):
    last = folder / "checkpoint-2"
    last.mkdir(parents=True)
    (last / "trainer_state.json").write_text(json.dumps({"log_history": HISTORY}))
    if rounds:
        (last / "rounds.jsonl").write_text(json.dumps(ROUND) + "\n")
    mark_finished(last)


def test_the_report_of_a_finished_run_comes_back_as_it_was(run):
    figure = learning_curve(run / "figures" / "curve.png", [{"step": 1, "value": 0.5}])
    facts = {"wide": {"low": float("nan"), "n": 3}}
    sections = [Section("One", "Text & more.", facts, [{"a": 0.25, "b": None}], [(figure, "A <curve>")])]
    page = write_report(run / "report.html", title="T", summary="S", sections=sections)
    before = page.read_bytes()
    page.unlink()
    moved = run.rename(run.parent / "moved")
    assert rebuild_report(moved) == moved / "report.html"
    assert (moved / "report.html").read_bytes() == before


def test_a_figure_that_is_gone_is_told(run, capsys):
    figure = learning_curve(run / "figures" / "curve.png", [{"step": 1, "value": 0.5}])
    write_report(run / "report.html", title="T", sections=[Section("One", figures=[(figure, "The curve")])])
    figure.unlink()
    text = rebuild_report(run).read_text()
    assert "The curve" not in text and "<h2>One</h2>" in text
    assert capsys.readouterr().out == f"{figure} is gone: the report is without it\n"


def test_of_a_run_without_the_parts_of_its_report(run):
    results = {"recipe": "data_selection", "data": {"name": "reviews"}, "metrics": {"test": {"accuracy": 0.625}}}
    write_results(run / "results.json", results)
    learning_curve(run / "figures" / "learning_curve.png", [{"step": 1, "value": 0.5}])
    text = rebuild_report(run).read_text()
    assert "data_selection: reviews" in text and "0.6250" in text and "learning curve" in text


def test_of_a_run_that_has_not_ended(run):
    checkpoint(run)
    text = rebuild_report(run).read_text()
    assert "This run has not ended; rounds chosen: 1." in text
    assert "KCenter()" in text and "0.125" in text and text.count("<img ") == 2
    assert not (run / "report.json").exists()  # it is no report of a run that has ended


def test_of_stages_that_have_not_ended(run):
    note = {"name": "teacher", "folder": "x", "parameters": 1, "bytes_on_disk": 1, "seconds": 2.5, "speed": {}}
    note |= {"metrics": {"test": {"f1": 0.875}}, "history": [], "notes": {}}
    (run / "teacher").mkdir()
    (run / "teacher" / "stage.json").write_text(json.dumps(note))
    checkpoint(run / "student", rounds=False)
    text = rebuild_report(run).read_text()
    assert "stages finished: 1" in text and "0.8750" in text
    assert "Loss of student up to checkpoint-2" in text


def test_what_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"neither run\.yaml nor results\.json"):
        rebuild_report(tmp_path)
    (tmp_path / "run.yaml").write_text("budget: 1")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(tmp_path)])
    assert ended.value.code == 2 and "is broken" in capsys.readouterr().err
