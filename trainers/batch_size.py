"""The largest batch whose training fits into memory, found by training.

`auto_find_batch_size` of Transformers begins with a batch that fails and lowers it; on a CPU the system may kill a
process that takes too much before there is anything to catch. Here each try says how much memory the next one should
take, and none is begun that would pass the limit by that.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset
from transformers import PrinterCallback, Trainer, TrainingArguments

from ..evaluation import MemoryLeft, PeakMemory, give_back_memory, memory_left
from ..evaluation.memory import resident_bytes
from ..evaluation.memory_limits import address_bytes
from ..models import ran_out_of_memory
from .sampler import row_lengths


_STEPS, _ACCUMULATED = 2, 2  # from the second step there are moments; from the second batch of a step, gradients
_CAUTION = 1.2  # how much faster memory may grow than it has grown yet
_PRECISION = 16  # the search ends within a sixteenth of the largest batch

MakeTrainer = Callable[[TrainingArguments, Any], Trainer]


@dataclass(frozen=True)
class BatchTry:
    """One batch: its `rows`, whether it `fits`, the highest `peak_bytes` of memory, and the `seconds` of a row.

    A batch that was not tried, as it would not have fitted, has the bytes that were expected and no seconds.
    """

    rows: int
    fits: bool
    peak_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class BatchSize:
    """The result of `find_batch_size`.

    Attributes:
        rows: the largest batch that fits on one device.
        length: of its rows, in tokens; None where rows have no length.
        limit_bytes: what the process may hold in all, the margin taken off.
        limit_source: who set that limit.
        tries: all batches, in the order in which they were tried.
    """

    rows: int
    length: int | None
    limit_bytes: int
    limit_source: str
    tries: tuple[BatchTry, ...]


def find_batch_size(
    make_trainer: MakeTrainer,
    args: TrainingArguments,
    dataset: Any,
    *,
    at_most: int = 1024,
    margin: float = 0.05,
    memory_limit: int | None = None,
    processes: int = 1,
) -> BatchSize:
    """Find how many rows a batch may have on one device, by training on batches of the longest row.

    Batches are doubled and then bisected, to within a sixteenth. Each try makes a trainer, trains two steps of two
    accumulated batches, so that activations, gradients and the optimizer's moments are in memory together, and lets
    go of all. On a CPU the limit is the least that the machine, the control groups, `ulimit` or `memory_limit` leave;
    on a GPU, its free memory.

    Args:
        make_trainer: given arguments and rows, makes a trainer with a model of its own; called once for each try.
        args: of the training that is to come; batch, steps, saving and logging are changed in a copy.
        dataset: the training rows.
        at_most: the most rows to try.
        margin: share of the memory that is free now to leave free.
        memory_limit: bytes that this process may hold in all.
        processes: how many will train together; with several each holds its gradients twice.

    Raises:
        ValueError: not even one row fits, the limit is passed before the first one, or an argument is out of range.

    Example:
        >>> found = find_batch_size(make_trainer, args, dataset)  # doctest: +SKIP
        >>> args.per_device_train_batch_size, args.gradient_accumulation_steps = keep_global_batch(
        ...     64, largest=found.rows)  # doctest: +SKIP
    """
    if at_most < 1 or not 0 <= margin < 1:
        raise ValueError(f"`at_most` must be at least 1 and `margin` from 0 to 1; got {at_most} and {margin}")
    if not len(dataset):
        raise ValueError("`dataset` has no rows to try a batch with")
    search = _Search(make_trainer, args, dataset, margin, memory_limit, processes)
    rows = search.run(at_most)
    return BatchSize(rows, search.length, search.allowed, search.left.source, tuple(search.tries))


def keep_global_batch(global_batch: int, *, largest: int, processes: int = 1) -> tuple[int, int]:
    """Rows per device, at most `largest`, and batches to accumulate, whose product over `processes` is `global_batch`.

    >>> keep_global_batch(64, largest=24)
    (16, 4)
    >>> keep_global_batch(64, largest=24, processes=2)
    (16, 2)

    Raises:
        ValueError: `global_batch` cannot be divided over the processes.
    """
    share, rest = divmod(global_batch, processes)
    if rest or share < 1:
        raise ValueError(f"a global batch of {global_batch} rows cannot be divided over {processes} processes")
    per_device = next(rows for rows in range(min(largest, share), 0, -1) if share % rows == 0)
    return per_device, share // per_device


class _Search:
    left: MemoryLeft

    def __init__(
        self,
        make_trainer: MakeTrainer,
        args: TrainingArguments,
        dataset: Any,
        margin: float,
        memory_limit: int | None,
        processes: int,
    ) -> None:
        self.make_trainer, self.args, self.dataset = make_trainer, args, dataset
        self.margin, self.memory_limit, self.processes = margin, memory_limit, processes
        lengths = row_lengths(dataset)
        self.longest = 0 if lengths is None else int(np.argmax(lengths))
        self.length = None if lengths is None else int(lengths[self.longest])
        self.tries: list[BatchTry] = []
        self.static = 0

    def run(self, at_most: int) -> int:
        self._set_limit()
        self._train(1)  # loads what any training needs, so that the tries show what a batch needs
        self._set_limit()
        fits, fails = 0, at_most + 1
        while fails - fits > max(1, fits // _PRECISION):
            rows = min(2 * fits or 1, at_most) if fails > at_most else (fits + fails) // 2
            if self._try(rows):
                fits = rows
            elif rows == 1:
                raise ValueError(
                    f"not even one row of {self.length} tokens can be trained on within {_gib(self.allowed)} "
                    f"({self.left.source}, {self.margin:.0%} left free): shorten `max_length`, freeze layers, or take "
                    "a smaller model"
                )
            else:
                fails = rows
        return fits

    def _set_limit(self) -> None:
        give_back_memory()
        if self.args.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.args.device)
            cached = torch.cuda.memory_reserved(self.args.device) - torch.cuda.memory_allocated(self.args.device)
            self.left = MemoryLeft(free + cached, f"the free memory of {self.args.device}")
        else:
            self.left = memory_left(self.memory_limit)
        held = self._held()
        self.allowed = held + int(self.left.bytes * (1 - self.margin))
        # Who takes too much resident memory is killed; of anything else there is an error to catch.
        self.is_deadly = self.args.device.type == "cpu" and not self.left.of_addresses
        self.most = self.allowed if self.is_deadly else held + self.left.bytes

    def _held(self) -> int:
        if self.args.device.type == "cuda":
            return torch.cuda.memory_allocated(self.args.device)
        return address_bytes()[0] if self.left.of_addresses else resident_bytes()

    def _try(self, rows: int) -> bool:
        expected = self._expected(rows)
        if expected is not None and expected > self.most:
            self.tries.append(BatchTry(rows, False, expected, None))
            return False
        peak, seconds = self._train(rows)
        fits = peak is not None and peak <= self.allowed
        per_row = seconds / (_STEPS * _ACCUMULATED * rows) if peak is not None else None
        self.tries.append(BatchTry(rows, fits, self.allowed if peak is None else peak, per_row))
        return fits

    def _expected(self, rows: int) -> int | None:
        """The peak of a batch, from those that were measured; None where there are none."""
        measured = sorted((each.rows, each.peak_bytes) for each in self.tries if each.seconds is not None)
        if not measured:
            return None
        most, peak = measured[-1]
        slopes = [(peak - other) / (most - fewer) for fewer, other in (measured[0], *measured[-2:-1]) if fewer < most]
        per_row = max(slopes, default=(peak - self.static) / most)
        caution = _CAUTION if self.is_deadly and rows > most else 1.0
        return peak + math.ceil(caution * max(per_row, 0.0) * (rows - most))

    def _train(self, rows: int) -> tuple[int | None, float]:
        """Peak memory, None where it ran out, and seconds of training on batches of `rows` rows."""
        memory, start = PeakMemory(), time.perf_counter()
        before = self._held()
        try:
            with memory.phase("try"):
                gradients = self._steps(rows, before)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error, small_ones_work=rows > 1):
                raise
            return None, 0.0
        finally:
            seconds = time.perf_counter() - start
            give_back_memory()
        record = memory.to_dict()["try"]
        peak = record["cuda_peak_bytes"] if self.args.device.type == "cuda" else record["peak_bytes"]
        if self.left.of_addresses:
            # The highest of its life: that of this try if none was larger, else we know better from the others.
            larger = any(each.rows >= rows for each in self.tries)
            peak = self._expected(rows) if larger else address_bytes()[1]
        return peak + (gradients if self.processes > 1 else 0), seconds

    def _steps(self, rows: int, before: int) -> int:
        """Train on a batch of `rows`; returns the bytes of the gradients."""
        count = _STEPS * _ACCUMULATED * rows
        places = [self.longest] * count
        batch = self.dataset.select(places) if hasattr(self.dataset, "select") else Subset(self.dataset, places)
        trainer = self.make_trainer(self._arguments(rows), batch)
        model: Any = trainer.model
        parameters = list(model.parameters())
        gradients = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
        # Weights, gradients, and two moments: what there is without a batch.
        self.static = before + sum(p.numel() * p.element_size() for p in parameters) + 3 * gradients
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return gradients

    def _arguments(self, rows: int) -> TrainingArguments:
        args = copy.copy(self.args)
        changes = {
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": _ACCUMULATED,
            "max_steps": _STEPS,
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "no",
            "load_best_model_at_end": False,
            "report_to": [],
            "disable_tqdm": True,
        }
        for name, value in changes.items():
            setattr(args, name, value)
        return args


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
