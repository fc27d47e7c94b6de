"""What may be asked, of whom, and how a query is put to an oracle in several processes."""

from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from ..selection import All, Strategy
from .distillation_tasks import task_of
from .oracles import Answer, ColumnOracle, Oracle, Query, ask
from .soft_targets import LARGE_VOCABULARY


TASKS = ("sequence classification", "multiple choice")


def check_query_strategy(strategy: Strategy, scoring_model: str | None = None) -> None:
    """Raise a `ValueError` unless `strategy` can say what to ask for without the labels that it would ask for."""
    if isinstance(strategy, All):
        raise ValueError("`query_strategy` must choose: `all` asks for every label at once")
    of_text = strategy.needs & {"perplexity", "ifd"} and scoring_model is None  # then they are losses of labels
    if of_text or strategy.needs & {"labels", "el2n"}:
        raise ValueError(
            f"`query_strategy` {type(strategy).__name__} reads labels of rows that nobody has been asked for: choose "
            "one that reads predictions or embeddings, such as `margin`, `entropy`, `badge` or `k_center`"
        )


def checked_oracle(oracle: Oracle | None, hidden: NDArray[np.int64] | None) -> Oracle:
    """`oracle`, or without one the `hidden` labels of the pool.

    Raises:
        TypeError: it is no oracle.
        ValueError: there is neither.
    """
    if oracle is None:
        if hidden is None:
            raise ValueError(
                "`train_dataset` has no column `label` or `labels`, and there is no `oracle` to ask: pass one, such "
                "as `FileOracle(folder)`"
            )
        return ColumnOracle(hidden)
    if not isinstance(oracle, Oracle):
        raise TypeError(
            f"`oracle` must have `shows`, `asks_teachers` and `label(query)`; {type(oracle).__name__} lacks one"
        )
    return oracle


def check_loop(trainer: Any, scored_by: str | None, targets: Any) -> None:
    """Raise a `ValueError` where an `ExpertLoopTrainer` could not do what its arguments ask for.

    Args:
        trainer: as it is before training.
        scored_by: the language model that `perplexity` and `ifd` are read of.
        targets: what the teachers say, a `SoftTargets`; None without teachers.
    """
    args, task = trainer.args, task_of(trainer.model, declared=trainer.args.task)
    if task not in TASKS:
        raise ValueError(f"the expert loop is for {' and '.join(TASKS)}, not {task}")
    if task == "multiple choice" and args.proxy is not None:
        raise ValueError("`proxy` must be None for multiple choice: which of a row's choices is right is no class")
    check_query_strategy(trainer.strategy, scored_by)
    missing = [name for name in trainer.oracle.shows if name not in trainer.pool.columns]
    if missing:
        raise ValueError(f"the oracle wants to see {missing}; `train_dataset` has {trainer.pool.columns}")
    if targets is None and (trainer.oracle.asks_teachers or args.unlabelled_share):
        what = "the oracle asks them" if trainer.oracle.asks_teachers else "`unlabelled_share` is above 0"
        raise ValueError(f"there are no `teachers`, and {what}")
    if targets is not None and targets.kept(args.teacher_top_k) is not None:
        raise ValueError(f"`teacher_top_k` must be None, and the labels at most {LARGE_VOCABULARY}")
    if args.iteration_start == "initial" and (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        raise ValueError("`iteration_start` must be `warm` under DeepSpeed and FSDP, which spread the training state")


def put(trainer: Any, number: int, rows: NDArray[np.int64], targets: Any) -> dict[int, Answer]:
    """The answers to iteration `number`'s query for `rows`; all processes call it, and process 0 asks.

    Raises, on all processes, what the oracle raises: `LabelsWanted` where the answers are not there yet.
    """
    outcome: list[Any] = [None]
    if trainer.args.process_index == 0:
        try:
            outcome = [ask(trainer.oracle, _query(trainer, number, rows, targets))]
        except Exception as error:  # for all to raise: process 0 alone would leave the others waiting
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _query(trainer: Any, number: int, rows: NDArray[np.int64], targets: Any) -> Query:
    shown = [{name: trainer.train_dataset[row][name] for name in trainer.oracle.shows} for row in rows.tolist()]
    weights = [] if targets is None else [teacher.weight for teacher in targets.teachers]
    shares = [weight / sum(weights) for weight in weights]
    return Query(number, rows, trainer.answer_names, shown, trainer.opinions(rows), shares)
