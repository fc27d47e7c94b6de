"""Epochs of constant length drawn from a selection that grows."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState


class RoundSampler(Sampler[int]):
    """Draws `num_samples` rows an epoch from those selected so far, each as often as any other to within one.

    Its length never changes, so the number of steps and the schedule are known before the first round. The order
    depends on (seed, epoch) alone, in any process and after any resume. With all rows selected and `num_samples` equal
    to their number, it is the order in which the stock `Trainer` shuffles.

    Args:
        num_samples: rows an epoch.
        seed: of the shuffle.
        lengths: tokens of each row of the data set; where given, batches hold rows of similar length.
        group_size: rows of a global batch (processes × accumulation × batch size); with `lengths` only.
        shuffle: False draws in the data set's order.
    """

    # Groups are cut from stretches of this many global batches: lengths are near-equal, and order stays random.
    _STRETCH = 50

    def __init__(
        self,
        num_samples: int,
        seed: int,
        *,
        lengths: NDArray[np.int64] | None = None,
        group_size: int = 1,
        shuffle: bool = True,
    ) -> None:
        self.num_samples, self.seed, self.shuffle = num_samples, seed, shuffle
        self.lengths, self.group_size = lengths, group_size
        self.selected: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def set_selected(self, selected: NDArray[np.int64]) -> None:
        """Choose the rows to draw from, as data set indices; their order does not matter."""
        self.selected = np.sort(np.asarray(selected, dtype=np.int64))

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        if len(self.selected) == 0:
            raise RuntimeError("nothing is selected yet: `RoundCallback` selects at the start of an epoch")
        return iter(self._order(self._drawn()).tolist())

    def _drawn(self) -> NDArray[np.int64]:
        return evenly(self.selected, self.num_samples, np.random.default_rng((self.seed, self.epoch)))

    def _order(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.sort(drawn)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)  # as accelerate's SeedableRandomSampler
        drawn = drawn[torch.randperm(len(drawn), generator=generator).numpy()]
        return drawn if self.lengths is None else self._grouped(drawn, self.lengths, generator)

    def _grouped(
        self, drawn: NDArray[np.int64], lengths: NDArray[np.int64], generator: torch.Generator
    ) -> NDArray[np.int64]:
        """Sort each stretch by length, cut it into global batches, and shuffle all full batches."""
        size = self.group_size * self._STRETCH
        stretches = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        ordered = np.concatenate([s[np.argsort(-lengths[s], kind="stable")] for s in stretches])
        full = len(ordered) // self.group_size * self.group_size
        batches = ordered[:full].reshape(-1, self.group_size)
        batches = batches[torch.randperm(len(batches), generator=generator).numpy()]
        return np.concatenate([batches.reshape(-1), ordered[full:]])


class LoopSampler(RoundSampler):
    """As `RoundSampler` over the rows that have a label, with `num_unlabelled` rows that have none beside them.

    Where there are none any more, rows with a label take their place: the length does not change.
    """

    num_unlabelled = 0

    @classmethod
    def over(cls, sampler: RoundSampler, num_unlabelled: int) -> "LoopSampler":
        """With the settings of `sampler`."""
        made = cls(
            sampler.num_samples,
            sampler.seed,
            lengths=sampler.lengths,
            group_size=sampler.group_size,
            shuffle=sampler.shuffle,
        )
        made.num_unlabelled, made.unlabelled = num_unlabelled, np.empty(0, dtype=np.int64)
        return made

    def set_unlabelled(self, rows: NDArray[np.int64]) -> None:
        """Choose the rows without a label to draw from, as data set indices."""
        self.unlabelled = np.sort(np.asarray(rows, dtype=np.int64))

    def __len__(self) -> int:
        return self.num_samples + self.num_unlabelled

    def _drawn(self) -> NDArray[np.int64]:
        if not self.num_unlabelled:
            return super()._drawn()
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        source = self.unlabelled if len(self.unlabelled) else self.selected
        return np.concatenate([super()._drawn(), evenly(source, self.num_unlabelled, rng)])


def evenly(rows: NDArray[np.int64], number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`number` of `rows`, each as often as any other to within one."""
    times, rest = divmod(number, len(rows))
    extra = rng.choice(len(rows), rest, replace=False)
    return np.concatenate([np.tile(rows, times), rows[np.sort(extra)]])


class TellSampler(TrainerCallback):
    """Tells the `sampler` of a trainer, if it has one, each epoch: accelerate does not, after some resumes."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, self._epoch = trainer, 0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._trainer.sampler is not None:
            steps = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
            self._epoch = state.global_step // steps

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._trainer.sampler is not None:
            self._trainer.sampler.set_epoch(self._epoch)
            self._epoch += 1


def row_lengths(dataset: Any, column: str = "length", ids: str = "input_ids") -> NDArray[np.int64]:
    """Tokens of each row: the data set's own `column` if it has one, else the length of what rows have as `ids`.

    In multiple choice that is the length of the longest choice, which is what a batch is padded to.

    Raises:
        ValueError: the rows have neither.
    """
    if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # datasets.Dataset
        if column in dataset.column_names:
            return np.asarray(dataset[column], dtype=np.int64)
        if ids in dataset.column_names:
            tables = dataset.select_columns([ids]).with_format("arrow").iter(batch_size=100_000)
            return np.concatenate([_list_lengths(table[ids]) for table in tables]).astype(np.int64)
    elif len(dataset) and isinstance(first := dataset[0], Mapping):
        if column in first:
            return np.fromiter((int(dataset[i][column]) for i in range(len(dataset))), np.int64, len(dataset))
        if ids in first:
            return np.fromiter((_longest(dataset[i][ids]) for i in range(len(dataset))), np.int64, len(dataset))
    raise ValueError(
        f"the rows of `train_dataset` have no `{ids}`: tokenise the data first, or give rows a `{column}`, or set "
        "`main_input_name` of the model's class to what its rows have"
    )


def reading_lengths(dataset: Any, column: str = "length", ids: str = "input_ids") -> NDArray[np.int64]:
    """As `row_lengths`, 0 for all where that is not known: what has no length is read in the order that it has."""
    try:
        return row_lengths(dataset, column, ids)
    except ValueError:
        return np.zeros(len(dataset), dtype=np.int64)


def _list_lengths(column: Any) -> NDArray[Any]:
    """Of an Arrow column of lists, or of lists of lists, whose longest counts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_list(column.type.value_type) and not pa.types.is_large_list(column.type.value_type):
        return pc.list_value_length(column).to_numpy()
    choices = pc.list_value_length(column).to_numpy()
    each = pc.list_value_length(pc.list_flatten(column)).to_numpy()
    return np.maximum.reduceat(each, np.cumsum(choices) - choices)


def _longest(ids: Any) -> int:
    return max(len(choice) for choice in ids) if np.ndim(ids[0]) else len(ids)
