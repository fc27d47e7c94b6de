"""Active learning and distillation in one training run: a pool without labels, teachers, and an oracle to ask."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..evaluation import atomic_path, write_atomic
from ..models import plain_model
from ..selection import All, Strategy, get_strategy
from .answer_book import AnswerBook
from .checkpoints import is_finished
from .choosing import Choice
from .distillation import DistillationConfig, DistillationTrainer
from .distillation_tasks import task_of
from .hidden_labels import LabelledRows, PartlyLabelled, hide_labels, label_column
from .oracles import Answer, ColumnOracle, LabelsWanted, Oracle, Query, ask
from .pool_data import UNKNOWN
from .round_selection import RoundSelectionConfig, RoundSelectionTrainer
from .rounds import round_of_epoch
from .row_numbers import NumberedRows
from .sampler import LoopSampler
from .soft_targets import LARGE_VOCABULARY
from .stopping import StoppingRules, cohen_kappa
from .waiting import load_waiting, save_waiting


STATE_NAME = "expert_loop.json"
WEIGHTS_NAME = "initial_weights.safetensors"
_STARTS = ("initial", "warm")
_TASKS = ("sequence classification", "multiple choice")


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


class _IterationCallback(TrainerCallback):
    """At the end of each iteration: evaluate, look whether to stop, write a checkpoint."""

    def __init__(self, trainer: "ExpertLoopTrainer") -> None:
        self._trainer = trainer

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = self._trainer
        if not trainer.iteration_ends:
            return
        control.should_evaluate = trainer.eval_dataset is not None
        control.should_save = args.save_strategy != "no"
        trainer.compare_predictions()
        if trainer.stopping.stopped:
            control.should_training_stop = True

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: Mapping[str, float], **kwargs: Any
    ) -> None:
        trainer = self._trainer
        of_validation = any(name.startswith("eval_") for name in metrics)
        if trainer.args.plateau_patience is None or not of_validation or not trainer.is_in_train:
            return
        if trainer.iteration_ends:
            trainer.stopping.see_score(trainer.score_of(metrics))
            if trainer.stopping.stopped:
                control.should_training_stop = True


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
        **trainer_kwargs: Any,
    ) -> None:
        args = ExpertLoopConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, ExpertLoopConfig):
            raise TypeError(f"`args` must be an `ExpertLoopConfig`, got `{type(args).__name__}`")
        self._label_column = label_column(train_dataset)
        pool, hidden = hide_labels(train_dataset)
        if pool is not None:
            self.oracle = _checked_oracle(oracle, hidden)
            self.answers = AnswerBook(len(pool))
        self._begun = -1
        self._waiting: tuple[int, Choice] | None = None
        self._before: NDArray[np.int64] | None = None
        super().__init__(model, args, data_collator, pool, *trainer_args, **trainer_kwargs)
        self.stopping = self._rules()
        if pool is not None:
            self._check_loop()
        self.add_callback(_IterationCallback(self))

    def _check_loop(self) -> None:
        args, task = self.args, task_of(self.model)
        if task not in _TASKS:
            raise ValueError(f"the expert loop is for {' and '.join(_TASKS)}, not {task}")
        if task == "multiple choice" and args.proxy is not None:
            raise ValueError("`proxy` must be None for multiple choice: which of a row's choices is right is no class")
        check_query_strategy(self.strategy, self._sources.scored_by)
        missing = [name for name in self.oracle.shows if name not in self.pool.columns]
        if missing:
            raise ValueError(f"the oracle wants to see {missing}; `train_dataset` has {self.pool.columns}")
        if self._teaching is None and (self.oracle.asks_teachers or args.unlabelled_share):
            what = "the oracle asks them" if self.oracle.asks_teachers else "`unlabelled_share` is above 0"
            raise ValueError(f"there are no `teachers`, and {what}")
        if self._teaching is not None and self._teaching.targets.kept(args.teacher_top_k) is not None:
            raise ValueError(f"`teacher_top_k` must be None, and the labels at most {LARGE_VOCABULARY}")
        if args.iteration_start == "initial" and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise ValueError("`iteration_start` must be `warm` where the weights are sharded (DeepSpeed, FSDP)")

    def _rules(self) -> StoppingRules:
        args = self.args
        if args.plateau_patience is not None and self.eval_dataset is None:
            raise ValueError("`plateau_patience` needs an `eval_dataset` to score the model on")
        name = args.metric_for_best_model or "loss"
        greater = not name.endswith("loss") if args.greater_is_better is None else args.greater_is_better
        return StoppingRules(
            args.plateau_patience, args.plateau_delta, greater, args.stable_agreement, args.stable_window
        )

    @property
    def caches_teacher(self) -> bool:
        """Always: a query tells what the teachers think, and rows are read again in every iteration."""
        return True

    # The pool

    def _make_pool(self) -> PartlyLabelled:
        args = self.args
        return PartlyLabelled(self.train_dataset, self.answers.labels, args.pool_text_column, args.length_column_name)

    def numbered_rows(self) -> NumberedRows:
        return NumberedRows(self._labelled_rows())

    def _labelled_rows(self) -> LabelledRows:
        dataset = self.train_dataset
        if hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, description="training")
        column = self._label_column or label_column(self.eval_dataset) or "labels"
        return LabelledRows(dataset, self.answers.labels, column)

    def _get_dataloader(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_training") and self._teaching is None:
            dataset = self._labelled_rows()
        return super()._get_dataloader(dataset, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LoopSampler:
        sampler = super()._get_train_sampler(train_dataset)
        self._sampler = LoopSampler.over(sampler, round(self.args.unlabelled_share * self.budget))
        return self._sampler

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
        """Whether the epoch that is under way, or has just ended, is the last of its iteration."""
        return (self._epoch + 1) % self._epochs_each == 0

    def plan_rounds(self, epochs: int) -> None:
        super().plan_rounds(epochs)
        iterations = self.args.max_iterations + 1
        if epochs % iterations:
            raise ValueError(
                f"`num_train_epochs` {epochs} cannot be divided evenly over {iterations} iterations: set "
                "`epochs_per_iteration`"
            )
        self._rounds, self._epochs_each = iterations, epochs // iterations

    def _terms(self) -> dict[str, Any]:
        args = self.args
        loop = {name: getattr(args, name) for name in ("initial_pool_size", "iteration_start", "unlabelled_share")}
        return super()._terms() | loop

    def begin_epoch(self, epoch: int) -> None:
        """Ask for the labels of the iteration that begins with `epoch`, if one does, and begin it."""
        self._epoch = epoch
        super().begin_epoch(epoch)
        self._sampler.set_unlabelled(np.flatnonzero(self.answers.labels == UNKNOWN))
        if self._begun < self.iteration:
            self._begun = self.iteration
            if self._begun > 0 and self.args.iteration_start == "initial":
                self._start_over()

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
        if self._waiting is not None and self._waiting[0] == number:
            choice = self._waiting[1]
        else:
            choice = super()._choose(number, k, selected)
        self._ask(number, choice)
        self._waiting = None
        return choice

    def _select(self, number: int, epoch: int) -> None:
        super()._select(number, epoch)
        self.ledger.rows[-1] |= {"labelled": len(self.answers.labelled), "by": self.answers.count_by()}
        if self.args.should_save:
            self.ledger.save(self._run_dir)
            self.answers.save(self._run_dir)

    # Questions

    def _ask(self, number: int, choice: Choice) -> None:
        """Enter the answers to a query; all processes call it, process 0 asks."""
        outcome: list[Any] = [None]
        if self.args.process_index == 0:
            try:
                outcome = [ask(self.oracle, self._query(number, choice.selection.indices))]
            except Exception as error:  # for all to raise: process 0 alone would leave the others waiting
                outcome = [error]
        broadcast_object_list(outcome)
        if isinstance(outcome[0], LabelsWanted):
            self._wait(number, choice)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        answers: dict[int, Answer] = outcome[0]
        self.answers.enter(number, choice.selection.indices.tolist(), answers)

    def _query(self, number: int, rows: NDArray[np.int64]) -> Query:
        shown = [{name: self.train_dataset[row][name] for name in self.oracle.shows} for row in rows.tolist()]
        weights = [teacher.weight for teacher in self._teaching.targets.teachers] if self._teaching else []
        shares = [weight / sum(weights) for weight in weights]
        return Query(number, rows, self.answer_names, shown, self.opinions(rows), shares)

    def opinions(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """(teachers, rows, classes): what each teacher thinks of rows of the pool; None without teachers.

        Once training has begun: before, the teachers have read nothing.
        """
        return None if self._teaching is None else self._teaching.targets.opinions(rows).numpy()

    @property
    def answer_names(self) -> list[str]:
        """What a label is called; in multiple choice the number of the choice, from 0."""
        if task_of(self.model) == "multiple choice":
            return [str(number) for number in range(len(self.train_dataset[0]["input_ids"]))]
        config = plain_model(self.model).config
        return [str(config.id2label[i]) for i in range(config.num_labels)]

    def _wait(self, number: int, choice: Choice) -> None:
        """Write a checkpoint that knows the query, for whoever starts the run again."""
        folder = self._run_dir / f"checkpoint-{self.state.global_step}"
        self._waiting = number, choice
        if not is_finished(folder):
            self._save_checkpoint(self.model, None)
        elif self.args.should_save:
            save_waiting(folder, self.ledger.terms, self._waiting)
        self.accelerator.wait_for_everyone()

    # From the initial weights

    def _own_weights(self) -> dict[str, torch.Tensor]:
        """What training changes: by name, tied weights once."""
        found = {name: p.data for name, p in self.model.named_parameters() if p.requires_grad}
        return found | {name: buffer.data for name, buffer in self.model.named_buffers()}

    def _start_over(self) -> None:
        kept = load_file(self._run_dir / WEIGHTS_NAME)
        for name, value in self._own_weights().items():
            value.copy_(kept[name])
        self.optimizer.state.clear()

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """As the parents', over each iteration anew where each starts from the initial weights."""
        if self.args.iteration_start == "warm" or self.lr_scheduler is not None or self.train_dataset is None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps = num_training_steps // (self.args.max_iterations + 1)
        schedule: Any = super().create_scheduler(steps, optimizer)
        if not isinstance(schedule, LambdaLR):
            raise ValueError(
                f"`lr_scheduler_type` {self.args.lr_scheduler_type} does not follow from the step alone, so no "
                "iteration can begin it anew: choose linear, cosine or constant, or `iteration_start` warm"
            )
        schedule.lr_lambdas = [_every(steps, function) for function in schedule.lr_lambdas]
        return schedule

    # When to stop

    def compare_predictions(self) -> None:
        """At the end of an iteration: how far the predictions on the stop set agree with those of the one before."""
        if self.args.stable_agreement is None:
            return
        rng = np.random.default_rng(self.args.seed)
        size = min(self.args.stop_set_size, len(self.pool))
        rows = np.sort(rng.choice(len(self.pool), size, replace=False))
        dataset = self.train_dataset
        part = dataset.select(rows) if hasattr(dataset, "select") else torch.utils.data.Subset(dataset, rows.tolist())
        found = self.signals(part, {"probabilities"})
        outcome: list[Any] = [found["probabilities"].argmax(1) if found else None]
        broadcast_object_list(outcome)
        if self._before is not None:
            self.stopping.see_agreement(cohen_kappa(self._before, outcome[0]))
        self._before = outcome[0]

    def score_of(self, metrics: Mapping[str, float]) -> float:
        """The validation score that the plateau is of."""
        name = self.args.metric_for_best_model or "loss"
        name = name if name.startswith("eval_") else f"eval_{name}"
        if name not in metrics:
            raise KeyError(f"`metric_for_best_model` {name} is not among the metrics {sorted(metrics)}")
        return float(metrics[name])

    def _has_stopped(self) -> bool:
        return super()._has_stopped() or self.stopping.stopped is not None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the parents', with the iteration and the number of labels beside every evaluation while training."""
        if self.is_in_train and any(name.startswith(("eval_", "test_")) for name in logs):
            logs |= {"iteration": self.iteration, "labels": len(self.answers.labelled)}
        super().log(logs, start_time)

    # Checkpoints

    def _before_training(self, checkpoint: Path | None) -> None:
        self.stopping, self._waiting, self._begun, self._before = self._rules(), None, -1, None
        if self.train_dataset is not None:
            self.answers.clear()
            if checkpoint is not None:
                self._load_loop(checkpoint)
            elif self.args.should_save and self.args.iteration_start == "initial":
                with atomic_path(self._run_dir / WEIGHTS_NAME) as path:
                    save_file({n: v.cpu().contiguous().clone() for n, v in self._own_weights().items()}, path)
            self.accelerator.wait_for_everyone()
        super()._before_training(checkpoint)

    def _load_loop(self, checkpoint: Path) -> None:
        if not (checkpoint / STATE_NAME).is_file():
            raise ValueError(f"{checkpoint} has no {STATE_NAME}: it was not written by `ExpertLoopTrainer`")
        if self.args.iteration_start == "initial" and not (self._run_dir / WEIGHTS_NAME).is_file():
            raise ValueError(f"{self._run_dir} has no {WEIGHTS_NAME}, from which each iteration starts: start anew")
        state = json.loads((checkpoint / STATE_NAME).read_text())
        self.answers.load(checkpoint)
        self._begun = state["begun"]
        self._before = None if state["before"] is None else np.array(state["before"])
        self.stopping.load_state(state["stopping"])
        self._waiting = load_waiting(checkpoint)

    def _write_to_checkpoint(self, folder: Path) -> None:
        super()._write_to_checkpoint(folder)
        before = None if self._before is None else self._before.tolist()
        state = {"begun": self._begun, "before": before, "stopping": self.stopping.state()}
        write_atomic(folder / STATE_NAME, json.dumps(state))
        self.answers.save(folder)
        if self._waiting is not None:
            save_waiting(folder, self.ledger.terms, self._waiting)


def _checked_oracle(oracle: Oracle | None, hidden: NDArray[np.int64] | None) -> Oracle:
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


def _every(steps: int, function: Callable[[int], float]) -> Callable[[int], float]:
    """`function` of the step within stretches of `steps`."""
    return lambda step: function(step % steps)
