"""A search: any trainer, shared by processes, resumed to the same trials, and nothing of it left in the trainer."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
import tuning
from killing import Killed
from transformers import Trainer, TrainerCallback, TrainingArguments

from tithe.trainers import Choice, Range, tune
from tithe.trainers.search_space import as_arguments, check_space
from tithe.trainers.study import STUDY_NAME, SearchTerms, SharedStudy


WORKER = Path(tuning.__file__)


@pytest.fixture(autouse=True)
def _quick_collection():
    """Each trial collects garbage several times: leave out what the libraries keep."""
    gc.freeze()
    yield
    gc.unfreeze()


class Watch(TrainerCallback):
    """Notes with what each trial trains."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        dropout = next((m.p for m in [getattr(model, "dropout", None)] if m is not None), None)
        self.seen.append({"args": {**vars(args)}, "dropout": dropout})


class KillAtTrial(TrainerCallback):
    """Ends everything in the midst of the trial that is the nth to begin here."""

    def __init__(self, number):
        self.left = number

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.left -= 1
            if self.left == 0:
                raise Killed


def plain(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def rows_without_time(found):
    return plain(found.trials)


@pytest.mark.parametrize("kind", tuning.CONFIGS)
def test_every_trainer_trains_with_the_values_of_its_trial(tmp_path, kind):
    watch = Watch()
    trainer = tuning.make_trainer(tmp_path / "out", kind, trainer={"callbacks": [watch]}, learning_rate=1e-5)
    before = dict(vars(trainer.args))
    found = tune(trainer, tmp_path, space=tuning.SPACE, trials=3, seed=1)
    assert [row["trial"] for row in found.trials] == [0, 1, 2]
    for row, seen in zip(found.trials, watch.seen, strict=True):
        assert row["state"] == "complete"
        assert 1e-4 <= row["learning_rate"] <= 1e-2
        assert (seen["args"]["learning_rate"], seen["args"]["weight_decay"]) == (
            row["learning_rate"],
            row["weight_decay"],
        )
    assert len({row["loss"] for row in found.trials}) == 3
    best = min(found.trials, key=lambda row: row["loss"])
    assert (found.value, found.best["learning_rate"]) == (best["loss"], best["learning_rate"])
    assert vars(trainer.args) == before


def test_a_trial_is_what_training_with_its_values_is(tmp_path):
    """The score of the best trial is that of a trainer made with its values."""
    space = {**tuning.SPACE, "adam_betas": Choice(((0.5, 0.9), (0.6, 0.8)))}
    found = tune(tuning.make_trainer(tmp_path / "out"), tmp_path, space=space, trials=3)
    again = tuning.make_trainer(tmp_path / "again", **found.best)
    assert again.args.adam_beta1 in (0.5, 0.6)
    again.train()
    assert again.evaluate()["eval_loss"] == found.value


def test_head_dropout_is_set_in_the_model(tmp_path):
    watch = Watch()
    trainer = tuning.make_trainer(tmp_path / "out", trainer={"callbacks": [watch]})
    found = tune(trainer, tmp_path, space={"head_dropout": Range(0.2, 0.6)}, trials=2)
    assert [seen["dropout"] for seen in watch.seen] == [row["head_dropout"] for row in found.trials]
    assert found.best.keys() == {"head_dropout"}


def test_rank_of_lora_is_that_of_the_trial(tmp_path):
    sizes = []

    class Count(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            sizes.append(sum(p.numel() for n, p in model.named_parameters() if "lora_A" in n))

    trainer = tuning.make_trainer(tmp_path / "out", "prompt", trainer={"callbacks": [Count()]})
    found = tune(trainer, tmp_path, space={"lora_rank": Choice((2, 4))}, trials=4)
    per_rank = {size // row["lora_rank"] for size, row in zip(sizes, found.trials, strict=True)}
    assert len(per_rank) == 1
    assert {row["lora_rank"] for row in found.trials} == {2, 4}


@pytest.mark.parametrize("nth", [1, 3])
def test_killed_and_continued_no_trial_is_lost(tmp_path, nth):
    whole = tune(tuning.make_trainer(tmp_path / "a"), tmp_path / "whole", space=tuning.SPACE, trials=4)
    stopped = tuning.make_trainer(tmp_path / "b", trainer={"callbacks": [KillAtTrial(nth)]})
    with pytest.raises(Killed):
        tune(stopped, tmp_path / "cut", space=tuning.SPACE, trials=4)
    told = []
    continued = tune(
        tuning.make_trainer(tmp_path / "c"), tmp_path / "cut", space=tuning.SPACE, trials=4, on_trial=told.append
    )
    assert rows_without_time(continued) == rows_without_time(whole)
    assert (continued.best, continued.importance) == (whole.best, whole.importance)
    assert [row["trial"] for row in told] == list(range(nth - 1, 4))


def test_further_trials_go_on_where_the_others_ended(tmp_path):
    few = tune(tuning.make_trainer(tmp_path / "a"), tmp_path / "study", space=tuning.SPACE, trials=2)
    more = tune(tuning.make_trainer(tmp_path / "b"), tmp_path / "study", space=tuning.SPACE, trials=4)
    whole = tune(tuning.make_trainer(tmp_path / "c"), tmp_path / "whole", space=tuning.SPACE, trials=4)
    assert rows_without_time(more)[:2] == rows_without_time(few)
    assert rows_without_time(more) == rows_without_time(whole)


def test_tpe_is_resumed_to_the_same_trials(tmp_path):
    options = {"space": tuning.SPACE, "trials": 13, "sampler": "tpe"}  # the first ten are random
    whole = tune(tuning.make_trainer(tmp_path / "a"), tmp_path / "whole", **options)
    with pytest.raises(Killed):
        tune(
            tuning.make_trainer(tmp_path / "b", trainer={"callbacks": [KillAtTrial(12)]}), tmp_path / "cut", **options
        )
    continued = tune(tuning.make_trainer(tmp_path / "c"), tmp_path / "cut", **options)
    assert rows_without_time(continued) == rows_without_time(whole)
    random = tune(tuning.make_trainer(tmp_path / "d"), tmp_path / "random", **{**options, "sampler": "random"})
    assert rows_without_time(random)[10:] != rows_without_time(whole)[10:]


def start(folder, trials, seconds=0.0):
    command = [sys.executable, str(WORKER), str(folder), str(trials), str(seconds)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def first_trial(process):
    return next(int(line.split()[1]) for line in process.stdout if line.startswith("trial "))


def told(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_share_the_trials_of_one_study(tmp_path):
    alone = tune(tuning.make_trainer(tmp_path / "out"), tmp_path / "alone", space=tuning.SPACE, trials=6)
    both = [start(tmp_path / "shared", 6, seconds=1.0) for _ in range(2)]
    outs = [process.communicate(timeout=300)[0].splitlines() for process in both]
    trials = [{int(line.split()[1]) for line in out if line.startswith("trial ")} for out in outs]
    assert trials[0] and trials[1]  # both took some
    assert sorted(trials[0] | trials[1]) == list(range(6))
    assert not trials[0] & trials[1]
    results = [json.loads(out[-1]) for out in outs]
    assert results[0] == results[1]
    assert plain(results[0]["trials"]) == json.loads(json.dumps(rows_without_time(alone)))


@pytest.mark.slow
def test_the_trial_of_a_process_that_was_killed_is_run_by_another(tmp_path):
    alone = tune(tuning.make_trainer(tmp_path / "out"), tmp_path / "alone", space=tuning.SPACE, trials=4)
    victim = start(tmp_path / "shared", 4, seconds=120.0)
    assert first_trial(victim) == 0
    other = start(tmp_path / "shared", 4)
    assert first_trial(other) == 1  # the victim's is not touched while it lives
    time.sleep(2)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert plain(told(other)["trials"]) == json.loads(json.dumps(rows_without_time(alone)))


class TestDivergence:
    SPACE = {"learning_rate": Choice((1e30, 1e-3))}

    def test_is_a_state_of_its_own_and_the_search_goes_on(self, tmp_path):
        found = tune(tuning.make_trainer(tmp_path / "out", max_grad_norm=0), tmp_path, space=self.SPACE, trials=6)
        states = {row["learning_rate"]: row["state"] for row in found.trials}
        assert states == {1e30: "diverged", 1e-3: "complete"}
        assert found.best == {"learning_rate": 1e-3}

    def test_of_a_stock_trainer_shows_in_its_score(self, tmp_path):
        made = tuning.make_trainer(tmp_path / "out", max_grad_norm=0)
        trainer = Trainer(
            model_init=lambda: tuning.tiny.make_model(),
            args=TrainingArguments(str(tmp_path / "out"), **tuning.COMMON, max_grad_norm=0),
            data_collator=tuning.tiny.collate,
            train_dataset=made.train_dataset,
            eval_dataset=made.eval_dataset,
        )
        found = tune(trainer, tmp_path, space=self.SPACE, trials=6)
        assert {row["learning_rate"]: row["state"] for row in found.trials} == {1e30: "diverged", 1e-3: "complete"}
        assert len(found.trials) == 6

    def test_of_all_trials_is_an_error(self, tmp_path):
        trainer = tuning.make_trainer(tmp_path / "out", max_grad_norm=0)
        with pytest.raises(ValueError, match="none of the 2 trials was completed: all diverged"):
            tune(trainer, tmp_path, space={"learning_rate": Choice((1e30,))}, trials=2)


def test_pruned_trials_end_early_and_the_best_one_does_not(tmp_path):
    """Of trials that come to the same score whenever they are asked, ASHA lets one in three go on."""
    scores = iter([0.5, 0.1, 0.9, 0.2, 0.7, 0.3])
    now = {}

    def model_init(trial):
        if trial is not None:
            now["score"] = next(scores)
        return tuning.tiny.make_model()

    trainer = tuning.make_trainer(
        tmp_path / "out",
        trainer={"model_init": model_init, "compute_metrics": lambda p: {"accuracy": now["score"]}},
        eval_strategy="steps",
        eval_steps=2,
    )
    found = tune(trainer, tmp_path, space=tuning.SPACE, trials=6, objective="accuracy", prune=True)
    assert found.value == 0.9
    states = [row["state"] for row in found.trials]
    assert states[0] == states[2] == "complete"  # the first has nothing to be compared with
    assert states[1] == states[3] == "pruned"
    for row in found.trials:
        assert (row["accuracy"] is None) == (row["state"] == "pruned")
        assert (row["steps"] == 4) == (row["state"] == "complete")
    assert found.curves[2] == {2: 0.9, 4: 0.9}


class TestBadInput:
    def error(self, trainer, folder, **options):
        with pytest.raises(ValueError) as caught:
            tune(trainer, folder, **{"space": tuning.SPACE, "trials": 2, **options})
        assert not (folder / STUDY_NAME).exists() or "another" in str(caught.value)
        return str(caught.value)

    def test_names_what_cannot_be_searched(self, tmp_path):
        trainer = tuning.make_trainer(tmp_path / "out")
        assert "`strategy` cannot be searched: it is read once" in self.error(
            trainer, tmp_path, space={"strategy": Choice(("margin", "entropy"))}
        )
        assert "`lerning_rate` cannot be searched: it is no argument of training" in self.error(
            trainer, tmp_path, space={"lerning_rate": Range(0.1, 0.2)}
        )
        assert "must be a choice of pairs" in self.error(trainer, tmp_path, space={"adam_betas": Range(0.1, 0.2)})
        assert "`space` is empty" in self.error(trainer, tmp_path, space={})

    def test_says_what_the_trainer_lacks(self, tmp_path):
        trainer = tuning.make_trainer(tmp_path / "out")
        trainer.model_init = None
        assert "give the trainer a `model_init`" in self.error(trainer, tmp_path)
        trainer = tuning.make_trainer(tmp_path / "out", trainer={"eval_dataset": None})
        assert "`eval_dataset`, and the trainer has none" in self.error(trainer, tmp_path)
        assert "`prune` needs evaluations" in self.error(tuning.make_trainer(tmp_path / "out"), tmp_path, prune=True)
        assert "`trials` must be at least 1" in self.error(tuning.make_trainer(tmp_path / "out"), tmp_path, trials=0)

    def test_an_unknown_objective_names_those_there_are(self, tmp_path):
        with pytest.raises(ValueError, match="`objective` f1 is no metric of this trainer: it has loss, accuracy"):
            tune(tuning.make_trainer(tmp_path / "out"), tmp_path, space=tuning.SPACE, trials=2, objective="f1")

    def test_another_search_in_the_folder_is_refused(self, tmp_path):
        tune(tuning.make_trainer(tmp_path / "a"), tmp_path, space=tuning.SPACE, trials=1, about={"data": "x"})
        trainer = tuning.make_trainer(tmp_path / "b")
        wider = {**tuning.SPACE, "learning_rate": Range(1e-6, 1e-2, log=True)}
        assert "holds another search: its `learning_rate`" in self.error(
            trainer, tmp_path, space=wider, about={"data": "x"}
        )
        assert "its `data` is x, this one's is y" in self.error(trainer, tmp_path, about={"data": "y"})
        assert "its `seed` is 0, this one's is 3" in self.error(trainer, tmp_path, seed=3, about={"data": "x"})

    @pytest.mark.parametrize(("low", "high", "log"), [(1.0, 1.0, False), (2.0, 1.0, False), (0.0, 1.0, True)])
    def test_ranges(self, low, high, log):
        with pytest.raises(ValueError, match="the lower one first"):
            Range(low, high, log=log)

    def test_an_empty_choice(self):
        with pytest.raises(ValueError, match="at least one value"):
            Choice(())


def test_pairs_become_two_arguments():
    assert as_arguments({"adam_betas": (0.9, 0.99), "learning_rate": 1e-3}) == {
        "learning_rate": 1e-3,
        "adam_beta1": 0.9,
        "adam_beta2": 0.99,
    }


def test_arguments_of_the_schedule_can_be_searched(tmp_path):
    args = tuning.make_trainer(tmp_path / "out").args
    check_space({"lr_scheduler_type": Choice(("linear", "cosine")), "warmup_steps": Range(0.0, 0.2)}, args)


def test_random_draws_are_even_in_their_ranges(tmp_path):
    """A logarithmic one in its orders of magnitude."""
    space = {"learning_rate": Range(1e-6, 1e-2, log=True), "layers": Range(2, 5)}
    study = SharedStudy(tmp_path, SearchTerms(space=space, seed=0))
    values = []
    for draw in range(200):
        sampler = study._options(draw)["sampler"]
        trial = optuna.create_study(sampler=sampler).ask()
        values.append((trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True), trial.suggest_int("layers", 2, 5)))
    rates, layers = np.array(values).T
    assert np.histogram(np.log10(rates), bins=4, range=(-6, -2))[0].min() > 30
    assert set(layers) == {2, 3, 4, 5}
