"""When which round is chosen, and how large it is."""

import math
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


DEFAULT_ROUNDS = 3
PROXY_ROUNDS = 20


class SelectsInRounds(Protocol):
    """What `RoundCallback` asks of a trainer."""

    def plan_rounds(self, epochs: int) -> None: ...

    def begin_epoch(self, epoch: int) -> None: ...


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


def number_of_rounds(rounds: int | None, epochs: int | None, budget: int) -> int:
    """How many rounds there are: `rounds`, or by default three, twenty where epochs do not bind (`epochs` None).

    The default is lower where there are fewer epochs or rows.

    Raises:
        ValueError: more rounds than epochs or than rows in the budget.
    """
    if rounds is None:
        return min(PROXY_ROUNDS, budget) if epochs is None else min(DEFAULT_ROUNDS, epochs, budget)
    if epochs is not None and rounds > epochs:
        raise ValueError(
            f"`rounds` is {rounds}, but there are {epochs} epochs, and every round needs one unless a `proxy` selects"
        )
    if rounds > budget:
        raise ValueError(f"`rounds` is {rounds}, but the budget is {budget} rows, and every round needs one")
    return rounds


def round_of_epoch(epoch: int, rounds: int, epochs: int) -> int:
    """The round that epoch `epoch` (from 0) belongs to, with the epochs divided evenly over the rounds."""
    return min(epoch * rounds // epochs, rounds - 1)


def size_after_round(number: int, rounds: int, budget: int) -> int:
    """How many rows are selected once round `number` (from 0) is: round(budget · (number + 1) / rounds)."""
    return round(budget * (number + 1) / rounds)


class RoundCallback(TrainerCallback):
    """Has the trainer select at the start of each epoch with which a round begins.

    `on_epoch_begin` runs before the epoch's batches are drawn; accelerate does not pass the epoch on to the sampler
    after a resume in several processes, so the sampler is told here.
    """

    def __init__(self, trainer: SelectsInRounds) -> None:
        self._trainer = trainer
        self._epoch = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        steps = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        self._epoch = state.global_step // steps
        self._trainer.plan_rounds(state.num_train_epochs)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.begin_epoch(self._epoch)
        self._epoch += 1
