"""Distillation straight from the hidden states before a large output head: logits are never there all at once.

Rows are worked off in chunks. The logits of a chunk are computed once, turned in place into the gradient of the hard
and the soft part together, multiplied into the gradients of hidden states and head, and overwritten by the next
chunk. So memory beyond the gradients themselves does not grow with the number of rows, and nothing is computed twice.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distillation_losses import TopK, check_temperature
from .logit_gradients import IGNORED, Weighting, differentiate_
from .teacher_rows import TeacherRows, check_head, write_logits


CHUNK_ELEMENTS = 2**24  # 64 MiB of float32

Teacher = TopK | TeacherRows | None


@dataclass(frozen=True)
class FusedLoss:
    """What `fused_distillation` returns, all scalars.

    Attributes:
        loss: (hard_weight · hard + soft_weight · soft) / denominator, to call `backward` on.
        hard: Σ cross-entropy over the labelled rows, detached; 0 where `hard_weight` is 0.
        soft: T² · Σ KL over all rows, detached; 0 where `soft_weight` is 0.
    """

    loss: Tensor
    hard: Tensor
    soft: Tensor


def fused_distillation(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    teacher: Teacher,
    *,
    bias: Tensor | None = None,
    temperature: float,
    soft_weight: float,
    hard_weight: float,
    denominator: float | Tensor = 1.0,
    chunk_rows: int | None = None,
) -> FusedLoss:
    """Hard and soft loss of the head `hidden · weightᵀ + bias` in one pass, and their gradient with it.

    Equals `soft_loss` or `top_k_soft_loss` plus the summed cross-entropy on the full logits. The gradients are made
    in the forward pass and only scaled in the backward one; a second backward pass over a retained graph makes them
    anew. A gradient that nobody needs (a frozen head, `no_grad`) is not made. It cannot be differentiated twice.

    Under autocast the head is multiplied in the autocast dtype. With bfloat16 or float16 inputs, matrix products are
    made in that dtype, everything between them and the sum of the gradients over chunks in float32.

    Args:
        hidden: [n, d], the student's last hidden states at the rows that count; pick them before.
        weight: [c, d] of the student's head.
        labels: integers [n]; -100 leaves a row out of the hard part, and of it alone.
        teacher: a `TopK` with as many rows (cached teacher); a `LinearTeacher`, `DenseTeacher`, `TeacherEnsemble` or
            other `TeacherRows` at the same temperature; None, only with `soft_weight` 0.
        bias: [c], or None.
        temperature: T above 0, of the soft part.
        soft_weight, hard_weight: not below 0; a part with weight 0 is not computed.
        denominator: what the sum is divided by, usually the global number of active items.
        chunk_rows: rows at a time; by default as many as make 64 MiB of float32 logits, at least 1. A teacher with a
            probability for every class takes as much again.

    Raises:
        ValueError: shapes, dtypes, rows, classes or temperatures do not fit, an index or a label is not a class, a
            weight is negative, both are 0, or `teacher` is None with a soft weight.

    >>> hidden, weight = torch.eye(2, requires_grad=True), torch.zeros(4, 2)
    >>> from tithe.trainers import DenseTeacher
    >>> teacher = DenseTeacher(torch.zeros(2, 4), temperature=2.0)
    >>> labels = torch.tensor([3, -100])
    >>> parts = fused_distillation(
    ...     hidden, weight, labels, teacher, temperature=2.0, soft_weight=0.5, hard_weight=0.5, denominator=2
    ... )
    >>> parts.hard, parts.soft, parts.loss.requires_grad
    (tensor(1.3863), tensor(0.), True)
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    check_head(hidden, weight, bias)
    _check_numbers(temperature, soft_weight, hard_weight, chunk_rows)
    _check_rows(labels, teacher, len(hidden), len(weight), temperature, soft_weight)
    weighting = Weighting(temperature, soft_weight, hard_weight)
    size = chunk_rows or max(1, CHUNK_ELEMENTS // len(weight))
    parts = (hidden, weight, bias)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts):
        return FusedLoss(*_Fused.apply(*parts, labels, teacher, weighting, size, denominator))
    with torch.no_grad():
        hard, soft, _ = _work_off(*parts, labels, teacher, weighting, size, (False, False, False))
    return FusedLoss((hard_weight * hard + soft_weight * soft) / denominator, hard, soft)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        teacher: Teacher,
        weighting: Weighting,
        size: int,
        denominator: float | Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.work, ctx.denominator = (teacher, weighting, size, ctx.needs_input_grad[:3]), denominator
        hard, soft, ctx.gradients = _work_off(hidden, weight, bias, labels, *ctx.work)
        ctx.mark_non_differentiable(hard, soft)
        return (weighting.hard * hard + weighting.soft * soft) / denominator, hard, soft

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, *_: Any) -> tuple[Any, ...]:
        hidden, weight, bias, labels = ctx.saved_tensors
        # They are handed over, scaled in place, and belong to the caller from then on: who comes back with a retained
        # graph must not find them changed, and keeping a copy for that rare case would double their memory.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = _work_off(hidden, weight, bias, labels, *ctx.work)[2]
        scaled = [
            None if gradient is None else gradient.mul_(scale / ctx.denominator).to(hidden.dtype)
            for gradient in gradients
        ]
        return (*scaled, None, None, None, None, None)


def _work_off(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    teacher: Teacher,
    weighting: Weighting,
    size: int,
    needed: tuple[bool, ...],
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """ΣCE, T²·ΣKL, and of their weighted sum the gradients by hidden, weight and bias; None for those not needed."""
    rows = len(hidden)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    losses = hidden.new_zeros(2, rows, dtype=dtype)
    gradients = [
        part.new_zeros(part.shape, dtype=dtype) if part is not None and need else None
        for part, need in zip((hidden, weight, bias), needed, strict=True)
    ]
    buffer = hidden.new_empty(min(size, rows), len(weight), dtype=dtype)
    soft = teacher if weighting.soft else None
    probabilities = None if soft is None or isinstance(soft, TopK) else torch.empty_like(buffer)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        logits = buffer[: stop - start]
        known: TopK | Tensor | None = None
        write_logits(hidden[start:stop], weight, bias, logits)
        if isinstance(soft, TopK):
            known = TopK(soft.indices[start:stop], soft.log_probabilities[start:stop])
        elif soft is not None and probabilities is not None:
            known = dense = probabilities[: stop - start]
            soft.chunk(start, stop, dense)
        differentiate_(logits, labels[start:stop], known, weighting, losses[:, start:stop], any(needed))
        _multiply(logits, hidden[start:stop], weight, gradients, start)
    hard, kl = losses.sum(1)
    return hard, kl * weighting.temperature**2, gradients


def _multiply(change: Tensor, hidden: Tensor, weight: Tensor, gradients: list[Tensor | None], start: int) -> None:
    """Add what a chunk's gradient by its logits, `change`, is for hidden states, weight and bias."""
    by_hidden, by_weight, by_bias = gradients
    with torch.autocast(hidden.device.type, enabled=False):
        if by_bias is not None:
            by_bias.add_(change.sum(0))
        if hidden.dtype == change.dtype:
            if by_hidden is not None:
                torch.mm(change, weight, out=by_hidden[start : start + len(change)])
            if by_weight is not None:
                by_weight.addmm_(change.t(), hidden)
            return
        change = change.to(hidden.dtype)
        if by_hidden is not None:
            by_hidden[start : start + len(change)] = change @ weight
        if by_weight is not None:
            by_weight.add_(change.t() @ hidden)


def _check_rows(
    labels: Tensor, teacher: Teacher, rows: int, classes: int, temperature: float, soft_weight: float
) -> None:
    if labels.shape != (rows,):
        raise ValueError(f"`labels` must be [{rows}], one a row of `hidden`, found {list(labels.shape)}")
    if ((labels < 0) & (labels != IGNORED) | (labels >= classes)).any():
        raise ValueError(f"`labels` must be within 0 … {classes - 1} or -100, found {labels.min()} … {labels.max()}")
    if teacher is None:
        if soft_weight:
            raise ValueError(f"`teacher` is None but `soft_weight` is {soft_weight}; give a teacher, or weight 0")
        return
    if isinstance(teacher, TopK):
        if len(teacher) != rows:
            raise ValueError(f"`teacher` must have the {rows} rows of `hidden`, found {len(teacher)}")
        if teacher.indices.numel() and not 0 <= teacher.indices.min() <= teacher.indices.max() < classes:
            raise ValueError(
                f"`teacher.indices` must be within 0 … {classes - 1}, found {teacher.indices.min()} … "
                f"{teacher.indices.max()}; is its vocabulary the student's?"
            )
        return
    found, wanted = (teacher.rows, teacher.classes), (rows, classes)
    if found != wanted:
        raise ValueError(f"`teacher` must have rows and classes {wanted} as the student, found {found}")
    if teacher.temperature != temperature:
        raise ValueError(f"`teacher` must be at the `temperature` {temperature}, found {teacher.temperature}")


def _check_numbers(temperature: float, soft_weight: float, hard_weight: float, chunk_rows: int | None) -> None:
    check_temperature(temperature)
    if not (0 <= soft_weight < math.inf and 0 <= hard_weight < math.inf and soft_weight + hard_weight > 0):
        raise ValueError(
            f"`soft_weight` and `hard_weight` must not be below 0, nor both 0; found {soft_weight} and {hard_weight}"
        )
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"`chunk_rows` must be at least 1, found {chunk_rows}")
