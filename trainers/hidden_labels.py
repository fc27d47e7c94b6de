"""A pool whose labels cannot be read: rows without them, and rows with those that have been given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from .pool_data import LABEL_COLUMNS, PoolData


class WithoutColumns(Dataset):
    """A map-style data set whose rows lack some columns."""

    def __init__(self, dataset: Any, columns: Sequence[str]) -> None:
        self._dataset, self._columns = dataset, frozenset(columns)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: value for name, value in self._dataset[index].items() if name not in self._columns}


def label_column(dataset: Any, names: Sequence[str] = ()) -> str | None:
    """The column of `dataset` that holds its labels, if it has one: one of `names`, or of `LABEL_COLUMNS`.

    Raises:
        TypeError: its rows have no columns.
    """
    if dataset is None or isinstance(dataset, dict) or not hasattr(dataset, "__len__") or len(dataset) == 0:
        return None
    if hasattr(dataset, "column_names"):
        present = dataset.column_names
    elif isinstance(first := dataset[0], Mapping):
        present = list(first)
    else:
        raise TypeError(
            "a row must be a mapping from names to values, so that its label can be hidden; got "
            f"{type(first).__name__}"
        )
    return next((name for name in (*names, *LABEL_COLUMNS) if name in present), None)


def hide_labels(dataset: Any, names: Sequence[str] = ()) -> tuple[Any, NDArray[np.int64] | None]:
    """`dataset` without its columns of labels, and the class index of each row where it has such a column.

    Raises:
        ValueError: rows have several labels each, as in token classification.
    """
    column = label_column(dataset, names)
    if column is None:
        return dataset, None
    first = np.asarray(dataset[0][column])
    if first.ndim or not np.issubdtype(first.dtype, np.integer):
        raise ValueError(
            f"the expert loop asks for one class index per row; column `{column}` of `train_dataset` begins with "
            f"{str(dataset[0][column])[:60]}"
        )
    if hasattr(dataset, "remove_columns"):  # datasets.Dataset
        hidden = [name for name in (*names, *LABEL_COLUMNS) if name in dataset.column_names]
        return dataset.remove_columns(hidden), np.asarray(dataset[column][:], dtype=np.int64)
    values = np.array([dataset[i][column] for i in range(len(dataset))], dtype=np.int64)
    return WithoutColumns(dataset, (*names, *LABEL_COLUMNS)), values


class LabelledRows(Dataset):
    """A map-style data set, each row with the label that is known of it by now.

    Args:
        dataset: without labels.
        labels: one per row, `UNKNOWN` where there is none; looked up when a row is.
        column: what it is called in a row.
    """

    def __init__(self, dataset: Any, labels: NDArray[np.int64], column: str) -> None:
        self._dataset, self._labels, self._column = dataset, labels, column

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._dataset[index], self._column: int(self._labels[index])}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """As `__getitem__`, many at once: a `datasets.Dataset` reads them so much faster."""
        fetch = getattr(self._dataset, "__getitems__", None)
        rows = fetch(indices) if fetch else [self._dataset[i] for i in indices]
        return [{**row, self._column: int(self._labels[i])} for i, row in zip(indices, rows, strict=True)]


class PartlyLabelled(PoolData):
    """A pool of which some labels are known: those in `known`, which is looked up whenever they are asked for."""

    def __init__(self, dataset: Any, known: NDArray[np.int64], *args: Any) -> None:
        super().__init__(dataset, *args)
        self._known = known

    def labels(self) -> NDArray[np.int64]:
        """The known labels, `UNKNOWN` where there is none."""
        return self._known
