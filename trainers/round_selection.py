"""Training on a budget of the data, chosen in rounds by a strategy, in one `train()` call."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import get_sampler
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..evaluation import Section
from ..models import parameter_groups, plain_model, read_shard, read_signals
from ..selection import All, Strategy, get_strategy
from .card_sections import selection_section
from .choosing import Choice, Chooser, describe, evenness, statistics
from .ledger import Ledger
from .pool_data import PoolData
from .pool_reader import SignalSources
from .projector import class_names, log_pool_embeddings
from .reliable import ReliableTrainer
from .required_extras import ExtrasArguments
from .round_pictures import PoolMap, rounds_to_show, show_round
from .rounds import (
    DEFAULT_ROUNDS,
    PROXY_ROUNDS,
    RoundCallback,
    budget_rows,
    number_of_rounds,
    round_of_epoch,
    size_after_round,
)
from .sampler import RoundSampler, reading_lengths
from .signal_reader import PROXIES, Signals
from .strategy_arguments import AUTO, json_object, resolve_initial, resolve_strategy


@dataclass
class RoundSelectionConfig(ExtrasArguments):
    """The arguments of `RoundSelectionTrainer`: those of `TrainingArguments`, and what to train on.

    Raises:
        ImportError: it asks for DeepSpeed, which is not installed.
        ValueError: a value is out of range, or a strategy has no such name or hyper-parameter.
    """

    # What is selected
    budget: float = field(
        default=0.1,
        metadata={"help": "How much of the pool to train on: up to 1 a fraction of its rows, above 1 their number."},
    )
    strategy: str = field(
        default="margin_coverage",
        metadata={"help": "Which strategy chooses: a name in `tithe.selection.STRATEGIES`."},
    )
    strategy_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Hyper-parameters of the strategy, as JSON: {"beta": 10}.'}
    )
    # When, and by what
    rounds: int | None = field(
        default=None,
        metadata={
            "help": "In how many rounds to select; each adds the same number of rows. The epochs are divided evenly "
            f"over them. Default: {DEFAULT_ROUNDS}, or one per epoch where there are fewer epochs. With a `proxy` all "
            f"are chosen before training, so there may be more than epochs; default: {PROXY_ROUNDS}."
        },
    )
    initial_strategy: str | None = field(
        default=AUTO,
        metadata={
            "help": "Which strategy chooses the first round where `strategy` reads predictions, which mean nothing "
            "before training: a name such as `random`, or `facility_location` on the embeddings of the untrained "
            "backbone. `auto`: what the strategy itself asks for, else `random`. `None` for a model that is "
            "fine-tuned already: `strategy` then chooses the first round too."
        },
    )
    proxy: str | None = field(
        default=None,
        metadata={
            "help": "What the strategy reads predictions of: `None` for the model in training, `linear` for logistic "
            "regressions on embeddings of the untrained model, fitted to the rows selected so far. The model is then "
            "read once, and trains on the whole budget from its first step."
        },
    )
    el2n_proxies: int = field(
        default=5,
        metadata={
            "help": "Over how many early-trained linear probes `el2n` is averaged, each row scored out of fold; 0 "
            "reads it from the model in training."
        },
    )
    scoring_model: str | None = field(
        default=None,
        metadata={
            "help": "Causal, masked or seq2seq language model (hub id or folder) that `perplexity` and `ifd` are read "
            "of. Default: the loss of each row's label under the model in training, or the `proxy`."
        },
    )
    signal_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder in which signals of models that are not trained are kept: the embeddings of a `proxy`, "
            "and what a scoring model says. A run with the same model, data and settings finds them there."
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
    pool_answer_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of `train_dataset` with the answers that `ifd` scores, and perplexity by a seq2seq model. "
            "Default: the name of each row's label."
        },
    )
    # Tracking
    log_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Show the pool in TensorBoard's projector once training is over: embeddings of up to 5,000 rows, "
            "with label and round. Needs `tensorboard` in `report_to`."
        },
    )

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """`strategy_kwargs` as a dict."""
        return json_object("strategy_kwargs", self.strategy_kwargs)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strategy_kwargs = json_object("strategy_kwargs", self.strategy_kwargs)
        if not self.budget > 0 or math.isinf(self.budget):
            raise ValueError(f"`budget` must be above 0: a fraction up to 1, or a number of rows; got {self.budget}")
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"`rounds` must be at least 1, got {self.rounds}")
        for name in ("initial_strategy", "proxy"):
            if str(getattr(self, name)).lower() == "none":
                setattr(self, name, None)
        if self.proxy not in PROXIES:
            raise ValueError(f"`proxy` must be `linear` or `None`, got {self.proxy!r}")
        if self.el2n_proxies < 0:
            raise ValueError(f"`el2n_proxies` must be at least 0, got {self.el2n_proxies}")
        if self.log_embeddings and "tensorboard" not in (self.report_to or ()):
            raise ValueError("`log_embeddings` needs TensorBoard: add `tensorboard` to `report_to`")
        get_strategy(self.strategy, **self.hyperparameters)
        if self.initial_strategy not in (None, AUTO):
            get_strategy(self.initial_strategy)
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
    signals that the strategy needs are read from the model in one pass (`tithe.models.read_signals`), or with
    `proxy="linear"` from linear probes (`tithe.trainers.SignalReader`): then all rounds are chosen before the first
    step, and every epoch draws the whole budget. With `strategy="all"` it trains step for step as `Trainer` does.

    In several processes accelerate fills the last batch of an epoch up with rows from its start, as for any Trainer:
    results equal those of one process where `budget` is a multiple of the global batch.

    Args:
        model, args, …: as for `Trainer`; `args` is a `RoundSelectionConfig`.
        strategy: overrides `args.strategy`: a name, or an object of the protocol `tithe.selection.Strategy`.
        scoring_model: overrides `args.scoring_model`: a name, or a language model and its tokenizer.
        committee: classifiers with the tokenizer and the labels of `model`, whose disagreement `committee` reads.

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
        scoring_model: str | tuple[nn.Module, Any] | None = None,
        committee: Sequence[nn.Module] = (),
        **trainer_kwargs: Any,
    ) -> None:
        args = RoundSelectionConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, RoundSelectionConfig):
            raise TypeError(f"`args` must be a `RoundSelectionConfig`, got `{type(args).__name__}`")
        self.strategy = resolve_strategy(strategy, args.strategy, args.hyperparameters)
        super().__init__(model, args, *trainer_args, **trainer_kwargs)
        self.ledger = Ledger({})
        if self.train_dataset is not None:
            self.pool = self._make_pool()
            self._sources = SignalSources(self, scoring_model or args.scoring_model, committee)
            self._chooser = self._make_chooser()
            if args.max_steps <= 0:  # else the number of epochs is known once training begins
                self.plan_rounds(math.ceil(args.num_train_epochs))
        self.add_callback(RoundCallback(self))

    def _make_pool(self) -> PoolData:
        args, ids = self.args, plain_model(self.model).main_input_name
        labels = args.label_names or ()
        return PoolData(self.train_dataset, args.pool_text_column, args.length_column_name, ids, labels)

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
        epochs_of_rounds = None if self.args.proxy else epochs
        one = isinstance(self.strategy, All)
        self._rounds = 1 if one else number_of_rounds(self.args.rounds, epochs_of_rounds, self.budget)

    def _terms(self) -> dict[str, Any]:
        initial = None if isinstance(self.strategy, All) else self.args.initial_strategy
        return {
            "strategy": describe(self.strategy),
            "initial_strategy": initial,
            "proxy": self.args.proxy,
            "el2n_proxies": self.args.el2n_proxies,
            "scoring_model": self._sources.scored_by,
            "budget": self.budget,
            "rounds": self.args.rounds,
            "seed": self.args.seed,
            "pool": self.pool.fingerprint(),
        }

    def _make_chooser(self) -> Chooser:
        args = self.args
        reader = self._sources.reader()
        initial = None
        if args.initial_strategy is not None:
            initial = resolve_initial(args.initial_strategy, self.strategy)
        # A proxy learns from the rows of all processes, in one of them.
        shard = self._read_shard if args.world_size > 1 and args.proxy is None else None
        chooser = Chooser(self.pool, self.strategy, initial, reader, args.seed, args.process_index, shard)
        chooser.check()
        if self.pictures.wanted:
            chooser.map = PoolMap()
        return chooser

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent's; the pool's embeddings are shown after it where `log_embeddings` asks for them."""
        done = super().train(*args, **kwargs)
        if self.args.log_embeddings and self.train_dataset is not None and not self.state.is_hyper_param_search:
            log_pool_embeddings(self)
        return done

    # Rounds

    def begin_epoch(self, epoch: int) -> None:
        """Choose the rounds that begin with `epoch`, if any do, and point the sampler at what is selected."""
        for number in range(len(self.ledger.rows), self._last_round(epoch) + 1):
            self._select(number, epoch)
        self._sampler.set_selected(self._trained_on())
        self._sampler.set_epoch(epoch)

    def _last_round(self, epoch: int) -> int:
        """The last round that is chosen by the time that `epoch` begins."""
        return self._rounds - 1 if self.args.proxy else round_of_epoch(epoch, self._rounds, self._epochs)

    def _select(self, number: int, epoch: int) -> None:
        size, selected = self._size_after(number), self.ledger.selected
        outcome = self._choose(number, size - len(selected), selected)
        chosen = outcome.selection
        row = {
            "round": number,
            "epoch": epoch,
            "step": self.state.global_step,
            "strategy": outcome.strategy,
            "seed": self.args.seed,
            "size": size,
            "added": len(chosen.indices),
            "ignores_budget": isinstance(self.strategy, All),
            "seconds": outcome.seconds,
            **statistics(outcome, self.pool.labels(), selected),
        }
        self.ledger.add(row, chosen.indices, chosen.scores, dict(chosen.columns))
        if self.args.should_save:
            self.ledger.save(self._run_dir)
        logged = {"size": row["size"], "mean_score": row["mean_score"], "coverage_radius": row["coverage_radius"]}
        if (balance := row["class_balance"]) is not None:
            logged["class_balance"] = evenness(list(balance.values()), self.model.config.num_labels)
        logged |= {f"{name}_seconds": seconds for name, seconds in row["seconds"].items()}
        self.log({f"round/{name}": value for name, value in logged.items() if value is not None})
        self._show_round(number, outcome)

    def _show_round(self, number: int, outcome: Choice) -> None:
        """Draw the round for the trackers that show pictures, if there are any."""
        shown = number in rounds_to_show(self._rounds) and not isinstance(self.strategy, All)
        if not shown or not self.is_world_process_zero() or not self.pictures.wanted:
            return
        places = None if self._chooser.map is None else self._chooser.map.taken()
        show_round(
            self.log_picture,
            number,
            outcome.selection,
            self.ledger.selected,
            self.pool.labels(),
            class_names(self.model),
            places,
            f"Round {number}: {len(outcome.selection.indices):,} rows added, {len(self.ledger.selected):,} selected",
        )

    def _size_after(self, number: int) -> int:
        return size_after_round(number, self._rounds, self.budget)

    def _choose(self, number: int, k: int, selected: NDArray[np.int64]) -> Choice:
        return self._chooser.choose(number, k, selected)

    def _trained_on(self) -> NDArray[np.int64]:
        """The rows that an epoch may draw by now."""
        return self.ledger.selected

    # Signals

    def signals(self, dataset: Any, needs: Collection[str]) -> Signals:
        """Read `needs` (names in `tithe.models.SIGNALS`) of the tokenised `dataset` from the model.

        All processes must call it; the arrays, in row order, come out on process 0, the others get none.
        """
        return self.read_with(self.model, dataset, needs) if needs else {}

    def read_with(self, model: nn.Module, dataset: Any, needs: Collection[str]) -> Signals:
        """As `signals`, of any model with the inputs of the one in training."""
        dataset, options = self._reading(dataset)
        return read_signals(model, dataset, needs, **options, mc_seed=self.args.seed + self.state.global_step)

    def _read_shard(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows of the pool that this process reads, and their embeddings."""
        dataset, options = self._reading(self.train_dataset)
        rows, found = read_shard(self.model, dataset, {"embeddings"}, **options)
        return rows, found["embeddings"]

    def _reading(self, dataset: Any) -> tuple[Any, dict[str, Any]]:
        """`dataset` with the columns that the model takes, and the options of `read_signals` for it."""
        if dataset is self.train_dataset:
            lengths = self.pool.reading_lengths()
        else:
            lengths = reading_lengths(dataset, self.args.length_column_name, plain_model(self.model).main_input_name)
        collate = self.data_collator
        if hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, description="scoring")
        else:
            collate = self._get_collator_with_removed_columns(collate, description="scoring")
        return dataset, {
            "collate": collate,
            "lengths": lengths,
            "batch_size": self.args.eval_batch_size,
            "prepare": self._prepare_for_reading,
            "process_index": self.args.process_index,
            "num_processes": self.args.world_size,
            "progress": self.progress,
        }

    def _prepare_for_reading(self, batch: Any) -> Any:
        """On the model's device, its labels under the name that `read_signals` knows them by."""
        batch, names = self._prepare_inputs(batch), self.args.label_names or ()
        if len(names) == 1 and names[0] in batch and "labels" not in batch:
            batch = {("labels" if name == names[0] else name): value for name, value in batch.items()}
        return batch

    def progress(self, batches: Iterable[Any], total: int) -> Iterable[Any]:
        """A progress bar over `batches`, where the arguments and the process allow one."""
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
        if isinstance(sampler := get_sampler(dataloader), RoundSampler):
            return len(sampler)
        return super().num_examples(dataloader)

    def _before_training(self, checkpoint: Path | None) -> None:
        super()._before_training(checkpoint)
        if self.train_dataset is None:
            return
        self._chooser = self._make_chooser()
        self.ledger = Ledger(self._terms())
        if checkpoint is not None:
            found = Ledger.load(checkpoint)
            found.check_terms(self.ledger.terms, checkpoint)
            self.ledger = found

    def _write_to_checkpoint(self, folder: Path) -> None:
        super()._write_to_checkpoint(folder)
        self.ledger.save(folder)

    # The card

    def card_sections(self) -> list[Section]:
        """As the parent's, with what each round chose."""
        return [*super().card_sections(), *selection_section(self)]

    def card_tags(self) -> list[str]:
        return [*super().card_tags(), "data-selection"]

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
