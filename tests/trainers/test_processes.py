"""Two processes are one: the same signals, the same selection, the same losses, the same end after a kill."""

import json

import launching
import numpy as np
import pytest

from tithe.trainers import Ledger


ARGS = {"budget": 32, "num_train_epochs": 3, "learning_rate": 3e-3, "logging_steps": 1, "disable_tqdm": True}
ARGS |= {"per_device_eval_batch_size": 8, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def run(folder, processes, check=True, **settings):
    """Run the worker; settings["args"] are added to ARGS."""
    return launching.launch(
        "selection_worker", folder, processes, {**settings, "args": ARGS | settings.get("args", {})}, check
    )


def losses(folder):
    return np.array(json.loads((folder / "log.json").read_text())["loss"])


@pytest.mark.parametrize("strategy", ["edfs_lite", "k_center"])
def test_two_processes_select_and_train_as_one(tmp_path, strategy):
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, 1, model=STILL, args={"per_device_train_batch_size": 8, "strategy": strategy})
    run(two, 2, model=STILL, args={"per_device_train_batch_size": 4, "strategy": strategy})
    assert json.loads((two / "log.json").read_text())["world"] == 2
    first, second = np.load(one / "signals.npz"), np.load(two / "signals.npz")
    assert all((first[name] == second[name]).all() for name in ("probabilities", "embeddings", "el2n"))
    first, second = Ledger.load(one), Ledger.load(two)
    assert len(first.indices) == 3
    for chosen, others in zip(first.indices, second.indices, strict=True):
        assert chosen.tolist() == others.tolist()
    np.testing.assert_allclose(losses(one), losses(two), atol=1e-5)
    assert (two / "weights-0.txt").read_text() == (two / "weights-1.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("grouping", ["random", "group_by_length"])
@pytest.mark.parametrize("step", [2, 4, 8, 9, 11])
def test_two_processes_resume_exactly(tmp_path, step, grouping):
    """With dropout, so that every process's generator counts; 4 steps an epoch, a checkpoint every third."""
    args = {"per_device_train_batch_size": 4, "strategy": "edfs_lite", "train_sampling_strategy": grouping}
    run(tmp_path / "whole", 2, args=args)
    killed = tmp_path / "killed"
    assert run(killed, 2, check=False, args=args, kill=step).returncode != 0
    run(killed, 2, args=args)
    assert (killed / "weights-0.txt").read_text() == (tmp_path / "whole" / "weights-0.txt").read_text()
    assert Ledger.load(killed).selected.tolist() == Ledger.load(tmp_path / "whole").selected.tolist()


@pytest.mark.slow
def test_accumulation_over_two_processes(tmp_path):
    """2 × 2 × 2 is 8: the loss is normalised over all processes and micro-batches."""
    run(tmp_path / "one", 1, model=STILL, args={"per_device_train_batch_size": 8, "strategy": "edfs_lite"})
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "strategy": "edfs_lite"}
    run(tmp_path / "two", 2, model=STILL, args=split)
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "two"), atol=1e-5)


@pytest.mark.slow
def test_an_error_while_selecting_ends_all_processes(tmp_path):
    done = run(tmp_path / "failing", 2, check=False, args={"per_device_train_batch_size": 4}, failing=True)
    assert done.returncode != 0 and done.stderr.count("ValueError: this strategy always fails") >= 2


@pytest.mark.slow
def test_an_odd_pool_over_two_processes(tmp_path):
    """More rows than batches divide into: every row is read, by one process or the other."""
    run(tmp_path / "one", 1, rows=61, args={"per_device_train_batch_size": 8})
    run(tmp_path / "two", 2, rows=61, args={"per_device_train_batch_size": 4})
    first, second = np.load(tmp_path / "one" / "signals.npz"), np.load(tmp_path / "two" / "signals.npz")
    assert all((first[name] == second[name]).all() for name in first)
