"""What recipes ask of trackers, and tell them when a run is complete."""

import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tithe.evaluation import class_balance
from tithe.recipes import data_selection, tracking
from tithe.recipes.tracking import log_run, name_run, trackers


RESULTS = {"metrics": {"test": {"accuracy": 0.75, "roc_auc": None, "f1": float("nan")}}, "args": {"budget": 0.1}}


@pytest.fixture
def only_tensorboard(monkeypatch):
    monkeypatch.setattr(tracking, "get_available_reporting_integrations", lambda: ["tensorboard"])


@pytest.mark.parametrize("name", ["clearml", "wandb"])
def test_a_tracker_that_is_missing_is_an_error_before_anything_is_read(name, only_tensorboard, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        data_selection.main(["--report_to", "tensorboard", name, "--output_dir", str(tmp_path / "run")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and not (tmp_path / "run").exists()
    assert error.startswith(f"error: `report_to` {name} is not installed")
    assert error.endswith('pip install "tithe[tracking]"')


def test_what_report_to_may_say(only_tensorboard):
    assert trackers(None) == trackers("none") == trackers([]) == []
    assert trackers("all") == trackers("tensorboard") == ["tensorboard"]
    with pytest.raises(ValueError, match="`report_to` tensorbord is no tracker; there are .*tensorboard"):
        trackers("tensorbord")
    with pytest.raises(ValueError, match="mlflow is not installed here; found tensorboard: pip install mlflow"):
        trackers(["mlflow"])


def test_a_complete_run_is_in_tensorboard(tmp_path):
    class_balance(tmp_path / "figures" / "class_balance.png", [0, 1, 1], [0, 1], ["a", "b"])
    log_run("tensorboard", tmp_path, RESULTS)
    found = EventAccumulator(str(tmp_path / "runs" / "results")).Reload()
    assert found.Tags()["images"] == ["figures/class_balance"]
    assert found.Tags()["scalars"] == ["test/accuracy"] and found.Scalars("test/accuracy")[0].value == 0.75
    [text] = [tag for tag in found.Tags()["tensors"] if "arguments" in tag]
    assert b'"budget": 0.1' in found.Tensors(text)[0].tensor_proto.string_val[0]


def test_a_tracker_that_fails_does_not_undo_a_complete_run(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder is to be")
    with pytest.warns(UserWarning, match="tensorboard failed, and lacks results"):
        log_run("tensorboard", tmp_path, RESULTS)


def test_the_environment_names_a_run_or_else_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARML_TASK", "mine")
    for name in ("CLEARML_PROJECT", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    name_run(tmp_path / "tenth")
    assert (os.environ["CLEARML_TASK"], os.environ["WANDB_NAME"]) == ("mine", "tenth")
    assert os.environ["CLEARML_PROJECT"] == os.environ["WANDB_PROJECT"] == "tithe"


def test_only_finite_numbers_are_scores():
    assert [value for value in (1, 0.5, True, None, "x", np.nan) if tracking._is_number(value)] == [1, 0.5]
