"""What is watched from iteration to iteration of a loop: the validation score, and how far predictions still move."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch.utils.data import Subset
from transformers import TrainerCallback, TrainerControl, TrainerState

from .stopping import StoppingRules, cohen_kappa


class Progress:
    """How an `ExpertLoopTrainer` gets on.

    Attributes:
        rules: what stops the loop early.

    Raises:
        ValueError: a plateau is asked for, and there is nothing to score the model on.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer, args = trainer, trainer.args
        if args.plateau_patience is not None and trainer.eval_dataset is None:
            raise ValueError("`plateau_patience` needs an `eval_dataset` to score the model on")
        name = args.metric_for_best_model or "loss"
        self._metric = name if name.startswith("eval_") else f"eval_{name}"
        greater = not name.endswith("loss") if args.greater_is_better is None else args.greater_is_better
        self.rules = StoppingRules(
            args.plateau_patience, args.plateau_delta, greater, args.stable_agreement, args.stable_window
        )
        self._before: NDArray[np.int64] | None = None

    def see_metrics(self, metrics: Mapping[str, float]) -> None:
        """Take in an evaluation at the end of an iteration; one of other data than validation is passed over."""
        if self.rules.plateau_patience is None or not any(name.startswith("eval_") for name in metrics):
            return
        if self._metric not in metrics:
            raise KeyError(f"`metric_for_best_model` {self._metric} is not among the metrics {sorted(metrics)}")
        self.rules.see_score(float(metrics[self._metric]))

    def see_predictions(self) -> None:
        """Compare the predictions on the stop set with those of the iteration before; all processes call it."""
        trainer, args = self._trainer, self._trainer.args
        if args.stable_agreement is None:
            return
        size = min(args.stop_set_size, len(trainer.train_dataset))
        rows = np.sort(np.random.default_rng(args.seed).choice(len(trainer.train_dataset), size, replace=False))
        dataset = trainer.train_dataset
        part = dataset.select(rows) if hasattr(dataset, "select") else Subset(dataset, rows.tolist())
        found = trainer.signals(part, {"probabilities"})
        outcome: list[Any] = [found["probabilities"].argmax(1) if found else None]
        broadcast_object_list(outcome)
        if self._before is not None:
            self.rules.see_agreement(cohen_kappa(self._before, outcome[0]))
        self._before = outcome[0]

    def state(self) -> dict[str, Any]:
        """What changes, as JSON can hold it."""
        return self.rules.state() | {"before": None if self._before is None else self._before.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        before = state.pop("before")
        self._before = None if before is None else np.array(before)
        self.rules.load_state(state)


class IterationCallback(TrainerCallback):
    """At the end of each iteration: evaluate, look whether to stop, write a checkpoint."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = self._trainer
        trainer.end_epoch()
        if trainer.iteration_ends:
            control.should_evaluate = trainer.eval_dataset is not None
            control.should_save = args.save_strategy != "no"
            trainer.progress_made.see_predictions()
            self._stop_if_due(control)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = self._trainer
        if trainer.is_in_train and trainer.iteration_ends:
            trainer.progress_made.see_metrics(kwargs["metrics"])
            self._stop_if_due(control)

    def _stop_if_due(self, control: TrainerControl) -> None:
        if self._trainer.stopping.stopped:
            control.should_training_stop = True
