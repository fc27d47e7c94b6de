"""The expert loop in two processes is that in one: the same questions, the same losses, kills and waiting included."""

import json

import launching
import numpy as np
import pytest


ARGS = {
    "initial_pool_size": 16,
    "query_size": 8,
    "max_iterations": 2,
    "epochs_per_iteration": 2,
    "learning_rate": 3e-3,
}
ARGS |= {"logging_steps": 1, "disable_tqdm": True, "per_device_eval_batch_size": 8}
ARGS |= {"query_strategy": "margin", "save_strategy": "steps", "save_steps": 5, "save_total_limit": 1}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def run(folder, processes, check=True, batch=8, **settings):
    args = {**ARGS, "per_device_train_batch_size": batch // processes, **settings.get("args", {})}
    return launching.launch("loop_worker", folder, processes, {**settings, "args": args}, check)


def answers(folder, process=0):
    return json.loads((folder / f"answers-{process}.json").read_text())


@pytest.mark.parametrize("teachers", [[], pytest.param([1, 2], marks=pytest.mark.slow)], ids=["alone", "taught"])
def test_two_processes_ask_and_train_as_one(tmp_path, teachers):
    one, two = tmp_path / "one", tmp_path / "two"
    args = {"unlabelled_share": 1.0} if teachers else {}
    for folder, processes in ((one, 1), (two, 2)):
        run(folder, processes, model=STILL, teachers=teachers, args=args)
    assert answers(one) == answers(two) == answers(two, 1) and len(answers(one)) == 32
    first, second = (np.array(json.loads((folder / "log.json").read_text())) for folder in (one, two))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert (two / "weights-0.txt").read_text() == (two / "weights-1.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("start", ["initial", "warm"])
@pytest.mark.parametrize("step", [3, 8, 9, 16])
def test_two_processes_resume_exactly(tmp_path, step, start):
    """8 steps an iteration: within one, at its end, and within the next; with dropout."""
    settings = {"teachers": [1], "args": {"iteration_start": start}}
    run(tmp_path / "whole", 2, **settings)
    killed = tmp_path / "killed"
    assert run(killed, 2, check=False, kill=step, **settings).returncode != 0
    run(killed, 2, **settings)
    assert (killed / "weights-0.txt").read_text() == (tmp_path / "whole" / "weights-0.txt").read_text()
    assert answers(killed) == answers(tmp_path / "whole")


@pytest.mark.slow
def test_all_processes_wait_for_labels(tmp_path):
    run(tmp_path / "whole", 2)
    waits = tmp_path / "waits"
    for iteration in range(3):
        run(waits, 2, absent=True)
        told = [(waits / f"wanted-{process}.txt").read_text() for process in range(2)]
        assert told == [f"labels for iteration {iteration}"] * 2
    run(waits, 2, absent=True)
    assert (waits / "weights-0.txt").read_text() == (tmp_path / "whole" / "weights-0.txt").read_text()
