"""Active learning and distillation in one training run: a pool without labels, teachers, and an oracle to ask."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from ..evaluation import Section, write_atomic
from ..models import plain_model
from ..selection import get_strategy
from .answer_book import AnswerBook
from .card_sections import SELECTION, loop_section
from .checkpoints import is_finished
from .choosing import Choice
from .distillation import DistillationConfig, DistillationTrainer
from .distillation_tasks import task_of
from .fresh_starts import begin_anew_every, check_initial, save_initial, start_over
from .given_labels import given_answers, given_choice
from .hidden_labels import LabelledRows, PartlyLabelled, hide_labels, label_column
from .iterations import IterationCallback, Progress
from .oracles import Answer, LabelsWanted, Oracle
from .pool_data import UNKNOWN
from .questions import check_loop, check_query_strategy, checked_oracle, put
from .round_selection import RoundSelectionConfig, RoundSelectionTrainer
from .rounds import round_of_epoch
from .row_numbers import NumberedRows
from .sampler import LoopSampler
from .stopping import StoppingRules
from .waiting import load_waiting, save_waiting


STATE_NAME = "expert_loop.json"
_STARTS = ("initial", "warm")


@dataclass
class ExpertLoopConfig(RoundSelectionConfig, DistillationConfig):
    """The arguments of `ExpertLoopTrainer`: those of its parents, and how the loop goes.

    `budget`, `rounds`, `strategy` and, with `epochs_per_iteration`, `num_train_epochs` follow from the loop's own.

    Raises:
        ValueError: a value is out of range, or two contradict each other.
    """

    # The loop
    initial_pool_size: int = field(
        default=100, metadata={"help": "How many labels to ask for before the first iteration."}
    )
    query_size: int = field(default=50, metadata={"help": "How many labels to ask for before each further iteration."})
    max_iterations: int = field(default=10, metadata={"help": "How many such queries there may be after the first."})
    query_strategy: str = field(
        default="margin",
        metadata={"help": "Which strategy chooses what to ask for: a name in `tithe.selection.STRATEGIES`."},
    )
    epochs_per_iteration: int | None = field(
        default=None,
        metadata={
            "help": "Epochs of each iteration, each of as many rows as will be labelled in the end. Default: "
            "`num_train_epochs` divided evenly over all iterations."
        },
    )
    iteration_start: str = field(
        default="initial",
        metadata={
            "help": "What an iteration trains: the `initial` weights, with a learning rate schedule of its own, or "
            "`warm`, on from the iteration before, with one schedule for all."
        },
    )
    unlabelled_share: float = field(
        default=0.0,
        metadata={"help": "Rows without a label that the student learns from by its teachers, per row with one."},
    )
    # When it ends early
    plateau_patience: int | None = field(
        default=None,
        metadata={"help": "End after this many iterations without a better `metric_for_best_model` on validation."},
    )
    plateau_delta: float = field(default=0.0, metadata={"help": "By how much it must be better to count."})
    stable_agreement: float | None = field(
        default=None,
        metadata={
            "help": "End once predictions change this little: mean of Cohen's kappa between successive iterations "
            "over the last `stable_window`, such as 0.99."
        },
    )
    stable_window: int = field(default=3, metadata={"help": "Over how many iterations that mean is taken."})
    stop_set_size: int = field(default=2000, metadata={"help": "On how many rows of the pool it is measured."})

    def __post_init__(self) -> None:
        for name, least in (("initial_pool_size", 1), ("query_size", 1), ("max_iterations", 0), ("stable_window", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        if self.iteration_start not in _STARTS:
            raise ValueError(f"`iteration_start` must be `initial` or `warm`, got {self.iteration_start!r}")
        if not 0 <= self.unlabelled_share < float("inf"):
            raise ValueError(f"`unlabelled_share` must be at least 0, got {self.unlabelled_share}")
        if self.plateau_patience is not None and self.plateau_patience < 1:
            raise ValueError(f"`plateau_patience` must be at least 1, got {self.plateau_patience}")
        if self.stable_agreement is not None and not 0 < self.stable_agreement <= 1:
            raise ValueError(f"`stable_agreement` must be above 0 and at most 1, got {self.stable_agreement}")
        self._follow()
        super().__post_init__()
        check_query_strategy(get_strategy(self.strategy, **self.hyperparameters), self.scoring_model)
        if self.needs_live_teacher:
            raise ValueError("`hidden_weight` and `attention_weight` must be 0: the loop reads its teachers once")

    def starting_with(self, rows: int) -> "ExpertLoopConfig":
        """A copy with `initial_pool_size` set to `rows`, and all that follows from it."""
        args = copy.copy(self)
        args.initial_pool_size = rows
        args._follow()
        return args

    def epochs_of_iteration(self, epochs: int) -> int:
        """How many of `epochs` an iteration has.

        Raises:
            ValueError: they cannot be divided evenly over the iterations.
        """
        iterations = self.max_iterations + 1
        if epochs % iterations:
            raise ValueError(
                f"`num_train_epochs` {epochs} cannot be divided evenly over {iterations} iterations: set "
                "`epochs_per_iteration`"
            )
        return epochs // iterations

    def _follow(self) -> None:
        """Set what follows from the loop's own arguments."""
        iterations = self.max_iterations + 1
        self.strategy = self.query_strategy
        self.budget = self.initial_pool_size + self.max_iterations * self.query_size
        self.budget = float(self.budget) if self.budget > 1 else 1.0
        self.rounds = iterations
        if self.epochs_per_iteration is not None:
            if self.epochs_per_iteration < 1:
                raise ValueError(f"`epochs_per_iteration` must be at least 1, got {self.epochs_per_iteration}")
            self.num_train_epochs = float(self.epochs_per_iteration * iterations)


class ExpertLoopTrainer(RoundSelectionTrainer, DistillationTrainer):
    """A `Trainer` that asks for labels while it trains, and learns from teachers beside them.

    `train_dataset` is a pool whose labels, if it has any, are put out of reach. Iteration 0 asks the oracle for
    `initial_pool_size` labels, each further one for `query_size` more, of the rows that `query_strategy` wants most
    of the model as it is by then; a row is asked for once. All iterations have the same number of steps: an epoch
    draws as many labelled rows as there will be in the end, each as often as any other to within one, and
    `unlabelled_share` times as many without a label. The loss is that of `DistillationTrainer`, without teachers that
    of a plain `Trainer`. For sequence classification and multiple choice.

    The teachers read the pool once, before training; a query shows the oracle what each thinks of its rows. At the end
    of each iteration the model is evaluated and a checkpoint written. Where the oracle waits for a person, `train`
    writes a checkpoint and raises `LabelsWanted`; `train(resume_from_checkpoint=True)` goes on from there.

    Args:
        model, args, …: as for its parents; `args` is an `ExpertLoopConfig`.
        oracle: gives labels; by default the labels of `train_dataset` itself, a row at a time as they are asked for.
        labelled_rows: dataset indices of the rows whose labels are known from the start, in `train_dataset`: they make
            iteration 0 in place of a query, and `initial_pool_size` is then their number. Labels of other rows are not
            read, and may be negative.

    Attributes:
        answers: which labels were given, by whom and when (`answers.jsonl`).
        ledger: which rows each iteration asked for, and why.
        stopping: what is watched to end the loop early; `stopping.stopped` says why it did.

    Raises:
        TypeError: `args`, `oracle` or the pool is of a type that does not fit.
        ValueError: the pool is too small, the strategy reads labels that nobody has been asked for, or there is no
            oracle for a pool without labels; before anything is trained.
        LabelsWanted: from `train`: the message says where to give them.

    Example:
        >>> from tithe.trainers import ExpertLoopConfig, ExpertLoopTrainer, FileOracle
        >>> args = ExpertLoopConfig("out", query_strategy="entropy", epochs_per_iteration=5)  # doctest: +SKIP
        >>> trainer = ExpertLoopTrainer(
        ...     student, args, train_dataset=pool, teachers=experts, oracle=FileOracle("out/queries")
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    args: ExpertLoopConfig

    def __init__(
        self,
        model: nn.Module | None = None,
        args: ExpertLoopConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        *trainer_args: Any,
        oracle: Oracle | None = None,
        labelled_rows: Sequence[int] | NDArray[np.int64] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        args = ExpertLoopConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, ExpertLoopConfig):
            raise TypeError(f"`args` must be an `ExpertLoopConfig`, got `{type(args).__name__}`")
        names = args.label_names or ()
        self._label_column = label_column(train_dataset, names)
        pool, hidden = hide_labels(train_dataset, names)
        self._given: dict[int, Answer] = {}
        if pool is not None:
            self.oracle = checked_oracle(oracle, hidden)
            self.answers = AnswerBook(len(pool))
        if labelled_rows is not None:
            self._given = given_answers(labelled_rows, hidden)
            args = args.starting_with(len(self._given))
        self._epoch, self._epoch_ended = 0, False
        self._begun = -1  # the last iteration that has begun
        self._waiting: tuple[int, Choice] | None = None  # an iteration's query, until it is answered
        super().__init__(model, args, data_collator, pool, *trainer_args, **trainer_kwargs)
        self.progress_made = Progress(self)
        if pool is not None:
            check_loop(self, self._sources.scored_by, self._targets)
        self.add_callback(IterationCallback(self))

    @property
    def stopping(self) -> StoppingRules:
        """What is watched to end the loop early; `stopped` says why it did."""
        return self.progress_made.rules

    @property
    def _targets(self) -> Any:
        return None if self._teaching is None else self._teaching.targets

    @property
    def caches_teacher(self) -> bool:
        """Always: a query tells what the teachers think, and rows are read again in every iteration."""
        return True

    # The pool

    def _make_pool(self) -> PartlyLabelled:
        args, ids = self.args, plain_model(self.model).main_input_name
        columns = args.pool_text_column, args.length_column_name, ids
        return PartlyLabelled(self.train_dataset, self.answers.labels, *columns)

    def numbered_rows(self) -> NumberedRows:
        return NumberedRows(self._labelled_rows())

    def _labelled_rows(self) -> LabelledRows:
        dataset = self.train_dataset
        if hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, description="training")
        names = self.args.label_names or ()
        column = self._label_column or label_column(self.eval_dataset, names) or next(iter(names), "labels")
        return LabelledRows(dataset, self.answers.labels, column)

    def _reading(self, dataset: Any) -> tuple[Any, dict[str, Any]]:
        """As the parent's; rows of the pool have a label, -100 where it is not known: a collator may ask for one."""
        rows, options = super()._reading(dataset)
        return (self._labelled_rows() if dataset is self.train_dataset else rows), options

    def _get_dataloader(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_training") and self._teaching is None:
            dataset = self._labelled_rows()
        return super()._get_dataloader(dataset, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LoopSampler:
        plain = super()._get_train_sampler(train_dataset)
        self._loop_sampler = LoopSampler.over(plain, round(self.args.unlabelled_share * self.budget))
        self._sampler = self._loop_sampler
        return self._loop_sampler

    # Iterations

    @property
    def budget(self) -> int:
        """The number of rows that will have been asked for in the end."""
        args, rows = self.args, len(self.pool)
        wanted = args.initial_pool_size + args.max_iterations * args.query_size
        if wanted > rows:
            raise ValueError(
                f"`initial_pool_size` {args.initial_pool_size} and {args.max_iterations} queries of `query_size` "
                f"{args.query_size} are {wanted} rows; the pool has {rows}"
            )
        return wanted

    @property
    def iteration(self) -> int:
        """The number of the iteration that is under way, from 0."""
        return len(self.ledger.rows) - 1

    @property
    def iteration_ends(self) -> bool:
        """Whether an iteration has just ended, and the next one not begun: in its last epoch that is not so yet."""
        return self._epoch_ended and (self._epoch + 1) % self._epochs_each == 0

    def end_epoch(self) -> None:
        """Told at the end of each epoch, before it is evaluated."""
        self._epoch_ended = True

    def plan_rounds(self, epochs: int) -> None:
        super().plan_rounds(epochs)
        self._rounds = self.args.max_iterations + 1
        self._epochs_each = self.args.epochs_of_iteration(epochs)

    def _terms(self) -> dict[str, Any]:
        args = self.args
        loop = {name: getattr(args, name) for name in ("initial_pool_size", "iteration_start", "unlabelled_share")}
        return super()._terms() | loop

    def begin_epoch(self, epoch: int) -> None:
        """Ask for the labels of the iteration that begins with `epoch`, if one does, and begin it."""
        self._epoch, self._epoch_ended = epoch, False
        super().begin_epoch(epoch)
        self._loop_sampler.set_unlabelled(np.flatnonzero(self.answers.labels == UNKNOWN))
        if self._begun < self.iteration:
            self._begun = self.iteration
            if self._begun > 0 and self.args.iteration_start == "initial":
                start_over(self.model, self.optimizer, self._run_dir)

    def _last_round(self, epoch: int) -> int:
        return round_of_epoch(epoch, self._rounds, self._epochs)

    def _size_after(self, number: int) -> int:
        return self.args.initial_pool_size + number * self.args.query_size

    def _trained_on(self) -> NDArray[np.int64]:
        rows = self.answers.labelled
        if not len(rows):
            raise ValueError(f"{len(self.ledger.selected)} rows were asked for, and not one could be labelled")
        return rows

    def _choose(self, number: int, k: int, selected: NDArray[np.int64]) -> Choice:
        if number == 0 and self._given:
            choice = given_choice(self._given, len(self.pool))
            self.answers.enter(0, choice.selection.indices.tolist(), self._given)
            return choice
        if self._waiting is not None and self._waiting[0] == number:
            choice = self._waiting[1]
        else:
            choice = super()._choose(number, k, selected)
        rows = choice.selection.indices
        try:
            self.answers.enter(number, rows.tolist(), put(self, number, rows, self._targets))
        except LabelsWanted:
            self._wait(number, choice)
            raise
        self._waiting = None
        return choice

    def _wait(self, number: int, choice: Choice) -> None:
        """Write a checkpoint that knows the query, for whoever starts the run again."""
        folder = self._run_dir / f"checkpoint-{self.state.global_step}"
        self._waiting = number, choice
        if not is_finished(folder):
            self._save_checkpoint(self.model, None)
        elif self.args.should_save:
            save_waiting(folder, self.ledger.terms, self._waiting)
        self.accelerator.wait_for_everyone()

    def _select(self, number: int, epoch: int) -> None:
        super()._select(number, epoch)
        self.ledger.rows[-1] |= {"labelled": len(self.answers.labelled), "by": self.answers.count_by()}
        if self.args.should_save:
            self.ledger.save(self._run_dir)
            self.answers.save(self._run_dir)

    def opinions(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """(teachers, rows, classes): what each teacher thinks of rows of the pool; None without teachers.

        Once training has begun: before, the teachers have read nothing.
        """
        return None if self._targets is None else self._targets.opinions(rows).numpy()

    @property
    def answer_names(self) -> list[str]:
        """What a label is called; in multiple choice the number of the choice, from 0."""
        if task_of(self.model, declared=self.args.task) == "multiple choice":
            return [str(number) for number in range(len(self.train_dataset[0]["input_ids"]))]
        config: Any = plain_model(self.model).config
        return [str(config.id2label[i]) for i in range(config.num_labels)]

    # What the parents are told

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """As the parents', over each iteration anew where each starts from the initial weights."""
        if self.args.iteration_start == "warm" or self.lr_scheduler is not None or self.train_dataset is None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps = num_training_steps // (self.args.max_iterations + 1)
        return begin_anew_every(super().create_scheduler(steps, optimizer), steps)

    def _has_stopped(self) -> bool:
        return super()._has_stopped() or self.stopping.stopped is not None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the parents', with the iteration and the number of labels beside every evaluation while training."""
        if self.is_in_train and any(name.startswith(("eval_", "test_")) for name in logs):
            logs |= {"iteration": self.iteration, "labels": len(self.answers.labelled)}
        super().log(logs, start_time)

    # The card

    def card_sections(self) -> list[Section]:
        """As the parents', with what was asked for in place of what was selected."""
        return [part for part in super().card_sections() if part.title != SELECTION] + loop_section(self)

    def card_tags(self) -> list[str]:
        return [*(tag for tag in super().card_tags() if tag != "data-selection"), "active-learning"]

    # Checkpoints

    def _before_training(self, checkpoint: Path | None) -> None:
        self.progress_made, self._waiting, self._begun = Progress(self), None, -1
        if self.train_dataset is not None:
            self.answers.clear()
            if checkpoint is not None:
                self._load_loop(checkpoint)
            elif self.args.should_save and self.args.iteration_start == "initial":
                save_initial(self.model, self._run_dir)
            self.accelerator.wait_for_everyone()
        super()._before_training(checkpoint)

    def _load_loop(self, checkpoint: Path) -> None:
        if not (checkpoint / STATE_NAME).is_file():
            raise ValueError(f"{checkpoint} has no {STATE_NAME}: it was not written by `ExpertLoopTrainer`")
        if self.args.iteration_start == "initial":
            check_initial(self._run_dir)
        state = json.loads((checkpoint / STATE_NAME).read_text())
        self.answers.load(checkpoint)
        self._begun = state["begun"]
        self.progress_made.load_state(state["progress"])
        self._waiting = load_waiting(checkpoint)

    def _write_to_checkpoint(self, folder: Path) -> None:
        super()._write_to_checkpoint(folder)
        state = {"begun": self._begun, "progress": self.progress_made.state()}
        write_atomic(folder / STATE_NAME, json.dumps(state))
        self.answers.save(folder)
        if self._waiting is not None:
            save_waiting(folder, self.ledger.terms, self._waiting)
