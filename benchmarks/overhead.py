"""What selection in rounds costs beside the forward and backward passes, in one run, side by side.

    python benchmarks/overhead.py [--layers 6 --width 384] [--repeats 3] [--json FILE]

1. Reading a pool (`tithe.models.read_signals`: probabilities, embeddings and EL2N) against a bare forward loop over
   the same length-sorted batches, collated beforehand. To reach: 90 % of its throughput.
2. A training step of `RoundSelectionTrainer` on what it has selected, against one of the stock `Trainer` on as many
   rows of the same lengths. To reach: 3 % more at most.

Both sides take turns, and the median of the turns' ratios counts, in CPU seconds at one thread: the machine may be
busy. CPU seconds count the thread that collates ahead in full.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import TrainerCallback

from tithe.evaluation import environment, write_results
from tithe.models import read_signals
from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer, classification_loss


VOCABULARY, CLASSES = 30000, 20


def make_pool(rows: int) -> Dataset:
    """Rows as long as short texts are: a median of 16 tokens, few above 60."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(2.8, 0.6, rows), 4, 128).astype(int)
    ids = [rng.integers(1, VOCABULARY, n).tolist() for n in lengths]
    masks = [[1] * n for n in lengths]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": masks, "label": rng.integers(0, CLASSES, rows)})


def make_model(layers: int, width: int) -> BertForSequenceClassification:
    set_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": max(1, width // 32)}
    return BertForSequenceClassification(
        BertConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, num_labels=CLASSES, **sizes)
    )


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.tensor([row[name] + [0] * (width - len(row[name])) for row in rows])
        for name in ("input_ids", "attention_mask")
    }
    return {**batch, "labels": torch.tensor([row["label"] for row in rows])}


def in_turns(repeats: int, ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, Any]:
    """CPU seconds of both, alternately, each first in half of the turns; the ratio is the median of theirs / ours."""
    ours(), theirs()  # warm up
    turns = []
    for turn in range(repeats):
        if turn % 2:
            second, first = theirs(), ours()
        else:
            first, second = ours(), theirs()
        turns.append((first, second))
    ratios = [second / first for first, second in turns]
    return {"ours": [t[0] for t in turns], "peer": [t[1] for t in turns], "ratio": statistics.median(ratios)}


def timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def scoring(model: BertForSequenceClassification, pool: Dataset, batch_size: int, repeats: int) -> dict[str, Any]:
    lengths = np.array([len(row) for row in pool["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    rows = [pool[order[i : i + batch_size].tolist()] for i in range(0, len(order), batch_size)]
    batches = [collate([dict(zip(b, values, strict=True)) for values in zip(*b.values(), strict=True)]) for b in rows]

    def bare() -> None:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                model(batch["input_ids"], batch["attention_mask"])

    def ours() -> None:
        needs = {"probabilities", "embeddings", "el2n"}
        read_signals(model, pool, needs, collate=collate, lengths=lengths, batch_size=batch_size)

    return in_turns(repeats, lambda: timed(ours), lambda: timed(bare))


class StepTimer(TrainerCallback):
    """CPU seconds between the ends of the first and the last step, without what lies between epochs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.process_time()
        if state.global_step > 1 and self._epoch == int(state.epoch - 1e-9):
            self.seconds.append(now - self._last)
        self._last, self._epoch = now, int(state.epoch - 1e-9)


def training(layers: int, width: int, pool: Dataset, batch_size: int, repeats: int) -> dict[str, Any]:
    budget = 20 * batch_size
    shared = {"per_device_train_batch_size": batch_size, "num_train_epochs": 1, "save_strategy": "no"}
    shared |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 10000}
    folder = tempfile.mkdtemp()

    def seconds(trainer: Trainer) -> float:
        trainer.add_callback(timer := StepTimer())
        trainer.train()
        return sum(timer.seconds)

    def select() -> RoundSelectionTrainer:
        args = RoundSelectionConfig(folder, budget=budget, strategy="random", **shared)
        return RoundSelectionTrainer(make_model(layers, width), args, data_collator=collate, train_dataset=pool)

    first = select()
    first.train()
    chosen = pool.select(np.sort(first.ledger.selected))  # with it the stock Trainer draws the same batches

    def stock() -> Trainer:
        model, args = make_model(layers, width), TrainingArguments(folder, **shared)
        loss = classification_loss(model)
        return Trainer(model, args, data_collator=collate, train_dataset=chosen, compute_loss_func=loss)

    return in_turns(repeats, lambda: seconds(select()), lambda: seconds(stock()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pool = make_pool(options.rows)
    model = make_model(options.layers, options.width)
    read = scoring(model, pool, options.batch_size, options.repeats)
    trained = training(options.layers, options.width, pool, options.batch_size, options.repeats)
    print(f"reading a pool: {read['ratio']:.1%} of the throughput of a bare forward loop (to reach: 90 %)")
    print(f"training step: {1 / trained['ratio'] - 1:+.1%} beside the stock Trainer (at most: +3 %)")
    if options.json:
        results = {"scoring": read, "training": trained, "environment": environment(), "options": vars(options)}
        write_results(options.json, json.loads(json.dumps(results, default=os.fspath)))


if __name__ == "__main__":
    main()
