"""Teachers that give their log-probabilities some rows at a time, for losses that never hold all of them at once."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .distillation_losses import Average, check_average, check_temperature, normalized_weights


class TeacherRows(Protocol):
    """What `fused_distillation` asks of a teacher with a probability for every class.

    Attributes:
        rows: how many rows it has.
        classes: how many classes.
        temperature: at which its probabilities are.
    """

    rows: int
    classes: int
    temperature: float

    def chunk(self, start: int, stop: int, out: Tensor) -> None:
        """Write the log-probabilities at the temperature of rows `start` … `stop` - 1 into `out` [rows, classes]."""


class DenseTeacher:
    """A teacher whose logits [n, c] are there already, all of them. Nothing is copied but the rows asked for."""

    def __init__(self, logits: Tensor, temperature: float = 1.0) -> None:
        check_temperature(temperature)
        self.logits = logits.detach()
        self.temperature = temperature
        self.rows, self.classes = logits.shape

    def chunk(self, start: int, stop: int, out: Tensor) -> None:
        out.copy_(self.logits[start:stop])
        normalize_(out.div_(self.temperature))


class LinearTeacher:
    """A live teacher's output head, applied to its last hidden states only when a loss comes to these rows.

    Args:
        hidden: [n, d], the input of the head at the rows that count.
        weight: [c, d] of the head, of the same dtype.
        bias: [c], or None.
        temperature: above 0.

    Raises:
        ValueError: `temperature` is not above 0, or the widths or dtypes differ.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None = None, temperature: float = 1.0) -> None:
        check_temperature(temperature)
        check_head(hidden, weight, bias)
        self.hidden = hidden.detach()
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.temperature = temperature
        self.rows, self.classes = len(hidden), len(weight)

    def chunk(self, start: int, stop: int, out: Tensor) -> None:
        write_logits(self.hidden[start:stop], self.weight, self.bias, out)
        normalize_(out, self.temperature)


class TeacherEnsemble:
    """Several teachers as one, weighted; see `average_teachers`, which does the same for whole arrays.

    Raises ValueError where they differ in rows, classes or temperature, and for weights that do not fit.
    """

    def __init__(
        self,
        teachers: Sequence[TeacherRows],
        weights: Sequence[float] | None = None,
        average: Average = "probabilities",
    ) -> None:
        check_average(average)
        kinds = {(teacher.rows, teacher.classes, teacher.temperature) for teacher in teachers}
        if len(kinds) != 1:
            raise ValueError(
                f"`teachers` must agree in rows, classes and temperature, found {sorted(kinds) or 'no teacher'}"
            )
        self.teachers = list(teachers)
        self.weights = normalized_weights(weights, len(teachers))
        self.average = average
        self.rows, self.classes, self.temperature = kinds.pop()

    def chunk(self, start: int, stop: int, out: Tensor) -> None:
        members = [(teacher, share) for teacher, share in zip(self.teachers, self.weights, strict=True) if share]
        other = torch.empty_like(out) if len(members) > 1 else out
        for place, (teacher, share) in enumerate(members):
            target = other if place else out
            teacher.chunk(start, stop, target)
            for tile in tiles(target):
                # Logits and log-probabilities differ by a constant a row, which the last normalisation takes out.
                tile.mul_(share) if self.average == "logits" else tile.add_(math.log(share))
            if place:
                for whole, part in zip(tiles(out), tiles(other), strict=True):
                    whole.add_(part) if self.average == "logits" else torch.logaddexp(whole, part, out=whole)
        if self.average == "logits":
            normalize_(out)


def check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError unless `hidden` [n, d], `weight` [c, d] and `bias` [c] or None go together."""
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            "`hidden` must be [rows, width] and `weight` [classes, width], found "
            f"{list(hidden.shape)} and {list(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"`bias` must be [{len(weight)}], one number a class, found {list(bias.shape)}")
    dtypes = {str(part.dtype) for part in (hidden, weight, bias) if part is not None}
    if len(dtypes) > 1:
        raise ValueError(f"`hidden`, `weight` and `bias` must have one dtype, found {sorted(dtypes)}; cast `hidden`")


def write_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """hidden · weightᵀ + bias into `out`. Multiplied in the dtype of `hidden`, as the head itself would be."""
    with torch.autocast(hidden.device.type, enabled=False):
        if hidden.dtype != out.dtype:
            out.copy_(torch.nn.functional.linear(hidden, weight, bias))
        elif bias is None:
            torch.mm(hidden, weight.t(), out=out)
        else:
            torch.addmm(bias, hidden, weight.t(), out=out)


def normalize_(logits: Tensor, temperature: float = 1.0) -> None:
    """Turn logits [n, c] into log-probabilities at the temperature, in place."""
    for tile in tiles(logits):
        if temperature != 1:
            tile.div_(temperature)
        tile.sub_(tile.logsumexp(-1, keepdim=True))


def tiles(values: Tensor) -> tuple[Tensor, ...]:
    """`values` [n, c] as views of a few rows: what is done to one several times over then stays in the cache.

    On other devices than the CPU a tile is larger, as there each operation costs a launch.
    """
    size = 2**18 if values.device.type == "cpu" else 2**22
    return values.split(max(1, size // values.shape[1]))
