"""Training on a budget of the data, chosen in rounds by a strategy, in one `train()` call."""

import json
import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import get_sampler
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import TrainingArguments

from ..models import SIGNALS, parameter_groups, read_signals
from ..selection import All, Selection, Strategy, get_strategy
from .choosing import Choice, choose, describe, evenness, statistics
from .ledger import Ledger
from .pool_data import PoolData
from .reliable import ReliableTrainer
from .rounds import RoundCallback, budget_rows, number_of_rounds, round_of_epoch, size_after_round
from .sampler import RoundSampler, row_lengths


# What only a trained head can give: before the first step it says nothing.
_OF_THE_HEAD = SIGNALS - {"embeddings"}


@dataclass
class RoundSelectionConfig(TrainingArguments):
    """The arguments of `RoundSelectionTrainer`: those of `TrainingArguments`, and what to train on.

    Raises:
        ValueError: a value is out of range, or a strategy has no such name or hyper-parameter.
    """

    # What is selected
    budget: float = field(
        default=0.1,
        metadata={"help": "How much of the pool to train on: up to 1 a fraction of its rows, above 1 their number."},
    )
    strategy: str = field(
        default="entropy_diversity",
        metadata={"help": "Which strategy chooses: a name in `tithe.selection.STRATEGIES`."},
    )
    strategy_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Hyper-parameters of the strategy, as JSON: {"beta": 10}.'}
    )
    # When
    rounds: int | None = field(
        default=None,
        metadata={
            "help": "In how many rounds to select. The epochs are divided evenly over them, and each adds the same "
            "number of rows. Default: three, or one per epoch where there are fewer epochs."
        },
    )
    initial_strategy: str | None = field(
        default="random",
        metadata={
            "help": "Which strategy chooses the first round where `strategy` reads predictions, which mean nothing "
            "before training: `random`, or `k_center` on the embeddings of the untrained backbone. `None` for a model "
            "that is fine-tuned already: `strategy` then chooses the first round too."
        },
    )
    # How the model is trained
    head_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of what lies outside the backbone. Default: `learning_rate`."},
    )
    # Data
    pool_text_column: str = field(
        default="text",
        metadata={"help": "Column of `train_dataset` with the texts, for strategies that read them."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strategy_kwargs = _json_object("strategy_kwargs", self.strategy_kwargs)
        if not self.budget > 0 or math.isinf(self.budget):
            raise ValueError(f"`budget` must be above 0: a fraction up to 1, or a number of rows; got {self.budget}")
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"`rounds` must be at least 1, got {self.rounds}")
        if self.initial_strategy is not None and self.initial_strategy.lower() == "none":
            self.initial_strategy = None
        get_strategy(self.strategy, **self.strategy_kwargs)
        if self.initial_strategy is not None and (needs := get_strategy(self.initial_strategy).needs & _OF_THE_HEAD):
            raise ValueError(
                f"`initial_strategy` {self.initial_strategy} reads {', '.join(sorted(needs))} of a model that is not "
                "trained yet: choose `random` or `k_center`, or `None` if the model is fine-tuned already"
            )
        if self.dataloader_persistent_workers:
            raise ValueError("`dataloader_persistent_workers` keeps workers of an earlier round: set it to False")
        if self.train_sampling_strategy == "batch_rebalance":
            raise ValueError(
                "`train_sampling_strategy` batch_rebalance fixes the batches before the rounds are chosen: "
                "use group_by_length"
            )


class RoundSelectionTrainer(ReliableTrainer):
    """A `Trainer` that trains on a budget of `train_dataset`, chosen in rounds while it trains.

    `train_dataset` is the whole pool. With R rounds, round r ends with round(budget · (r+1) / R) rows selected; each
    epoch draws exactly `budget` rows from those selected so far, each as often as any other to within one. So steps,
    schedule and compute are known before the start and do not depend on the strategy. At the start of a round the
    signals that the strategy needs are read from the model in one pass (`tithe.models.read_signals`). With
    `strategy="all"` it trains step for step as `Trainer` does.

    In several processes accelerate fills the last batch of an epoch up with rows from its start, as for any Trainer:
    results equal those of one process where `budget` is a multiple of the global batch.

    Args:
        model, args, …: as for `Trainer`; `args` is a `RoundSelectionConfig`.
        strategy: overrides `args.strategy`: a name, or an object of the protocol `tithe.selection.Strategy`.

    Attributes:
        ledger: which rows each round chose, with scores; `ledger.selected` are all of them.

    Raises:
        TypeError: `args` or `train_dataset` is of a type that cannot be selected from.
        ValueError: budget, rounds or strategy do not fit the pool; before anything is trained.

    Example:
        >>> from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer
        >>> args = RoundSelectionConfig("out", budget=0.1, rounds=3, strategy="edfs_lite")  # doctest: +SKIP
        >>> RoundSelectionTrainer(model, args, train_dataset=pool).train()  # doctest: +SKIP
    """

    args: RoundSelectionConfig
    train_dataset: Any

    def __init__(
        self,
        model: nn.Module | None = None,
        args: RoundSelectionConfig | None = None,
        *trainer_args: Any,
        strategy: str | Strategy | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        args = RoundSelectionConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, RoundSelectionConfig):
            raise TypeError(f"`args` must be a `RoundSelectionConfig`, got `{type(args).__name__}`")
        self.strategy = _strategy(strategy, args)
        super().__init__(model, args, *trainer_args, **trainer_kwargs)
        self.ledger = Ledger({})
        if self.train_dataset is not None:
            self.pool = PoolData(self.train_dataset, args.pool_text_column, args.length_column_name)
            self.pool.check(self.strategy.needs, type(self.strategy).__name__)
            if args.max_steps <= 0:  # else the number of epochs is known once training begins
                self.plan_rounds(math.ceil(args.num_train_epochs))
        self.add_callback(RoundCallback(self))

    # What is asked of a run

    @property
    def budget(self) -> int:
        """The number of rows that will have been selected in the end."""
        rows = len(self.pool)
        return rows if isinstance(self.strategy, All) else budget_rows(self.args.budget, rows)

    def plan_rounds(self, epochs: int) -> None:
        """Divide `epochs` epochs over the rounds; a `ValueError` where the rounds do not fit them or the budget.

        Planned anew when training begins: a hyper-parameter search sets the arguments only then.
        """
        self._epochs = epochs
        self.ledger.terms = self._terms()
        self._rounds = 1 if isinstance(self.strategy, All) else number_of_rounds(self.args.rounds, epochs, self.budget)

    def _terms(self) -> dict[str, Any]:
        initial = None if isinstance(self.strategy, All) else self.args.initial_strategy
        return {
            "strategy": describe(self.strategy),
            "initial_strategy": initial,
            "budget": self.budget,
            "rounds": self.args.rounds,
            "seed": self.args.seed,
            "pool": self.pool.fingerprint(),
        }

    # Rounds

    def begin_epoch(self, epoch: int) -> None:
        """Choose the round that begins with `epoch`, if one does, and point the sampler at what is selected."""
        for number in range(len(self.ledger.rows), round_of_epoch(epoch, self._rounds, self._epochs) + 1):
            self._select(number, epoch)
        self._sampler.set_selected(self.ledger.selected)
        self._sampler.set_epoch(epoch)

    def _select(self, number: int, epoch: int) -> None:
        strategy: Strategy = self.strategy
        if number == 0 and strategy.needs & _OF_THE_HEAD and self.args.initial_strategy is not None:
            strategy = get_strategy(self.args.initial_strategy)
        size = size_after_round(number, self._rounds, self.budget)
        start = time.perf_counter()
        names = {"embeddings" if name == "selected_embeddings" else name for name in strategy.needs}
        signals = self.signals(self.train_dataset, names & SIGNALS)
        scoring = time.perf_counter() - start
        # Process 0 selects for all: no rounding of another process's can then lead it to other rows.
        outcome = [self._choose(strategy, number, size, signals) if self.args.process_index == 0 else None]
        broadcast_object_list(outcome)
        choice = outcome[0]
        if not isinstance(choice, Choice):
            raise choice or RuntimeError("process 0 sent no selection")
        chosen = choice.selection
        row = {
            "round": number,
            "epoch": epoch,
            "step": self.state.global_step,
            "strategy": describe(strategy),
            "seed": self.args.seed,
            "size": size,
            "added": len(chosen.indices),
            "ignores_budget": isinstance(strategy, All),
            "seconds": {"scoring": scoring, "selecting": time.perf_counter() - start - scoring},
            **statistics(choice, self.pool.labels(), self.ledger.selected),
        }
        self._enter(row, chosen)

    def _choose(
        self, strategy: Strategy, number: int, size: int, signals: dict[str, NDArray[np.float32]]
    ) -> Choice | Exception:
        """The choice, or what went wrong, for all to raise: process 0 alone would leave the others waiting."""
        selected, rng = self.ledger.selected, np.random.default_rng((self.args.seed, number))
        try:
            return choose(strategy, self.pool, signals, selected, size - len(selected), rng)
        except Exception as error:
            return error

    def _enter(self, row: dict[str, Any], chosen: Selection) -> None:
        self.ledger.add(row, chosen.indices, chosen.scores, dict(chosen.columns))
        if self.args.should_save:
            self.ledger.save(self._run_dir)
        logged = {"size": row["size"], "mean_score": row["mean_score"], "coverage_radius": row["coverage_radius"]}
        if (balance := row["class_balance"]) is not None:
            logged["class_balance"] = evenness(list(balance.values()), self.model.config.num_labels)
        logged |= {f"{name}_seconds": seconds for name, seconds in row["seconds"].items()}
        self.log({f"round/{name}": value for name, value in logged.items() if value is not None})

    # Signals

    def signals(self, dataset: Any, needs: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Read `needs` (names in `tithe.models.SIGNALS`) of the tokenised `dataset` from the model.

        All processes must call it; the arrays, in row order, come out on process 0, the others get none.
        """
        if not needs:
            return {}
        lengths = self.pool.lengths() if dataset is self.train_dataset else row_lengths(dataset)
        collate = self.data_collator
        if hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, description="scoring")
        else:
            collate = self._get_collator_with_removed_columns(collate, description="scoring")
        return read_signals(
            self.model,
            dataset,
            needs,
            collate=collate,
            lengths=lengths,
            batch_size=self.args.eval_batch_size,
            prepare=self._prepare_inputs,
            process_index=self.args.process_index,
            num_processes=self.args.world_size,
            progress=self._progress,
        )

    def _progress(self, batches: Iterable[Any], total: int) -> Iterable[Any]:
        hidden = self.args.disable_tqdm or not self.is_world_process_zero()
        return tqdm(batches, "Reading the pool", total, leave=False, disable=hidden)

    # What the parent is told

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> RoundSampler:
        grouped = self.args.train_sampling_strategy == "group_by_length"
        self._sampler = RoundSampler(
            self.budget,
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
            lengths=self.pool.lengths() if grouped else None,
            group_size=self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            shuffle=self.args.train_sampling_strategy != "sequential",
        )
        return self._sampler

    def num_examples(self, dataloader: DataLoader) -> int:
        """As the parent's, but of the training data only what an epoch draws: speeds are logged by it."""
        if isinstance(get_sampler(dataloader), RoundSampler):
            return self.budget
        return super().num_examples(dataloader)

    def _before_training(self, checkpoint: Path | None) -> None:
        if self.train_dataset is None:
            return
        self.ledger = Ledger(self._terms())
        if checkpoint is not None:
            found = Ledger.load(checkpoint)
            found.check_terms(self.ledger.terms, checkpoint)
            self.ledger = found

    def _write_to_checkpoint(self, folder: Path) -> None:
        self.ledger.save(folder)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        rate, chosen = self.args.head_learning_rate, self.optimizer_cls_and_kwargs
        if rate is None or self.optimizer is not None:
            return super().create_optimizer(model)
        target: Any = self.model if model is None else model
        cls, kwargs = chosen or self.get_optimizer_cls_and_kwargs(self.args, target)
        groups = parameter_groups(
            target,
            learning_rate=self.args.learning_rate,
            head_learning_rate=rate,
            weight_decay=self.args.weight_decay,
            decay_names=set(self.get_decay_parameter_names(target)),
        )
        self.optimizer_cls_and_kwargs = (cls, {**kwargs, "params": groups})
        try:
            return super().create_optimizer(model)
        finally:
            self.optimizer_cls_and_kwargs = chosen


def _strategy(strategy: str | Strategy | None, args: RoundSelectionConfig) -> Strategy:
    if strategy is None or strategy == args.strategy:
        return get_strategy(args.strategy, **_json_object("strategy_kwargs", args.strategy_kwargs))
    if args.strategy_kwargs:
        raise ValueError(
            f"`strategy_kwargs` {args.strategy_kwargs} belong to `args.strategy` {args.strategy}, which the "
            "`strategy` argument overrides: give it as an object, `get_strategy(name, **hyperparameters)`"
        )
    if isinstance(strategy, str):
        return get_strategy(strategy)
    if not isinstance(strategy, Strategy):
        raise TypeError(
            f"`strategy` must be a name or have `needs` and `select(pool, k, rng)`; got {type(strategy).__name__}"
        )
    return strategy


def _json_object(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else value or {}
    except json.JSONDecodeError as error:
        raise ValueError(f"`{name}` is not JSON ({error}): {value}") from error
    if not isinstance(found, dict):
        raise ValueError(f"`{name}` must be a JSON object, got {value}")
    return found
