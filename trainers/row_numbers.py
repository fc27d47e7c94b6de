"""Batches that know which rows of the data set they hold."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset


ROWS = "row_numbers"


class NumberedRows(Dataset):
    """A map-style data set whose rows carry their numbers, under the name `row_numbers`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], ROWS: index}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))


class KeepsRowNumbers:
    """A collator that takes the numbers off the rows, and puts them into the batch that another makes of the rest."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        if not rows or ROWS not in rows[0]:
            return self.collate(rows)
        import torch

        numbers = torch.tensor([row[ROWS] for row in rows])
        batch = self.collate([{name: value for name, value in row.items() if name != ROWS} for row in rows])
        batch[ROWS] = numbers
        return batch


def columns_fingerprint(dataset: Any, columns: Sequence[str]) -> str:
    """A hash of these columns of all rows, in order; columns that are not there are skipped."""
    digest = hashlib.sha256(str(len(dataset)).encode())
    if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # datasets.Dataset
        present = sorted(set(columns) & set(dataset.column_names))
        plain = dataset.select_columns(present).with_format("arrow")
        for table in plain.iter(batch_size=10_000):
            for name in present:
                digest.update(name.encode())
                for part in _buffers(table[name].combine_chunks()):
                    digest.update(part)
        return digest.hexdigest()
    for index in range(len(dataset)):
        row = dataset[index]
        for name in sorted(set(columns) & set(row)):
            digest.update(f"{name}:{np.asarray(row[name]).tolist()!r}\n".encode())
    return digest.hexdigest()


def _buffers(array: Any) -> Iterator[bytes]:
    """The values of an Arrow array, whatever it was sliced from."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield np.ascontiguousarray(pc.list_value_length(array).fill_null(-1).to_numpy(zero_copy_only=False)).tobytes()
        array = array.flatten()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield repr(array.to_pylist()).encode()
    else:
        yield np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).tobytes()
