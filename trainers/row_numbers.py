"""Batches that know which rows of the data set they hold."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from .pool_data import named_parts, value_bytes


ROWS = "row_numbers"


class NumberedRow(NamedTuple):
    """A row that is no mapping, such as a tuple or a dataclass, and its number."""

    number: int
    row: Any


class NumberedRows(Dataset):
    """A map-style data set whose rows carry their numbers: under the name `row_numbers`, or as `NumberedRow`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        row = self.dataset[index]
        return {**row, ROWS: index} if isinstance(row, Mapping) else NumberedRow(index, row)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


class KeepsRowNumbers:
    """A collator that takes the numbers off the rows, and puts them into the batch that another makes of the rest."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        if not rows:
            return self.collate(rows)
        if isinstance(rows[0], NumberedRow):
            numbers, bare = [row.number for row in rows], [row.row for row in rows]
        elif isinstance(rows[0], Mapping) and ROWS in rows[0]:
            numbers = [row[ROWS] for row in rows]
            bare = [{name: value for name, value in row.items() if name != ROWS} for row in rows]
        else:
            return self.collate(rows)
        import torch

        batch = self.collate(bare)
        batch[ROWS] = torch.tensor(numbers)
        return batch


def columns_fingerprint(dataset: Any, columns: Sequence[str]) -> str:
    """A hash of these columns of all rows, in order; columns that are not there are skipped.

    Rows of another kind than mappings are hashed whole.
    """
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
        for name, value in named_parts(row):
            if name in columns or not isinstance(row, Mapping):
                value = value_bytes(value)
                digest.update(f"{name}:{len(value)}:".encode() + value)
    return digest.hexdigest()


def _buffers(array: Any) -> Iterator[bytes]:
    """The values of an Arrow array, whatever it was sliced from."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield np.ascontiguousarray(pc.list_value_length(array).fill_null(-1).to_numpy(zero_copy_only=False)).tobytes()
        array = array.flatten()
    if pa.types.is_primitive(array.type):
        yield np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).tobytes()
    else:
        yield repr(array.to_pylist()).encode()
