"""When which round is chosen, how large it is, and what is kept of it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..selection import Pool, Selection, Strategy


if TYPE_CHECKING:
    from .round_selection import RoundSelectionTrainer

DEFAULT_ROUNDS = 3


def budget_rows(budget: float, pool_size: int) -> int:
    """The number of rows that `budget` means: up to 1 a fraction of the pool, above 1 a count.

    Raises:
        ValueError: the budget is not positive, not a whole number above 1, or more than the pool has.
    """
    if not budget > 0 or math.isinf(budget):
        raise ValueError(f"`budget` must be above 0: a fraction up to 1, or a number of rows; got {budget}")
    if budget <= 1:
        rows = round(budget * pool_size)
        if rows == 0:
            raise ValueError(f"`budget` {budget} of a pool of {pool_size} rows is none: raise it")
        return rows
    if budget != int(budget):
        raise ValueError(f"`budget` above 1 is a number of rows, so a whole number; got {budget}")
    if budget > pool_size:
        raise ValueError(
            f"`budget` is {int(budget)} rows, the pool has {pool_size}: lower it, or give a fraction up to 1"
        )
    return int(budget)


def number_of_rounds(rounds: int | None, epochs: int, budget: int) -> int:
    """How many rounds there are; by default three, or one per epoch or per row where there are fewer.

    Raises:
        ValueError: more rounds than epochs or than rows in the budget.
    """
    if rounds is None:
        return min(DEFAULT_ROUNDS, epochs, budget)
    if rounds > epochs:
        raise ValueError(f"`rounds` is {rounds}, but there are {epochs} epochs, and every round needs one")
    if rounds > budget:
        raise ValueError(f"`rounds` is {rounds}, but the budget is {budget} rows, and every round needs one")
    return rounds


def round_of_epoch(epoch: int, rounds: int, epochs: int) -> int:
    """The round that epoch `epoch` (from 0) belongs to, with the epochs divided evenly over the rounds."""
    return min(epoch * rounds // epochs, rounds - 1)


def size_after_round(number: int, rounds: int, budget: int) -> int:
    """How many rows are selected once round `number` (from 0) is: round(budget · (number + 1) / rounds)."""
    return round(budget * (number + 1) / rounds)


def describe(strategy: Strategy) -> str:
    """What identifies a strategy from run to run: its hyper-parameters, but never an address in memory."""
    if is_dataclass(strategy) and not isinstance(strategy, type):
        arguments = ", ".join(f"{name}={value!r}" for name, value in asdict(strategy).items())
        return f"{type(strategy).__name__}({arguments})"
    return type(strategy).__qualname__


def evenness(counts: Sequence[int], classes: int) -> float:
    """How evenly counts are spread over `classes` classes: entropy / log(classes), from 0 (one class) to 1 (equal)."""
    if classes < 2:
        return 1.0
    shares = np.array(counts) / sum(counts)
    return float(-(shares * np.log(shares)).sum() / math.log(classes))


def select_exactly(strategy: Strategy, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
    """`strategy.select`, held to its contract: a user's own strategy may break it.

    Raises:
        ValueError: it did not give `k` distinct candidates.
    """
    chosen = strategy.select(pool, k, rng)
    candidates = np.intersect1d(chosen.indices, pool.ids)
    if len(candidates) != k or len(chosen.indices) != k:
        raise ValueError(
            f"strategy {describe(strategy)} was asked for {k} distinct candidates and gave "
            f"{len(chosen.indices)} rows, {len(candidates)} distinct candidates among them"
        )
    return chosen


def over_data_set(chosen: Selection, ids: NDArray[np.int64], rows: int) -> Selection:
    """The same with scores, and those columns that are numbers, for all `rows` rows of the data set.

    A row that was no candidate has the score NaN, and 0 in the columns.
    """
    scores = np.full(rows, np.nan, dtype=np.float32)
    scores[ids] = chosen.scores
    columns = {}
    for name, values in chosen.columns.items():
        if values.dtype.kind in "fiub":
            columns[name] = np.zeros(rows, dtype=values.dtype)
            columns[name][ids] = values
    return Selection(indices=np.asarray(chosen.indices, dtype=np.int64), scores=scores, columns=columns)


class RoundCallback(TrainerCallback):
    """Has the trainer select at the start of each epoch with which a round begins.

    `on_epoch_begin` runs before the epoch's batches are drawn; accelerate does not pass the epoch on to the sampler
    after a resume in several processes, so the sampler is told here.
    """

    def __init__(self, trainer: "RoundSelectionTrainer") -> None:
        self._trainer = trainer
        self._epoch = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        steps = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        self._epoch = state.global_step // steps
        self._trainer.check_rounds(state.num_train_epochs)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.begin_epoch(self._epoch)
        self._epoch += 1
