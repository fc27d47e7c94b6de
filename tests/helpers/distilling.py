"""Tiny students, teachers and data for the tests of distillation, in one process and in several."""

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from tithe.trainers import DistillationConfig, DistillationTrainer


VOCABULARY, CLASSES, PAD = 60, 3, 0
TASKS = ("sequence", "token", "seq2seq", "causal")


def make_model(task, seed=0, width=16, vocabulary=VOCABULARY, classes=CLASSES):
    set_seed(seed)
    if task in ("sequence", "token"):
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            num_labels=classes,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return sharpened((BertForSequenceClassification if task == "sequence" else BertForTokenClassification)(config))
    if task == "seq2seq":
        config = T5Config(
            vocab_size=vocabulary, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0
        )
        config.decoder_start_token_id = PAD
        return sharpened(T5ForConditionalGeneration(config))
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    return sharpened(LlamaForCausalLM(config))


def sharpened(model):
    """With probabilities that are not near equal: where they are, a soft loss is all rounding."""
    head = model.classifier if hasattr(model, "classifier") else model.lm_head
    head.weight.data *= 0.6 / head.weight.data.std()
    return model


def make_rows(task, rows=24, seed=0, unlabelled=0, vocabulary=VOCABULARY):
    """Rows of 4 to 12 tokens; the last `unlabelled` have no labels."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(3, vocabulary, rng.integers(4, 13)).tolist() for _ in range(rows)]
    if task == "sequence":
        labels = [int(row[0] % CLASSES) for row in ids]
        labels[rows - unlabelled :] = [-100] * unlabelled
    else:
        labels = [[int(t % CLASSES) for t in row] if task == "token" else list(row) for row in ids]
        for row in labels:
            row[0] = -100
        for i in range(rows - unlabelled, rows):
            labels[i] = [-100] * len(labels[i])
    masks = [[1] * len(row) for row in ids]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": masks, "labels": labels})


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name, fill):
        return torch.tensor([list(row[name]) + [fill] * (width - len(row[name])) for row in rows])

    batch = {"input_ids": padded("input_ids", PAD), "attention_mask": padded("attention_mask", 0)}
    if "labels" in rows[0]:
        flat = isinstance(rows[0]["labels"], int)
        batch["labels"] = torch.tensor([row["labels"] for row in rows]) if flat else padded("labels", -100)
    return batch


def arguments(output_dir, **options):
    settings = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "learning_rate": 3e-3, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 8, "save_strategy": "no"}
    settings |= {"num_train_epochs": 2, "cache_teacher": False, "max_grad_norm": 1e9}
    return DistillationConfig(output_dir=str(output_dir), **{**settings, **options})


def make_trainer(output_dir, task, teachers=None, student=None, rows=None, trainer=None, **options):
    return DistillationTrainer(
        make_model(task) if student is None else student,
        arguments(output_dir, **options),
        data_collator=collate,
        train_dataset=make_rows(task) if rows is None else rows,
        teachers=make_model(task, seed=1, width=32) if teachers is None else teachers,
        **(trainer or {}),
    )


def history(trainer, *names):
    names = names or ("loss", "grad_norm", "soft_loss", "hard_loss")
    return [[entry[name] for name in names] for entry in trainer.state.log_history if "loss" in entry]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
