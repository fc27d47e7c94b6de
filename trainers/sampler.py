"""Epochs of constant length drawn from a selection that grows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler


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
        times, rest = divmod(self.num_samples, len(self.selected))
        rng = np.random.default_rng((self.seed, self.epoch))
        extra = rng.choice(len(self.selected), rest, replace=False)
        return np.concatenate([np.tile(self.selected, times), self.selected[np.sort(extra)]])

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


def row_lengths(dataset: Any, column: str = "length") -> NDArray[np.int64]:
    """Tokens of each row: the data set's own `column` if it has one, else the length of its `input_ids`.

    Raises:
        ValueError: the rows have no `input_ids`.
    """
    if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # datasets.Dataset
        if column in dataset.column_names:
            return np.asarray(dataset[column], dtype=np.int64)
        if "input_ids" in dataset.column_names:
            import pyarrow.compute as pc

            lengths = [
                pc.list_value_length(table["input_ids"]).to_numpy()
                for table in dataset.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=100_000)
            ]
            return np.concatenate(lengths).astype(np.int64)
    elif len(dataset) and "input_ids" in dataset[0]:
        return np.fromiter((len(dataset[i]["input_ids"]) for i in range(len(dataset))), np.int64, len(dataset))
    raise ValueError("the rows of `train_dataset` have no `input_ids`: tokenise the data first")
