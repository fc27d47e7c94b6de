"""What is kept of a method of the expert loop beside its model: probabilities, and what was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray
from transformers import TrainerCallback

from tithe.evaluation import atomic_path, softmax
from tithe.trainers import ExpertLoopTrainer


PROBABILITIES_NAME = "probabilities.npz"


class OnTest(TrainerCallback):
    """Scores test where an iteration's validation has been scored: for the curve, and for nothing else."""

    trainer: Any

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer.is_in_train and trainer.iteration_ends and "eval_loss" in kwargs["metrics"]:
            trainer.evaluate(self.rows, metric_key_prefix="test")


def write_records(trainer: Any, splits: dict[str, Dataset], folder: Path) -> None:
    """Write `probabilities.npz` into `folder`: (rows, classes) of each split, and what a loop asked for.

    All processes must call it; the main one writes.
    """
    read: dict[str, Any] = {split: probabilities(trainer, rows) for split, rows in splits.items()}
    if isinstance(trainer, ExpertLoopTrainer):
        read |= asked(trainer)
    if PartialState().is_main_process:
        with atomic_path(folder / PROBABILITIES_NAME) as path, open(path, "wb") as file:
            np.savez(file, **read)


def probabilities(trainer: Any, rows: Dataset) -> NDArray[np.float64]:
    """(rows, classes), in the order of `rows`: the stock trainer sorts what it predicts as it sorts what it trains."""
    sorting, trainer.args.train_sampling_strategy = trainer.args.train_sampling_strategy, "random"
    try:
        return softmax(trainer.predict(rows).predictions)
    finally:
        trainer.args.train_sampling_strategy = sorting


def asked(trainer: ExpertLoopTrainer) -> dict[str, Any]:
    """What was asked for, in order, and what the teachers said of it."""
    entries = trainer.answers.entries
    found = {
        "rows": np.array([entry["row"] for entry in entries]),
        "iterations": np.array([entry["iteration"] for entry in entries]),
        "labels": np.array([-1 if entry["label"] is None else entry["label"] for entry in entries]),
        "by": np.array([entry["by"] for entry in entries]),
    }
    opinions = trainer.opinions(found["rows"])
    return found if opinions is None else found | {"opinions": opinions}
