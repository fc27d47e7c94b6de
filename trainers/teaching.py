"""One training run's teaching: teachers bound to the student, what they say cached, and the loss of a batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import logging

from ..models import plain_model, rng_neutral
from .distillation_losses import TopK, soft_loss, top_k_soft_loss
from .distillation_tasks import IGNORE, LANGUAGE_TASKS, active_items, target_labels, task_of
from .fused_distillation import fused_distillation
from .fused_head import at_head, linear_head
from .intermediate_losses import IntermediateLosses
from .pool_data import PoolData
from .row_numbers import ROWS
from .soft_targets import LARGE_VOCABULARY, SoftTargets
from .teacher_inputs import OwnInputs, longest_input
from .teachers import BoundTeacher, Teacher, bind, logits_in


logger = logging.get_logger(__name__)

Parts = dict[str, Tensor]


class Teaching:
    """What `trainer`, a `DistillationTrainer`, does with `teachers`.

    Attributes:
        targets: the teachers, as one distribution per item.
        inner: losses between inner states, while training with such.
        data: the training data.

    Raises:
        ValueError: a teacher cannot teach the student.
    """

    data: PoolData

    def __init__(self, trainer: Any, teachers: Sequence[Teacher]) -> None:
        self.trainer, args = trainer, trainer.args
        if args.label_names and "labels" not in args.label_names:
            raise ValueError(
                f"beside teachers the labels in a batch must be called `labels`; `label_names` are {args.label_names}"
            )
        self.task = task_of(trainer.model, declared=args.task)
        if args.task not in (None, self.task):
            raise ValueError(f"`task` is {args.task}, and the model's class says that it is for {self.task}")
        if trainer.train_dataset is not None:
            ids = plain_model(trainer.model).main_input_name
            self.data = PoolData(trainer.train_dataset, args.teacher_text_column, args.length_column_name, ids)
        self.targets = SoftTargets(
            [self._bind(teacher, f"teacher {number}") for number, teacher in enumerate(teachers)],
            trainer.model,
            self.task,
            temperature=args.temperature,
            average=args.teacher_average,
            special_ids=getattr(trainer.processing_class, "all_special_ids", ()),
        )
        self.inner: IntermediateLosses | None = None
        if args.needs_live_teacher:
            self._check_inner()
            inner = self._make_inner()
            projected = inner.projections is not None
            inner.remove()
            if projected and is_deepspeed_zero3_enabled() and args.save_strategy != "no":
                raise ValueError(
                    "under ZeRO-3 the projections of a hidden-state loss cannot be written into checkpoints: use "
                    "ZeRO-2, `save_strategy` no, or a student as wide as its teacher"
                )

    def _bind(self, teacher: Teacher, name: str) -> BoundTeacher:
        trainer, args = self.trainer, self.trainer.args
        bound = bind(
            teacher,
            trainer.model,
            name,
            self.task,
            declared=args.task,
            student_tokenizer=trainer.processing_class,
            dtype=None if args.teacher_dtype is None else getattr(torch, args.teacher_dtype),
            load_in_8bit=args.teacher_load_in_8bit,
            device=args.device,
        )
        if bound.tokenizer is not None and trainer.train_dataset is not None:
            bound.own = self._own_inputs(bound)
        return bound

    def _own_inputs(self, teacher: BoundTeacher) -> OwnInputs:
        args, tokenizer, ours = self.trainer.args, teacher.tokenizer, self.trainer.processing_class
        assert tokenizer is not None
        longest = args.teacher_max_length or longest_input(tokenizer, plain_model(teacher.model).config)
        if self.task == "token classification":
            if ours is None:
                raise ValueError(f"{teacher.name} has its own tokenizer: pass the student's as `processing_class`")
            words, ids = self.data.column(args.teacher_words_column), self.data.column("input_ids")
            return OwnInputs.of_words(tokenizer, words, ours, ids, longest)
        if self.task == "multiple choice":
            texts, choices = (self.data.column(c) for c in (args.teacher_text_column, args.teacher_choices_column))
            return OwnInputs.of_choices(tokenizer, texts, choices, longest)
        pair = args.teacher_text_pair_column
        pairs = None if pair is None else self.data.column(pair)
        return OwnInputs.of_texts(tokenizer, self.data.column(args.teacher_text_column), pairs, longest)

    def _check_inner(self) -> None:
        teachers = self.targets.teachers
        if len(teachers) != 1:
            raise ValueError(f"hidden-state and attention losses follow one teacher, not {len(teachers)}")
        if teachers[0].own is not None or self.task in ("seq2seq", "multiple choice"):
            raise ValueError(
                "hidden-state and attention losses need a teacher with the student's tokens, no decoder and no choices"
            )

    def _make_inner(self) -> IntermediateLosses:
        args = self.trainer.args
        with rng_neutral():
            torch.manual_seed(args.seed)
            return IntermediateLosses(
                self.trainer.model,
                self.targets.teachers[0].model,
                args.layer_map,
                args.hidden_weight,
                args.attention_weight,
            )

    # Before and after training

    def begin(self, checkpoint: Path | None) -> None:
        """Before training starts or goes on from `checkpoint`: projections are there, and the cache is full."""
        if self.trainer.args.needs_live_teacher:
            self.inner = self._make_inner()
            if checkpoint is not None:
                self.inner.load(checkpoint)
        if self.trainer.caches_teacher and self.targets.cache is None:
            with rng_neutral():
                self._fill_cache()

    def end(self) -> None:
        """After training: the student is as it was but for its weights."""
        if self.inner is not None:
            self.inner.remove()
            self.inner = None

    def _fill_cache(self) -> None:
        trainer, args, targets = self.trainer, self.trainer.args, self.targets
        folder = Path(args.teacher_cache_dir or Path(str(args.output_dir)) / "teacher_cache")
        dataset, collate = trainer.numbered_rows(), trainer.collator_of("the teachers")
        columns = ["input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "label", "labels"]
        columns += trainer.model_columns()
        if any(t.own is not None for t in targets.teachers):
            columns += [args.teacher_text_column, args.teacher_text_pair_column or "", args.teacher_words_column]
            columns += [args.teacher_choices_column]
        order = np.argsort(-self.data.reading_lengths(), kind="stable")
        size = args.eval_batch_size
        batches = [np.sort(order[i : i + size]) for i in range(0, len(order), size)]

        def load(rows: NDArray[np.int64]) -> dict[str, Any]:
            batch = trainer._prepare_inputs(collate([dataset[int(row)] for row in rows]))
            return {name: value for name, value in batch.items() if name != ROWS}

        targets.fill_cache(
            folder,
            targets.terms(trainer.train_dataset, columns, args.teacher_top_k),
            batches,
            load,
            args.teacher_top_k,
            process_index=args.process_index,
            num_processes=args.world_size,
            wait=trainer.accelerator.wait_for_everyone,
            progress=trainer.progress,
        )
        assert targets.cache is not None
        logger.info(f"What the teachers said takes {targets.cache.size_bytes:,} bytes in {folder}")

    # The loss

    def count(self, batches: Sequence[Mapping[str, Any]], device: torch.device) -> Tensor:
        """The active items in `batches`, one accumulated batch, of all processes."""
        items = tokens = 0
        for batch in batches:
            items += int(active_items(self.task, batch.get("labels"), batch, self.targets.special_ids).sum())
            tokens += int(_shown(batch).sum()) if self.trainer.args.needs_live_teacher else 0
        reduced: Any = self.trainer.accelerator.reduce(torch.tensor([items, tokens], device=device), "sum")
        counts = reduced.clamp(min=1)
        self._tokens = counts[1]
        return counts[0]

    def loss(self, model: nn.Module, inputs: dict[str, Any], items: Tensor | int | None) -> tuple[Tensor, Any, Parts]:
        """The loss of a batch, the model's outputs, and the unweighted parts of the loss.

        Args:
            model: as the parent wraps it.
            inputs: the batch with its row numbers.
            items: what `count` said of the accumulated batch that this one is of; None for this one alone.
        """
        batch = dict(inputs)
        rows, labels = batch.pop(ROWS).cpu().numpy(), batch.pop("labels", None)
        active = active_items(self.task, labels, batch, self.targets.special_ids)
        wanted = torch.full_like(active, IGNORE, dtype=torch.long)
        if labels is not None:
            wanted = target_labels(self.task, labels)
        if self.task == "seq2seq" and "decoder_input_ids" not in batch:
            prepare: Any = plain_model(model).prepare_decoder_input_ids_from_labels
            batch["decoder_input_ids"] = prepare(labels=labels)
        items = active.sum().clamp(min=1) if items is None else items
        head = self._head()
        if head is None:
            return self._dense(model, batch, rows, labels, active, wanted, items)
        return self._fused(model, head, batch, rows, labels, active, wanted, items)

    def _head(self) -> nn.Linear | None:
        """The head at which the loss is computed, or None where it needs the logits."""
        args, targets, student = self.trainer.args, self.targets, self.trainer.model
        large = targets.student_classes > LARGE_VOCABULARY
        if self.task not in LANGUAGE_TASKS or not (large if args.fused_loss is None else args.fused_loss):
            return None
        possible = not (args.needs_live_teacher or args.label_smoothing_factor or args.torch_compile or args.n_gpu > 1)
        head = linear_head(student) if possible else None
        known = targets.cache is not None or targets.can_stay_at_the_head
        if head is not None and targets.classes == targets.student_classes and known:
            return head
        if args.fused_loss:
            raise ValueError(
                "`fused_loss` needs heads of one linear layer and one size, and neither label smoothing, hidden-state "
                "or attention losses, `torch_compile` nor `DataParallel`"
            )
        return None

    def _dense(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        rows: NDArray[np.int64],
        labels: Tensor | None,
        active: Tensor,
        wanted: Tensor,
        items: Tensor | int,
    ) -> tuple[Tensor, Any, Parts]:
        args, targets, inner = self.trainer.args, self.targets, self.inner
        outputs = model(**batch, **({} if inner is None else inner.options))
        logits = logits_in(outputs)[active]
        smoothing = args.label_smoothing_factor
        hard = F.cross_entropy(
            logits.float(), wanted[active], reduction="sum", ignore_index=IGNORE, label_smoothing=smoothing
        )
        parts = {"hard_loss": hard / items}
        loss = args.hard_weight * parts["hard_loss"]
        if args.soft_weight:
            parts["soft_loss"] = self._soft(logits, targets(batch, active, rows, labels)) / items
            loss = loss + args.soft_weight * parts["soft_loss"]
        if inner is not None:
            teacher = targets.teachers[0]
            with torch.no_grad():
                theirs = teacher.model(**teacher.inputs(batch, rows, labels), **inner.options, return_dict=True)
            hidden, attention = inner(outputs, theirs, _shown(batch))
            parts |= {"hidden_loss": hidden / self._tokens, "attention_loss": attention / self._tokens}
            loss = loss + args.hidden_weight * parts["hidden_loss"] + args.attention_weight * parts["attention_loss"]
        return loss, outputs, parts

    def _soft(self, logits: Tensor, target: Tensor | TopK) -> Tensor:
        logits, temperature = logits[:, : self.targets.classes], self.trainer.args.temperature
        if isinstance(target, TopK):
            return top_k_soft_loss(logits, target.indices, target.log_probabilities, temperature)
        return soft_loss(logits, target.to(logits.device), temperature)

    def _fused(
        self,
        model: nn.Module,
        head: nn.Linear,
        batch: dict[str, Any],
        rows: NDArray[np.int64],
        labels: Tensor | None,
        active: Tensor,
        wanted: Tensor,
        items: Tensor | int,
    ) -> tuple[Tensor, Any, Parts]:
        args, targets = self.trainer.args, self.targets
        teacher: Any = None
        if args.soft_weight:
            teacher = (targets if targets.cache is not None else targets.at_the_head)(batch, active, rows, labels)

        def take(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
            fused = fused_distillation(
                hidden[active].to(weight.dtype),
                weight,
                wanted[active],
                teacher,
                bias=bias,
                temperature=args.temperature,
                soft_weight=args.soft_weight,
                hard_weight=args.hard_weight,
                denominator=items,
            )
            return fused.loss, fused.hard, fused.soft

        with at_head(head, take) as found:
            outputs = model(**batch)
        if len(found) != 1:
            raise RuntimeError(f"the student called its head {len(found)} times: set `fused_loss` to False")
        loss, hard, soft = found[0]
        return loss, outputs, {"hard_loss": hard / items, "soft_loss": soft / items}


def _shown(batch: Mapping[str, Any]) -> Tensor:
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()
