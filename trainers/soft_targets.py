"""What the teachers want of the student: their averaged distribution over the classes, live or from a cache."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models import plain_model
from .distillation_losses import Average, TopK, average_teachers, top_k_of
from .distillation_tasks import active_items, items_of_rows, number_of_classes
from .fused_head import at_head, linear_head
from .row_numbers import columns_fingerprint
from .teacher_cache import Progress, TeacherCache
from .teacher_rows import LinearTeacher, TeacherEnsemble, TeacherRows
from .teachers import BoundTeacher, logits_of


LARGE_VOCABULARY = 1000
"""With more classes than this the cache holds the largest probabilities only, and the loss is fused."""
DEFAULT_TOP_K = 64


class SoftTargets:
    """The teachers of one student, as one distribution per active item.

    Args:
        teachers: bound to `student`.
        temperature, average: as in `DistillationConfig`.
        special_ids: of the student's tokenizer.
    """

    def __init__(
        self,
        teachers: Sequence[BoundTeacher],
        student: nn.Module,
        task: str,
        *,
        temperature: float,
        average: Average,
        special_ids: Collection[int],
    ) -> None:
        self.teachers, self.student, self.task = list(teachers), student, task
        self.temperature, self.average, self.special_ids = temperature, average, sorted(special_ids)
        self.student_classes = number_of_classes(student, task)  # asked once: unwrapping costs each step
        self.classes = min([self.student_classes, *(number_of_classes(t.model, task) for t in teachers)])
        self.cache: TeacherCache | None = None

    def __call__(
        self, batch: Mapping[str, Any], active: Tensor, rows: NDArray[np.int64], labels: Tensor | None
    ) -> Tensor | TopK:
        """Log-probabilities of the active items at the temperature, (n, classes), or the largest of each."""
        if self.cache is None:
            return self.live(batch, active, rows, labels)
        found = self.cache.read(rows, items_of_rows(active).cpu().numpy(), active.device)
        return found if isinstance(found, TopK) else self._averaged(self._of_each(found))

    def live(self, batch: Mapping[str, Any], active: Tensor, rows: NDArray[np.int64], labels: Tensor | None) -> Tensor:
        """As a call, read from the teachers now."""
        return self._averaged(self._logits(batch, active, rows, labels))

    def opinions(self, rows: NDArray[np.int64]) -> Tensor:
        """Probabilities (teachers, rows, classes) of each teacher, of rows of one item, from a cache that has all."""
        assert self.cache is not None
        found = self.cache.read(rows, np.ones(len(rows), dtype=np.int64), "cpu")
        assert isinstance(found, Tensor)
        return torch.stack(self._of_each(found)).exp()

    def _logits(
        self, batch: Mapping[str, Any], active: Tensor, rows: NDArray[np.int64], labels: Tensor | None
    ) -> list[Tensor]:
        return [logits_of(t, batch, active, rows, labels, self.student_classes) for t in self.teachers]

    def _averaged(self, logits: Sequence[Tensor]) -> Tensor:
        return average_teachers(logits, [t.weight for t in self.teachers], self.temperature, self.average)

    def _of_each(self, cached: Tensor) -> tuple[Tensor, ...]:
        """Each teacher's log-probabilities at T = 1: its logits, but for a number that makes no difference."""
        return cached.unflatten(1, (len(self.teachers), -1)).unbind(1)

    @property
    def can_stay_at_the_head(self) -> bool:
        """Whether all live teachers can be read without their logits."""
        return all(t.own is None and linear_head(t.model) is not None for t in self.teachers)

    def at_the_head(
        self, batch: Mapping[str, Any], active: Tensor, rows: NDArray[np.int64], labels: Tensor | None
    ) -> TeacherRows:
        """The teachers' last hidden states and heads: their probabilities are then made a chunk at a time."""
        found = []
        for teacher in self.teachers:
            head = linear_head(teacher.model)
            assert head is not None
            with torch.no_grad(), at_head(head, lambda hidden, weight, bias: (hidden[active], weight, bias)) as taken:
                teacher.model(**teacher.inputs(batch, rows, labels), return_dict=True)
            hidden, weight, bias = taken[0]
            bias = None if bias is None else bias[: self.classes]
            found.append(LinearTeacher(hidden.to(weight.dtype), weight[: self.classes], bias, self.temperature))
        return TeacherEnsemble(found, [t.weight for t in self.teachers], self.average)

    # The cache

    def terms(self, dataset: Any, columns: Sequence[str], top_k: int | None) -> dict[str, Any]:
        """What the targets of `dataset` follow from."""
        described: dict[str, Any] = {
            f"teacher {number}": teacher.fingerprint() for number, teacher in enumerate(self.teachers)
        }
        described |= {
            "task": self.task,
            "labels": None if self.is_language else list((plain_model(self.student).config.id2label or {}).values()),
            "top_k": self.kept(top_k),
            "rows": len(dataset),
            "data": columns_fingerprint(dataset, columns),
            "special_ids": self.special_ids,
        }
        if self.kept(top_k) is not None:  # else they are averaged when they are read
            weights = [teacher.weight for teacher in self.teachers]
            described |= {"temperature": self.temperature, "average": self.average, "weights": weights}
        return described

    @property
    def is_language(self) -> bool:
        """Whether the classes are a vocabulary."""
        return self.task in ("seq2seq", "causal LM")

    def kept(self, top_k: int | None) -> int | None:
        """How many probabilities of an item the cache holds; None for all."""
        wanted = (DEFAULT_TOP_K if self.classes > LARGE_VOCABULARY else None) if top_k is None else top_k
        return None if wanted is None or wanted >= self.classes else wanted

    def compute(self, batch: Mapping[str, Any], rows: NDArray[np.int64], top_k: int | None) -> tuple[Tensor, Any]:
        """The number of items of each row of a batch, and the targets of all, as the cache holds them."""
        inputs = dict(batch)
        labels = inputs.pop("labels", None)
        active = active_items(self.task, labels, inputs, self.special_ids)
        logits, kept = self._logits(inputs, active, rows, labels), self.kept(top_k)
        if kept is not None:
            return items_of_rows(active), top_k_of(self._averaged(logits), kept)
        return items_of_rows(active), torch.cat([member.float().log_softmax(-1) for member in logits], dim=1)

    def fill_cache(
        self,
        folder: Path,
        terms: dict[str, Any],
        batches: Sequence[NDArray[np.int64]],
        load: Any,
        top_k: int | None,
        *,
        process_index: int,
        num_processes: int,
        wait: Any,
        progress: Progress,
    ) -> None:
        """Have all rows in a cache in `folder`, then let go of the teachers. All processes call it.

        Args:
            batches: row numbers of each batch, every row once.
            load: makes a batch of row numbers.
            wait: returns once all processes have called it.
        """
        cache = TeacherCache(folder, terms)
        cache.check()
        complete = cache.is_complete
        wait()  # none may write while another still looks
        if not complete:
            total = sum(map(len, batches))
            cache.fill(
                batches,
                total,
                lambda rows: self.compute(load(rows), rows, top_k),
                process_index=process_index,
                num_processes=num_processes,
                progress=progress,
            )
            wait()
            if process_index == 0:
                cache.finish(batches, total)
            wait()
        cache.open()
        self.cache = cache
        for teacher in self.teachers:
            teacher.model = teacher.own = None
