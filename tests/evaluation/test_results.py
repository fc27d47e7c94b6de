import json
import subprocess

import numpy as np
import pytest

from tithe.evaluation import environment, read_results, write_results


def test_results_come_back_with_nan_as_none_and_keys_in_order(tmp_path):
    results = {"recipe": "r", "metrics": {"test": {"roc_auc": np.nan, "f1": np.float64(0.25)}}, "args": {"a": -np.inf}}
    path = write_results(tmp_path / "results.json", results)
    back = read_results(path)
    assert back == {"recipe": "r", "metrics": {"test": {"roc_auc": None, "f1": 0.25}}, "args": {"a": None}}
    assert list(back) == list(results)
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()


def test_value_that_json_cannot_hold_leaves_the_old_results(tmp_path):
    path = write_results(tmp_path / "results.json", {"a": 1})
    with pytest.raises(TypeError, match="complex"):
        write_results(path, {"a": 2j})
    assert read_results(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_environment_names_versions_and_device():
    found = environment()
    json.dumps(found)
    assert found["versions"]["numpy"] == np.__version__
    assert {"python", "tithe", "torch", "transformers", "accelerate", "datasets"} <= set(found["versions"])
    assert found["device"] and found["cpu_count"] >= 1


def test_processes_are_those_of_the_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert environment()["processes"] == 4
    monkeypatch.delenv("WORLD_SIZE")
    assert environment()["processes"] == 1


def test_git_commit_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    (tmp_path / "f").write_text("1")
    for command in (["init", "-q"], ["add", "f"], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert environment()["git"] == commit
    (tmp_path / "f").write_text("2")
    assert environment()["git"] == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None
