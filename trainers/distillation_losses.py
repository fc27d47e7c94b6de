"""Losses of distillation in closed form, on whole arrays: what to use for small vocabularies, and to check others by.

All are *sums* over rows or tokens, for the caller to divide by the global number of active items: a mean taken here
would be wrong under gradient accumulation and over several processes. Rows that count must be picked before; no row is
looked at for padding here except where a `mask` is asked for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


Average = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class TopK:
    """A teacher known by its k likeliest classes alone, row by row.

    Attributes:
        indices: integers [n, k], the classes of a row, each once.
        log_probabilities: floats [n, k], their natural logarithms at the temperature of the loss. What they leave
            over of 1 is the mass of all other classes together.
    """

    indices: Tensor
    log_probabilities: Tensor

    def __post_init__(self) -> None:
        if self.indices.dim() != 2 or self.indices.shape != self.log_probabilities.shape:
            raise ValueError(
                "`indices` and `log_probabilities` must both be [rows, k], found "
                f"{list(self.indices.shape)} and {list(self.log_probabilities.shape)}"
            )

    def __len__(self) -> int:
        return len(self.indices)


def top_k_of(log_probabilities: Tensor, k: int) -> TopK:
    """The k largest of each row of `log_probabilities` [n, c], largest first; with int32 indices, to be stored.

    Raises ValueError where `k` is not within 1 … c.

    >>> top_k_of(torch.tensor([[0.2, 0.5, 0.3]]).log(), 2).indices
    tensor([[1, 2]], dtype=torch.int32)
    """
    classes = log_probabilities.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"`k` must be within 1 and the {classes} classes, found {k}")
    values, indices = log_probabilities.topk(k, dim=-1)
    return TopK(indices.int(), values)


def soft_loss(student_logits: Tensor, teacher_log_probabilities: Tensor, temperature: float) -> Tensor:
    """T² · Σ KL(p_T ‖ q_T), the soft part of distillation (Hinton et al., arXiv 1503.02531).

    T² keeps the size of its gradient independent of the temperature, to first order. Float32 inside, or float64 where
    an input is. A class the teacher rules out (log-probability -inf) adds nothing.

    Args:
        student_logits: [n, c].
        teacher_log_probabilities: [n, c], already at the temperature, as `average_teachers` gives them.
        temperature: above 0.

    Raises:
        ValueError: `temperature` is not above 0, or the shapes differ.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    >>> soft_loss(logits, torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), temperature=2.0)
    tensor(0.4805)
    """
    check_temperature(temperature)
    if student_logits.shape != teacher_log_probabilities.shape:
        raise ValueError(
            f"`teacher_log_probabilities` must have the shape of `student_logits` {list(student_logits.shape)}, "
            f"found {list(teacher_log_probabilities.shape)}; align the classes first"
        )
    log_q = F.log_softmax(_float(student_logits) / temperature, dim=-1)
    log_p = _finite(_float(teacher_log_probabilities))
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum()


def top_k_soft_loss(student_logits: Tensor, indices: Tensor, log_probabilities: Tensor, temperature: float) -> Tensor:
    """T² · Σ KL over k + 1 outcomes: the teacher's k classes, and *any other*.

    The student's mass of the other classes is read by a log-sum-exp over them, and not as 1 - Σ q, which cancels. It
    is a lower bound of `soft_loss`, equal to it for k = c.

    Args:
        student_logits: [n, c].
        indices: integers [n, k], as in `TopK`.
        log_probabilities: [n, k], as in `TopK`, at the temperature.
        temperature: above 0.

    Raises:
        ValueError: `temperature` is not above 0, or the shapes do not fit.

    >>> logits = torch.tensor([[1.0, 0.0, -1.0]])
    >>> top = top_k_of(logits.log_softmax(-1), 2)
    >>> abs(top_k_soft_loss(logits, top.indices, top.log_probabilities, temperature=1.0).item()) < 1e-6
    True
    """
    check_temperature(temperature)
    top = TopK(indices, log_probabilities)
    if len(top) != len(student_logits):
        raise ValueError(f"`indices` must have the {len(student_logits)} rows of `student_logits`, found {len(top)}")
    scaled, indices = _float(student_logits) / temperature, indices.long()
    log_all = scaled.logsumexp(-1)
    log_p = _finite(_float(log_probabilities))
    divergence = (log_p.exp() * (log_p - (scaled.gather(1, indices) - log_all[:, None]))).sum()
    if indices.shape[1] < student_logits.shape[1]:
        rest = remaining_mass(log_p)
        log_rest = scaled.scatter(1, indices, -math.inf).logsumexp(-1) - log_all
        divergence = divergence + (torch.xlogy(rest, rest) - rest * log_rest).sum()
    return temperature**2 * divergence


def remaining_mass(log_probabilities: Tensor) -> Tensor:
    """1 - Σ p of each row [n] of `log_probabilities` [n, k], never below 0, accurate where p is close to 1."""
    return -log_probabilities.logsumexp(-1).clamp(max=0).expm1()


def average_teachers(
    logits: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    temperature: float = 1.0,
    average: Average = "probabilities",
) -> Tensor:
    """The log-probabilities [n, c] at the temperature of an ensemble, from each member's logits [n, c].

    Args:
        logits: one tensor a teacher, classes in the same order.
        weights: one number a teacher, divided by their sum here; None weighs all the same.
        temperature: above 0; applied to each teacher before its probabilities are averaged.
        average: "probabilities" is the mixture of the teachers, Σ w p; "logits" is their geometric mean normalised
            again, in which one teacher can veto a class.

    Raises:
        ValueError: no teacher, shapes or weights that do not fit, an unknown `average`, `temperature` not above 0.

    >>> two = [torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, float("-inf")]])]
    >>> average_teachers(two, weights=[1, 1]).exp()
    tensor([[0.7500, 0.2500]])
    """
    check_temperature(temperature)
    if not logits or any(member.shape != logits[0].shape for member in logits):
        raise ValueError(f"`logits` must be tensors of one shape, found {[list(member.shape) for member in logits]}")
    shares = normalized_weights(weights, len(logits))
    check_average(average)
    members = [_float(member) / temperature for member in logits]
    if average == "logits":
        mean = sum(share * member for share, member in zip(shares, members, strict=True) if share)
        return F.log_softmax(torch.as_tensor(mean), dim=-1)
    logs = [member.log_softmax(-1) + math.log(share) for share, member in zip(shares, members, strict=True) if share]
    return torch.stack(logs).logsumexp(0)


def hidden_state_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, projection: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Σ over active tokens of the mean over the width of (projection(student) - teacher)² (arXiv 1909.10351, eq. 8).

    Args:
        student: hidden states [b, t, d_s].
        teacher: hidden states [b, t, d_t].
        mask: [b, t], true or 1 at active tokens. What lies elsewhere is never read.
        projection: from d_s to d_t, usually an `nn.Linear`; needed where they differ.

    Raises:
        ValueError: the shapes do not fit.
    """
    if student.shape[:2] != mask.shape or teacher.shape[:2] != mask.shape:
        raise ValueError(
            f"`student`, `teacher` and `mask` must agree in rows and tokens, found {list(student.shape)}, "
            f"{list(teacher.shape)} and {list(mask.shape)}"
        )
    active = mask.bool()
    picked = student[active] if projection is None else projection(student[active])
    if picked.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"`student` must have the teacher's width {teacher.shape[-1]}, found {picked.shape[-1]}; "
            "give a `projection` from the one to the other"
        )
    return (_float(picked) - _float(teacher[active])).square().sum() / teacher.shape[-1]


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Σ over active query tokens of the mean squared difference of attention over active keys and heads.

    TinyBERT's attention loss (arXiv 1909.10351, eq. 7), which divides by all tokens instead of the active ones. Where
    the numbers of heads differ, both are averaged over their heads first.

    Args:
        student: attention [b, h_s, t, t], probabilities or finite scores.
        teacher: the same [b, h_t, t, t].
        mask: [b, t], true or 1 at active tokens. Queries and keys elsewhere have no part.

    Raises:
        ValueError: the shapes do not fit.
    """
    rows, tokens = mask.shape
    for name, attention in (("student", student), ("teacher", teacher)):
        if attention.dim() != 4 or (attention.shape[0], *attention.shape[2:]) != (rows, tokens, tokens):
            raise ValueError(
                f"`{name}` must be [{rows}, heads, {tokens}, {tokens}] to go with `mask`, "
                f"found {list(attention.shape)}"
            )
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    active = mask.bool()
    pairs = (active[:, :, None] & active[:, None, :])[:, None]
    squares = torch.where(pairs, _float(student) - _float(teacher), 0).square().mean(1)
    return (squares.sum((1, 2)) / active.sum(1).clamp(min=1)).sum()


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless `temperature` is a finite number above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` must be above 0, found {temperature}; 1 leaves the probabilities as they are")


def check_average(average: str) -> None:
    """Raises ValueError unless `average` is a way that `average_teachers` knows."""
    if average not in ("probabilities", "logits"):
        raise ValueError(f'`average` must be "probabilities" or "logits", found {average!r}')


def normalized_weights(weights: Sequence[float] | None, teachers: int) -> list[float]:
    """One share a teacher, with sum 1. Raises ValueError for another number of them, negative ones, or all 0."""
    if weights is None:
        return [1 / teachers] * teachers
    total = math.fsum(weights)
    if len(weights) != teachers or min(weights) < 0 or not 0 < total < math.inf:
        raise ValueError(
            f"`weights` must be {teachers} numbers, one a teacher, none below 0 and not all 0; found {list(weights)}"
        )
    return [weight / total for weight in weights]


def _float(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _finite(log_probabilities: Tensor) -> Tensor:
    """With -inf as the least number there is: its exponential is 0 all the same, but 0 times it is 0 and not NaN."""
    return log_probabilities.clamp(min=torch.finfo(log_probabilities.dtype).min)
