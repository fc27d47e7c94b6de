"""A trainer of each kind, made to be searched, and a worker: `python … tuning.py FOLDER TRIALS [SECONDS]`.

The worker takes trials of a study with others; SECONDS is how long each of its trials waits before it trains, so that
a test can kill it in the midst of one.
"""

import json
import sys
import time
from pathlib import Path

import distilling
import prompting
import tiny
import torch

from tithe.trainers import (
    Choice,
    DistillationConfig,
    DistillationTrainer,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    PTSeq2SeqConfig,
    PTSeq2SeqTrainer,
    Range,
    RoundSelectionConfig,
    RoundSelectionTrainer,
    tune,
)


SPACE = {"learning_rate": Range(1e-4, 1e-2, log=True), "weight_decay": Choice((0.0, 0.1))}
COMMON = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "per_device_train_batch_size": 8}
COMMON |= {"save_strategy": "no", "logging_strategy": "no", "num_train_epochs": 2}
CONFIGS = {
    "selection": (RoundSelectionConfig, {"budget": 0.5, "strategy": "margin", "rounds": 2}),
    "distillation": (DistillationConfig, {}),
    "loop": (
        ExpertLoopConfig,
        {"initial_pool_size": 8, "query_size": 8, "max_iterations": 1, "epochs_per_iteration": 1},
    ),
    "prompt": (PTSeq2SeqConfig, {"lora_rank": 2, "virtual_tokens": 2}),
}


def make_trainer(folder, kind="selection", trainer=None, **options):
    config, own = CONFIGS[kind]
    args = config(str(folder), **COMMON | own | options)
    trainer = trainer or {}
    if kind == "prompt":
        rows = {"train_dataset": prompting.make_rows(16), "eval_dataset": prompting.make_rows(8, seed=1)}
        making = {"model_init": lambda: prompting.make_base(), "processing_class": prompting.make_tokenizer()}
        return PTSeq2SeqTrainer(None, args, **{**rows, **making, **trainer})
    common = {
        "model_init": lambda: tiny.make_model(),
        "data_collator": tiny.collate,
        "train_dataset": tiny.make_pool(32),
        "eval_dataset": tiny.make_pool(16, seed=7),
        "compute_metrics": lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
    }
    if kind == "selection":
        return RoundSelectionTrainer(None, args, **{**common, **trainer})
    teachers = [distilling.sharpened(tiny.make_model(seed=1))]
    cls = DistillationTrainer if kind == "distillation" else ExpertLoopTrainer
    return cls(None, args, teachers=teachers, **{**common, **trainer})


def main(folder, trials, seconds=0.0):
    def model_init(trial):
        if trial is not None:
            print("trial", trial.number, flush=True)
            time.sleep(seconds)
        return tiny.make_model()

    torch.set_num_threads(1)
    trainer = make_trainer(folder / "out", trainer={"model_init": model_init})
    found = tune(trainer, folder, space=SPACE, trials=trials)
    print(json.dumps({"best": found.best, "trials": found.trials}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
