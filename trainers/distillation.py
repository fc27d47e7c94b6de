"""A small student learns from one teacher or an ensemble, live or run once and cached."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..evaluation import Section
from ..models import require_extra
from .card_sections import described, teachers_section
from .distillation_losses import Average
from .distillation_tasks import TASKS
from .reliable import ReliableTrainer
from .required_extras import ExtrasArguments
from .row_numbers import ROWS, KeepsRowNumbers, NumberedRows
from .soft_targets import LARGE_VOCABULARY
from .teachers import Teacher, as_teachers
from .teaching import Teaching


_AVERAGES = ("probabilities", "logits")


@dataclass
class DistillationConfig(ExtrasArguments):
    """The arguments of `DistillationTrainer`: those of `TrainingArguments`, and how the student learns.

    Raises:
        ImportError: it asks for DeepSpeed, which is not installed.
        ValueError: a value is out of range, or two contradict each other.
    """

    # The model
    task: str | None = field(
        default=None,
        metadata={
            "help": "What a model of a class of your own is for, where the class's name does not say so as those of "
            f"Transformers do: {', '.join(TASKS)}."
        },
    )
    # The loss
    temperature: float = field(
        default=2.0, metadata={"help": "Divides the logits of teachers and student in the soft loss; above 0."}
    )
    soft_weight: float = field(
        default=0.5, metadata={"help": "Weight of the soft loss, T² · KL(teachers ‖ student), per active item."}
    )
    hard_weight: float = field(
        default=0.5, metadata={"help": "Weight of the cross-entropy with the labels, per active item."}
    )
    hidden_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the squared error between hidden states, per token. The teacher then runs live."},
    )
    attention_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the squared error between attention maps, per token; the teacher runs live."},
    )
    layer_map: dict[str, int] | str | None = field(
        default=None,
        metadata={
            "help": "Which teacher layer each student layer follows in these two, as JSON counted from 1, 0 for the "
            'embeddings: {"1": 2, "2": 4}. Default: evenly spaced.'
        },
    )
    fused_loss: bool | None = field(
        default=None,
        metadata={
            "help": "Compute the loss at the language model's head, a chunk of tokens at a time, without its logits. "
            f"Default: where the vocabulary is above {LARGE_VOCABULARY} and the head allows it."
        },
    )
    # The teachers
    teacher_weights: list[float] | None = field(
        default=None, metadata={"help": "Weights of the teachers in the ensemble. Default: their own, else equal."}
    )
    teacher_average: Average = field(
        default="probabilities", metadata={"help": "What of the teachers is averaged: `probabilities` or `logits`."}
    )
    teacher_dtype: str | None = field(
        default=None, metadata={"help": "Precision in which teachers are loaded by name: `bfloat16`, `float32`, …"}
    )
    teacher_load_in_8bit: bool = field(
        default=False, metadata={"help": "Load teachers by name in 8-bit (needs `tithe[quantization]`)."}
    )
    teacher_text_column: str = field(
        default="text", metadata={"help": "Column with the texts, for teachers with another tokenizer."}
    )
    teacher_text_pair_column: str | None = field(
        default=None, metadata={"help": "Column with the second text of each row, for such teachers."}
    )
    teacher_choices_column: str = field(
        default="choices", metadata={"help": "Column with each row's choices, for such teachers in multiple choice."}
    )
    teacher_words_column: str = field(
        default="words", metadata={"help": "Column with the words, for such teachers in token classification."}
    )
    teacher_max_length: int | None = field(
        default=None, metadata={"help": "Tokens that such teachers read of a row. Default: what they can."}
    )
    # Their cache
    cache_teacher: bool | None = field(
        default=None,
        metadata={
            "help": "Run the teachers once and keep what they say on disk. Default: where there is more than one "
            "epoch and no hidden-state or attention loss."
        },
    )
    teacher_cache_dir: str | None = field(
        default=None, metadata={"help": "Folder of that cache. Default: `teacher_cache` in `output_dir`."}
    )
    teacher_top_k: int | None = field(
        default=None,
        metadata={
            "help": "How many of a teacher's largest probabilities the cache keeps of each item, the rest as one "
            f"mass. Default: 64 where there are more than {LARGE_VOCABULARY} classes, else all."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not None and self.task not in TASKS:
            raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {self.task!r}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}")
        weights = {n: getattr(self, n) for n in ("soft_weight", "hard_weight", "hidden_weight", "attention_weight")}
        for name, value in weights.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be at least 0, got {value}")
        if not any(weights.values()):
            raise ValueError("`soft_weight` and `hard_weight` are both 0: there is nothing to learn")
        if self.teacher_average not in _AVERAGES:
            raise ValueError(f"`teacher_average` must be `probabilities` or `logits`, got {self.teacher_average!r}")
        if self.teacher_top_k is not None and self.teacher_top_k < 1:
            raise ValueError(f"`teacher_top_k` must be at least 1, got {self.teacher_top_k}")
        if self.teacher_dtype is not None and not isinstance(getattr(torch, self.teacher_dtype, None), torch.dtype):
            raise ValueError(f"`teacher_dtype` must name a torch dtype such as bfloat16, got {self.teacher_dtype!r}")
        if self.needs_live_teacher and self.cache_teacher:
            raise ValueError("hidden-state and attention losses need the teacher live: set `cache_teacher` to False")
        if isinstance(self.layer_map, str):
            self.layer_map = json.loads(self.layer_map)

    def check_extras(self) -> None:
        super().check_extras()
        if self.teacher_load_in_8bit:
            require_extra("bitsandbytes", "quantization", "`teacher_load_in_8bit`")

    @property
    def needs_live_teacher(self) -> bool:
        """Whether a loss reads what no cache holds."""
        return bool(self.hidden_weight or self.attention_weight)


class DistillationTrainer(ReliableTrainer):
    """A `Trainer` whose model learns from teachers as well as from labels.

    For sequence and token classification, multiple choice, seq2seq and causal language models. With active items i
    (a row, or a position whose label is not -100; of a row without labels all that its attention mask shows),
    temperature T, the teachers' averaged distribution p at T and the student's q at T,

        loss = (hard_weight · Σᵢ CEᵢ + soft_weight · T² · Σᵢ KL(pᵢ ‖ qᵢ)) / number of active items

    (Hinton et al., 1503.02531), the sums and the number over the whole accumulated batch of all processes, so that
    loss and gradient are the same in every layout. `hidden_weight` and `attention_weight` add losses between inner
    states, per token. `hard_loss` and `soft_loss` (with T², without weights) are logged; `eval_loss` is the hard loss.

    Teachers run once where there is more than one epoch (`cache_teacher`); what they say is kept in `output_dir`, and
    a run that is killed goes on from there. Without teachers it is `ReliableTrainer` step for step.

    Args:
        model, args, …: as for `Trainer`; `args` is a `DistillationConfig`.
        teachers: one or several, each a model, the name or folder of one, or a `Teacher` with weight and tokenizer.

    Raises:
        TypeError: `args` or a teacher is of the wrong type.
        ValueError: a teacher cannot teach this student; before anything is trained.

    Example:
        >>> from tithe.trainers import DistillationConfig, DistillationTrainer
        >>> args = DistillationConfig("out", temperature=2.0, num_train_epochs=5)  # doctest: +SKIP
        >>> DistillationTrainer(student, args, train_dataset=rows, teachers=teacher).train()  # doctest: +SKIP
    """

    args: DistillationConfig
    train_dataset: Any

    def __init__(
        self,
        model: nn.Module | None = None,
        args: DistillationConfig | None = None,
        *trainer_args: Any,
        teachers: str | nn.Module | Teacher | Sequence[str | nn.Module | Teacher] = (),
        **trainer_kwargs: Any,
    ) -> None:
        args = DistillationConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, DistillationConfig):
            raise TypeError(f"`args` must be a `DistillationConfig`, got `{type(args).__name__}`")
        listed = as_teachers(teachers, args.teacher_weights)
        super().__init__(model, args, *trainer_args, **trainer_kwargs)
        self.teachers_described = [described(teacher) for teacher in listed]  # they themselves may go
        self._parts: dict[str, Tensor] = {}
        self._teaching = Teaching(self, listed) if listed else None

    @property
    def caches_teacher(self) -> bool:
        """Whether the teachers run once, before training."""
        if self.args.cache_teacher is not None:
            return self.args.cache_teacher
        epochs = math.ceil(self.args.num_train_epochs) if self.args.max_steps <= 0 else math.inf
        return epochs > 1 and not self.args.needs_live_teacher

    @property
    def teacher_cache_bytes(self) -> int | None:
        """What the teachers' cache takes on disk, once there is one."""
        cache = None if self._teaching is None else self._teaching.targets.cache
        return None if cache is None else cache.size_bytes

    def _before_training(self, checkpoint: Path | None) -> None:
        super()._before_training(checkpoint)
        self._parts = {}
        if self._teaching is not None:
            self._teaching.begin(checkpoint)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`; projections that a hidden-state loss trained beside the student are gone after it."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._teaching is not None:
                self._teaching.end()

    def _write_to_checkpoint(self, folder: Path) -> None:
        super()._write_to_checkpoint(folder)
        if self._teaching is not None and self._teaching.inner is not None:
            self._teaching.inner.save(folder)

    # The card

    def card_sections(self) -> list[Section]:
        """As the parent's, with the teachers."""
        return [*super().card_sections(), *teachers_section(self)]

    def card_tags(self) -> list[str]:
        return [*super().card_tags(), *(["distillation"] if self.teachers_described else [])]

    # The data

    def numbered_rows(self) -> NumberedRows:
        """The training data as the model takes it, each row with its number."""
        dataset = self.train_dataset
        if hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, description="training")
        return NumberedRows(dataset)

    def model_columns(self) -> list[str]:
        """The columns of a row that reach a batch: what the model's `forward` takes, or all where none is removed."""
        if not self.args.remove_unused_columns:
            return self._teaching.data.columns if self._teaching is not None else []
        self._set_signature_columns_if_needed()
        return list(self._signature_columns or ())

    def collator_of(self, description: str) -> Any:
        """What makes a batch of rows, without columns that the model does not take."""
        return self._get_collator_with_removed_columns(self.data_collator, description)

    def progress(self, shards: Iterable[Any], total: int) -> Iterable[Any]:
        """A progress bar over what the teachers read, where the arguments and the process allow one."""
        hidden = self.args.disable_tqdm or not self.is_world_process_zero()
        return tqdm(shards, "Running the teachers", total, leave=False, disable=hidden)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        collate = super()._get_collator_with_removed_columns(data_collator, description)
        return collate if self._teaching is None else KeepsRowNumbers(collate)

    def _get_dataloader(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_training") and self._teaching is not None:
            dataset = self.numbered_rows()
        return super()._get_dataloader(dataset, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        if self._teaching is None:
            return super()._get_train_sampler(train_dataset)
        grouped = self.args.train_sampling_strategy == "group_by_length"
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return self._sampler_of_all(dataset, self._teaching.data.lengths() if grouped else None)

    # The loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        if self._teaching is None or not batch_samples or ROWS not in batch_samples[0]:
            return super()._get_num_items_in_batch(batch_samples, device)
        return self._teaching.count(batch_samples, device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if self._teaching is None or ROWS not in inputs:
            self.loss_is_scaled_for_ga = None
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.loss_is_scaled_for_ga = True
        loss, outputs, parts = self._teaching.loss(model, inputs, num_items_in_batch)
        if not self._parts:
            self._parts_since = self.state.global_step
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, 0) + value.detach()
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer.log`, with the parts of the loss beside it: means per step over all processes."""
        if "loss" in logs and self._parts:
            steps = max(self.state.global_step - self._parts_since, 1)
            names = sorted(self._parts)
            sums: Any = self.accelerator.reduce(torch.stack([self._parts[name].float() for name in names]), "sum")
            logs |= {name: round(value / steps, 6) for name, value in zip(names, sums.tolist(), strict=True)}
            self._parts = {}
        super().log(logs, start_time)
