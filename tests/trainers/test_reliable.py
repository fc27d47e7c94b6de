"""Batches of like length: in an order that depends on seed and epoch alone, so that a resumed run has the same."""

import numpy as np
import pytest
import torch
import tuning
from datasets import Dataset
from killing import KillAt, Killed
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

from tithe.trainers import DistillationConfig, DistillationTrainer
from tithe.trainers.reliable import ReliableTrainer


class Collate:
    """Pads, and notes which rows came together."""

    def __init__(self):
        self.batches = []

    def __call__(self, rows):
        self.batches.append([len(row["input_ids"]) for row in rows])
        width = max(len(row["input_ids"]) for row in rows)
        ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor([row["labels"] for row in rows])}


def make_rows(count=48):
    rng = np.random.default_rng(0)
    return Dataset.from_list(
        [{"input_ids": rng.integers(1, 30, rng.integers(2, 20)).tolist(), "labels": n % 2} for n in range(count)]
    )


def make_trainer(kind, folder, callbacks=(), **options):
    set_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 4}
    settings |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "learning_rate": 1e-2}
    settings |= {"train_sampling_strategy": "group_by_length", **options}
    args = (DistillationConfig if kind is DistillationTrainer else TrainingArguments)(str(folder), **settings)
    given = {"train_dataset": make_rows(), "data_collator": Collate(), "callbacks": list(callbacks)}
    return kind(model, args, **given)


@pytest.mark.parametrize("kind", [ReliableTrainer, DistillationTrainer])
@pytest.mark.parametrize("step", [15, 18, 30])
def test_resumes_exactly_in_later_epochs(tmp_path, kind, step):
    """12 steps an epoch, with dropout."""
    whole = make_trainer(kind, tmp_path / "whole")
    whole.train()
    with pytest.raises(Killed):
        make_trainer(kind, tmp_path / "killed", [KillAt(step)]).train()
    resumed = make_trainer(kind, tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_rows_of_a_batch_are_of_like_length_and_each_comes_once_an_epoch(tmp_path):
    trainer = make_trainer(ReliableTrainer, tmp_path, save_strategy="no")
    trainer.train()
    batches = trainer.data_collator.batches
    lengths = sorted(len(ids) for ids in make_rows()["input_ids"])
    for epoch in range(3):
        assert sorted(sum(batches[12 * epoch : 12 * epoch + 12], [])) == lengths
    shuffled = make_trainer(ReliableTrainer, tmp_path, save_strategy="no", train_sampling_strategy="random")
    shuffled.train()
    spread = [np.mean([max(batch) - min(batch) for batch in one.data_collator.batches]) for one in (trainer, shuffled)]
    assert spread[0] < 0.3 * spread[1]
    assert batches[:12] != batches[12:24], "each epoch has an order of its own"


@pytest.mark.parametrize("bf16", [False, True])
def test_evaluates_before_training_as_the_parent(tmp_path, bf16):
    """In the same precision, and without a trace in what is trained afterwards."""
    losses = []
    for kind in (Trainer, ReliableTrainer):
        trainer = make_trainer(kind, tmp_path / kind.__name__)
        trainer.args.bf16 = bf16
        trainer.accelerator.state._mixed_precision = "bf16" if bf16 else "no"
        trainer.accelerator.native_amp = bf16
        losses.append(trainer.evaluate(make_rows())["eval_loss"])
    assert losses[0] == losses[1]
    assert trainer.accelerator._models == []


@pytest.mark.parametrize("kind", ["selection", "distillation", "loop"])
def test_a_smaller_batch_that_is_found_begins_anew(tmp_path, kind):
    """With `auto_find_batch_size` it trains as if the batch had been that small from the start."""

    def collate(rows):
        if len(rows) > 5:
            raise RuntimeError("CUDA out of memory.")
        return tuning.tiny.collate(rows)

    def without_dropout():
        return tuning.tiny.make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

    found, given = (
        tuning.make_trainer(
            tmp_path / str(size),
            kind,
            trainer={"data_collator": collate, "model_init": without_dropout},
            per_device_train_batch_size=size,
            per_device_eval_batch_size=4,
            auto_find_batch_size=True,
            train_sampling_strategy="group_by_length",  # whose order is drawn from the seed alone
        )
        for size in (8, 5)
    )
    for trainer in (found, given):
        trainer.train()
    assert found.state.global_step == given.state.global_step
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), given.model.parameters(), strict=True))
    if kind != "distillation":
        assert found.ledger.selected.tolist() == given.ledger.selected.tolist()
