"""Hyper-parameter search with any Trainer: shared, resumable, and none of it left behind in the trainer."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Trainer

from ..evaluation import give_back_memory
from ..models import set_head_dropout
from .search_space import DEFAULT_SPACE, HEAD_DROPOUT, Space, as_arguments, check_space, suggest
from .study import SearchTerms, SharedStudy, import_optuna


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        best: the best values, as arguments of training; `head_dropout` is one of the model's.
        value: of the objective, with these.
        trials: a row for each, by number: its state (`complete`, `pruned` or `diverged`), the objective, the values.
        importance: the share of the objective's variance that each hyper-parameter accounts for (fANOVA).
        curves: trial → step → the objective there, of trials that were evaluated while they trained.
    """

    best: dict[str, Any]
    value: float
    trials: list[dict[str, Any]]
    importance: dict[str, float]
    curves: dict[int, dict[int, float]]


def tune(
    trainer: Trainer,
    folder: str | Path,
    *,
    space: Space = DEFAULT_SPACE,
    trials: int = 25,
    sampler: str = "random",
    objective: str = "loss",
    greater_is_better: bool | None = None,
    prune: bool = False,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> Tuning:
    """Search hyper-parameters for `trainer` by `Trainer.hyperparameter_search` and Optuna, with the study in `folder`.

    Each trial makes the model anew by the trainer's `model_init`, sets its values, trains on `train_dataset` for the
    trainer's epochs, and is scored on `eval_dataset`: give it a sample of the training rows for both, and leave
    validation alone. Killed and called again, the search goes on where it was, and trials of processes that are dead
    are tried again. Several processes that call it with one `folder` share the trials, and all return the same.
    Trial k is drawn by (`seed`, k): a random search is the same in any number of processes.

    A trial whose objective is not finite ends as `diverged`; with trainers of Tithe it does so as soon as its training
    loss is not. Afterwards the arguments of `trainer` are what they were, and its model is gone: `train()` makes one.

    Args:
        trainer: made with a `model_init`; in one process.
        folder: for the study, an SQLite file, and for the locks of those who work on it.
        space: hyper-parameter → `Range` or `Choice`. Arguments of the optimizer and the schedule, `adam_betas`,
            `head_dropout` (set in the model), and of our trainers `head_learning_rate`, the weights of the losses of
            distillation, and rank, alpha and dropout of LoRA.
        trials: how many, those of other processes and of an earlier start included.
        sampler: `random` (Bergstra & Bengio, 2012) or `tpe` (Bergstra et al., 2011).
        objective: a metric of `trainer.evaluate()`, without `eval_`, after the last step.
        greater_is_better: of it. Default: unless its name ends in `loss`.
        prune: stop trials that fall behind, by asynchronous successive halving (ASHA, Li et al., 2020): of those
            evaluated after 1, 3, 9, … evaluations, a third goes on.
        about: what else must be the same in a later start, such as the fingerprint of the data.
        on_trial: called with the row of each trial that ends from now on, here or in another process.

    Raises:
        ImportError: Optuna is missing.
        ValueError: a name in `space` cannot be searched, `folder` holds another search, or no trial was completed.

    Example:
        >>> from tithe.trainers import Range, tune
        >>> found = tune(trainer, "runs/tune", space={"learning_rate": Range(1e-5, 1e-3, log=True)})  # doctest: +SKIP
        >>> for name, value in found.best.items():  # doctest: +SKIP
        ...     setattr(args, name, value)
    """
    _check(trainer, space, trials)
    terms = SearchTerms(
        space=space,
        sampler=sampler,
        objective=objective.removeprefix("eval_"),
        greater_is_better=not objective.endswith("loss") if greater_is_better is None else greater_is_better,
        seed=seed,
        prune_every=_steps_between_evaluations(trainer) if prune else None,
        about=dict(about or {}),
    )
    study = SharedStudy(Path(folder), terms)
    told = {row["trial"] for row in study.rows()}
    with study.working(), _Trials(trainer, study, space) as running:
        going_on = True
        while going_on:
            going_on = running.one(trials)
            for row in study.rows():
                if row["trial"] not in told and on_trial is not None:
                    on_trial(row)
                told.add(row["trial"])
    return _conclude(study)


def _check(trainer: Any, space: Space, trials: int) -> None:
    if trials < 1:
        raise ValueError(f"`trials` must be at least 1, got {trials}")
    if trainer.model_init is None:
        raise ValueError("a search makes the model anew for each trial: give the trainer a `model_init`, and no model")
    if trainer.eval_dataset is None:
        raise ValueError("a search scores each trial on `eval_dataset`, and the trainer has none")
    if trainer.args.world_size > 1:
        raise ValueError(
            f"a trial runs in one process, and this is one of {trainer.args.world_size}: start the search in several "
            "processes of their own, with the same folder; they share the trials"
        )
    check_space(space, trainer.args)


def _steps_between_evaluations(trainer: Any) -> int:
    args = trainer.args
    if args.eval_strategy == "no":
        raise ValueError("`prune` needs evaluations while a trial trains: set `eval_strategy` to steps or epoch")
    batches = math.ceil(len(trainer.train_dataset) / args.train_batch_size)
    epoch = math.ceil(batches / args.gradient_accumulation_steps)
    if args.eval_strategy == "epoch":
        return epoch
    every = args.eval_steps or args.logging_steps
    return max(1, round(every * epoch * args.num_train_epochs) if every < 1 else int(every))


class _Trials:
    """Runs trials with a trainer, and gives it back as it was."""

    def __init__(self, trainer: Any, study: SharedStudy, space: Space) -> None:
        self.trainer, self.study, self.space = trainer, study, space

    def __enter__(self) -> "_Trials":
        trainer = self.trainer
        self._args, self._model_init = dict(vars(trainer.args)), trainer.model_init
        takes_trial = bool(inspect.signature(self._model_init).parameters)

        def model_init(trial: Any) -> Any:
            values = {} if trial is None else self._set(trial)  # before the model: its adapters may hang on them
            model = self._model_init(trial) if takes_trial else self._model_init()
            if HEAD_DROPOUT in values:
                set_head_dropout(model, values[HEAD_DROPOUT])
            return model

        trainer.model_init = model_init
        return self

    def __exit__(self, *_: Any) -> None:
        vars(self.trainer.args).clear()
        vars(self.trainer.args).update(self._args)
        self.trainer.model_init, self.trainer.hp_search_backend = self._model_init, None
        give_back_memory()

    def one(self, trials: int) -> bool:
        """Run one trial that is free; False if all have ended."""
        with self.study.next_trial(trials) as options:
            if options is None:
                return False
            try:
                self.trainer.hyperparameter_search(
                    hp_space=self._space,
                    compute_objective=self._objective,
                    n_trials=1,
                    direction=self.study.terms.direction,
                    backend="optuna",
                    **options,
                )
            except ValueError:  # the parent's, where no trial of the study is complete yet
                if not self.study.took_pruned():
                    raise
        if self.study.took_pruned():
            give_back_memory()  # of other trials the parent does
        return True

    def _set(self, trial: Any) -> dict[str, Any]:
        self.study.take(trial)
        self._trial = trial
        values = suggest(trial, self.space)
        for name, value in as_arguments(values).items():
            if name != HEAD_DROPOUT:
                setattr(self.trainer.args, name, value)
        return values

    def _space(self, trial: Any) -> dict[str, Any]:
        self._set(trial)
        return {}  # the parent would cast each to the type of the last trial's

    def _objective(self, metrics: dict[str, float]) -> float:
        name = f"eval_{self.study.terms.objective}"
        if name not in metrics:
            known = ", ".join(key.removeprefix("eval_") for key in metrics if key.startswith("eval_"))
            raise ValueError(f"`objective` {self.study.terms.objective} is no metric of this trainer: it has {known}")
        if not math.isfinite(metrics[name]):
            self._trial.set_user_attr("diverged", f"{name} is {metrics[name]}")
            raise import_optuna().TrialPruned
        return metrics[name]


def _conclude(study: SharedStudy) -> Tuning:
    rows, terms = study.rows(), study.terms
    done = [row for row in rows if row["state"] == "complete"]
    if not done:
        raise ValueError(
            f"none of the {len(rows)} trials was completed: all diverged; lower the range of `learning_rate`"
        )
    sign = -1 if terms.greater_is_better else 1
    best = min(done, key=lambda row: (sign * row[terms.objective], row["trial"]))
    values = {name: best[name] for name in terms.space}
    return Tuning(as_arguments(values), best[terms.objective], rows, study.importance(), study.curves())
