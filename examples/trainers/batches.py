"""How the project makes a batch."""

import torch
from torch import Tensor


def padded(lists: list[list[int]], fill: int) -> Tensor:
    width = max(map(len, lists))
    return torch.tensor([list(values) + [fill] * (width - len(values)) for values in lists])


class PadDocstrings:
    """A collator of the project's own, for `docstrings.Docstrings` and `models.TextClassifier`."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        ids = [row["ids"] for row in rows]
        batch = {"ids": padded(ids, self.pad_id), "mask": padded([[1] * len(row) for row in ids], 0)}
        batch["kind"] = torch.tensor([row["kind"] for row in rows])
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch


class PadWords:
    """The same for the words of `models.WordTagger`."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in rows]
        batch = {"input_ids": padded(ids, self.pad_id), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
        batch["shapes"] = padded([row["shapes"] for row in rows], 0)
        batch["labels"] = padded([row["labels"] for row in rows], -100)
        return batch


class PadPairs:
    """The same for inputs and targets of `models.WeightedT5`."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in rows]
        batch = {"input_ids": padded(ids, self.pad_id), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
        batch["labels"] = padded([row["labels"] for row in rows], -100)
        batch["weight"] = torch.tensor([row["weight"] for row in rows])
        return batch
