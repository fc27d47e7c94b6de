"""A run killed at any moment and started again leaves what the uninterrupted run leaves, bit for bit."""

import json
import shutil

import pytest
import torch
from killing import KillAt, Killed
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, Trainer

from tithe.selection import KCenter
from tithe.trainers import Ledger, finished_checkpoints, last_finished_checkpoint


OPTIONS = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 2, "strategy": "edfs_lite"}


def uninterrupted(make_trainer, tmp_path, **options):
    trainer = make_trainer(tmp_path / "whole", **{**OPTIONS, **options})
    trainer.train()
    return trainer


def left(trainer):
    parameters = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.ledger.rows]
    return parameters, rows, [indices.tolist() for indices in trainer.ledger.indices]


def assert_same(first, second):
    (weights, *rest), (others, *other_rest) = left(first), left(second)
    assert rest == other_rest
    for name in weights:
        assert torch.equal(weights[name], others[name]), name


@pytest.mark.parametrize(
    ("event", "step"),
    [
        ("on_step_end", 5),  # in the middle of an epoch
        ("on_step_end", 4),  # the step that a checkpoint is due at, before it is written
        ("on_save", 8),  # right after a checkpoint
        ("on_epoch_begin", 6),  # between epochs, a round chosen or not
        ("on_epoch_end", 12),  # at the end of an epoch whose last step wrote a checkpoint
        ("on_step_end", 18),  # the last step
    ],
)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_resumed_is_uninterrupted(make_trainer, tmp_path, event, step, accumulation):
    options = {"gradient_accumulation_steps": accumulation, "save_steps": 4 // accumulation}
    whole = uninterrupted(make_trainer, tmp_path, **options)
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        killer = KillAt(step // accumulation, event)
        make_trainer(out, **{**OPTIONS, **options}, trainer={"callbacks": [killer]}).train()
    resumed = make_trainer(out, **{**OPTIONS, **options})
    resumed.train(resume_from_checkpoint=bool(last_finished_checkpoint(out)))
    assert_same(whole, resumed)


def test_resume_at_the_boundary_of_a_round(make_trainer, tmp_path):
    """The hook runs before the state of the generators is loaded, and selects the round that begins."""
    options = {"save_strategy": "epoch"}
    whole = uninterrupted(make_trainer, tmp_path, **options)
    with pytest.raises(Killed):
        killer = KillAt(6, "on_step_begin")
        make_trainer(tmp_path / "killed", **{**OPTIONS, **options}, trainer={"callbacks": [killer]}).train()
    resumed = make_trainer(tmp_path / "killed", **{**OPTIONS, **options})
    resumed.train(resume_from_checkpoint=True)
    assert_same(whole, resumed)


def test_grouping_by_length_resumes_exactly(make_trainer, tmp_path):
    options = {"train_sampling_strategy": "group_by_length"}
    whole = uninterrupted(make_trainer, tmp_path, **options)
    with pytest.raises(Killed):
        killer = KillAt(9)
        make_trainer(tmp_path / "killed", **{**OPTIONS, **options}, trainer={"callbacks": [killer]}).train()
    resumed = make_trainer(tmp_path / "killed", **{**OPTIONS, **options})
    resumed.train(resume_from_checkpoint=True)
    assert_same(whole, resumed)


@pytest.mark.parametrize("part", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state", "mark_finished"])
def test_killed_while_a_checkpoint_is_written(make_trainer, tmp_path, monkeypatch, part):
    """The unfinished one is not resumed from, and has cost no finished one."""
    whole = uninterrupted(make_trainer, tmp_path, save_total_limit=1)
    trainer = make_trainer(tmp_path / "killed", **{**OPTIONS, "save_total_limit": 1})

    def killed(*args, **kwargs):
        if trainer.state.global_step == 8:
            raise Killed
        return original(*args, **kwargs)

    owner = Trainer if part != "mark_finished" else __import__("tithe.trainers.reliable", fromlist=["reliable"])
    original = getattr(owner, part)
    monkeypatch.setattr(owner, part, killed)
    with pytest.raises(Killed):
        trainer.train()
    monkeypatch.undo()
    assert (tmp_path / "killed" / "checkpoint-8").is_dir()
    assert [p.name for p in finished_checkpoints(tmp_path / "killed")] == ["checkpoint-4"]
    resumed = make_trainer(tmp_path / "killed", **{**OPTIONS, "save_total_limit": 1})
    resumed.train(resume_from_checkpoint=True)
    assert_same(whole, resumed)


def test_checkpoints_are_rotated_and_keep_their_arguments(make_trainer, tmp_path):
    uninterrupted(make_trainer, tmp_path)
    found = finished_checkpoints(tmp_path / "whole")
    assert [p.name for p in found] == ["checkpoint-16", "checkpoint-18"]
    assert torch.load(found[0] / "training_args.bin", weights_only=False).save_total_limit == 2
    assert Ledger.load(found[0]).selected.tolist() == Ledger.load(tmp_path / "whole").selected.tolist()
    assert load_file(found[0] / "model.safetensors")


def test_early_stopping_resumes_with_its_patience(make_trainer, make_pool, tmp_path):
    def build(out, callbacks=()):
        scores = {6: 0.9, 12: 0.5, 18: 0.4, 24: 0.3, 30: 1.0}
        options = {"save_strategy": "epoch", "eval_strategy": "epoch", "num_train_epochs": 5, "rounds": 5}
        best = {"load_best_model_at_end": True, "metric_for_best_model": "quality", "greater_is_better": True}
        trainer = make_trainer(
            out,
            **{**OPTIONS, **options, **best, "save_total_limit": None},
            trainer={
                "eval_dataset": make_pool(12, seed=1),
                "compute_metrics": lambda _: {"quality": scores[trainer.state.global_step]},
                "callbacks": [EarlyStoppingCallback(2), *callbacks],
            },
        )
        return trainer

    whole = build(tmp_path / "whole")
    whole.train()
    assert whole.state.global_step == 18
    for event, step in (("on_step_end", 14), ("on_train_end", 18), ("on_save", 18)):
        out = tmp_path / f"{event}-{step}"
        with pytest.raises(Killed):
            build(out, [KillAt(step, event)]).train()
        resumed = build(out)
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == 18
        assert_same(whole, resumed)


def test_a_finished_run_resumes_to_itself(make_trainer, tmp_path):
    whole = uninterrupted(make_trainer, tmp_path)
    again = make_trainer(tmp_path / "whole", **OPTIONS)
    again.train(resume_from_checkpoint=True)
    assert_same(whole, again)


def test_an_unfinished_checkpoint_named_explicitly_is_refused(make_trainer, tmp_path):
    uninterrupted(make_trainer, tmp_path)
    broken = shutil.copytree(tmp_path / "whole" / "checkpoint-16", tmp_path / "whole" / "checkpoint-17")
    (broken / "optimizer.pt").write_bytes(b"half")
    trainer = make_trainer(tmp_path / "whole", **OPTIONS)
    with pytest.raises(ValueError, match="missing or was never finished; the last finished one .* is checkpoint-18"):
        trainer.train(resume_from_checkpoint=str(broken))
    with pytest.raises(ValueError, match="no finished checkpoint"):
        make_trainer(tmp_path / "empty", **OPTIONS).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"strategy": "k_center"}, "strategy"),
        ({"strategy_kwargs": {"shares": [0.5, 0.3, 0.2]}}, "strategy"),
        ({"initial_strategy": "k_center"}, "initial_strategy"),
        ({"seed": 1}, "seed"),
        ({"budget": 23}, "budget"),
        ({"rounds": 2}, "rounds"),
    ],
)
def test_a_checkpoint_of_other_terms_is_refused(make_trainer, tmp_path, options, name):
    uninterrupted(make_trainer, tmp_path)
    with pytest.raises(ValueError, match=f"belongs to another run: its `{name}` is .*, this run's is"):
        make_trainer(tmp_path / "whole", **{**OPTIONS, **options}).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_another_pool_is_refused(make_trainer, make_pool, tmp_path):
    uninterrupted(make_trainer, tmp_path)
    with pytest.raises(ValueError, match="its `pool` is"):
        make_trainer(tmp_path / "whole", pool=make_pool(seed=9), **OPTIONS).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_another_trainer_is_refused(make_trainer, tmp_path):
    uninterrupted(make_trainer, tmp_path)
    folder = tmp_path / "whole" / "checkpoint-18"
    marker = json.loads((folder / "complete.json").read_text())
    del marker["files"]["ledger.safetensors"]
    (folder / "complete.json").write_text(json.dumps(marker))
    (folder / "ledger.safetensors").unlink()
    with pytest.raises(ValueError, match="has no ledger.safetensors"):
        make_trainer(tmp_path / "whole", **OPTIONS).train(resume_from_checkpoint=True)


def test_terms_do_not_hold_addresses(make_trainer):
    class Own:
        needs = frozenset()

        def select(self, pool, k, rng):
            return KCenter().select(pool, k, rng)

    assert make_trainer(strategy=Own())._terms() == make_trainer(strategy=Own())._terms()
