"""A pool of training rows as a strategy sees it: labels, texts, lengths, and the candidates of a round."""

import hashlib
import pickle
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from ..models import take_rows
from ..selection import Pool
from .sampler import reading_lengths, row_lengths


UNKNOWN = -100
"""The label of a row that has none, as in Transformers."""

LABEL_COLUMNS = ("label", "labels", "label_ids")

_OF_MANY = frozenset({"mc_probabilities", "committee_probabilities"})  # their first axis runs over passes or members


class PoolData:
    """What is read of `dataset` itself, each thing at most once.

    Args:
        dataset: a `datasets.Dataset`, or any data set with a length and rows by index.
        text_column: the column with the texts.
        length_column: the column with the number of tokens, where there is one.
        ids_column: what the model reads of a row, whose length counts where there is none.
        label_names: columns with labels beside `LABEL_COLUMNS`.

    Raises:
        TypeError: `dataset` has no length or no rows by index, or is a dict of splits.
        ValueError: it is empty.
    """

    def __init__(
        self,
        dataset: Any,
        text_column: str = "text",
        length_column: str = "length",
        ids_column: str = "input_ids",
        label_names: Sequence[str] = (),
    ) -> None:
        if isinstance(dataset, dict):
            raise TypeError(
                f"`train_dataset` is a {type(dataset).__name__} of splits {list(dataset)}: did you mean "
                "`train_dataset=dataset['train']`?"
            )
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise TypeError("`train_dataset` must have a length and rows by index: a pool is read as a whole")
        if len(dataset) == 0:
            raise ValueError("`train_dataset` is empty")
        self.dataset, self.text_column, self.length_column = dataset, text_column, length_column
        self.ids_column, self._label_names = ids_column, (*label_names, *LABEL_COLUMNS)
        self._cache: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def columns(self) -> list[str]:
        """The names of what a row holds; none where rows are no mappings."""
        if hasattr(self.dataset, "column_names"):
            return list(self.dataset.column_names)
        row = self.dataset[0]
        return list(row) if isinstance(row, Mapping) else []

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row; a `ValueError` where it is not known."""
        if "lengths" not in self._cache:
            self._cache["lengths"] = row_lengths(self.dataset, self.length_column, self.ids_column)
        return self._cache["lengths"]

    def reading_lengths(self) -> NDArray[np.int64]:
        """As `lengths`, to sort by for reading: 0 for all where it is not known."""
        if "lengths" not in self._cache:
            return reading_lengths(self.dataset, self.length_column, self.ids_column)
        return self._cache["lengths"]

    def labels(self) -> NDArray[np.int64] | None:
        """One class index per row, `UNKNOWN` where it is not known; None where rows have no single one at all."""
        if "labels" not in self._cache:
            self._cache["labels"] = self._read_labels()
        return self._cache["labels"]

    def check(self, needs: Collection[str], strategy: str, provided: Collection[str]) -> None:
        """Raise a `ValueError` if the strategy of that name needs what is not `provided` or what this pool lacks."""
        if unknown := set(needs) - set(provided):
            raise ValueError(
                f"strategy {strategy} needs {sorted(unknown)}, which this trainer does not read; "
                f"it reads {sorted(provided)}"
            )
        if "labels" in needs and self.labels() is None:
            raise ValueError(
                f"strategy {strategy} needs one class index per row in a column `label` or `labels`; "
                f"`train_dataset` has {self.columns}"
            )
        if "texts" in needs and self.text_column not in self.columns:
            raise ValueError(
                f"strategy {strategy} needs `pool_text_column` {self.text_column!r}; "
                f"`train_dataset` has {self.columns}"
            )

    def candidates(
        self, signals: Mapping[str, NDArray[np.float32]], needs: Collection[str], selected: NDArray[np.int64]
    ) -> Pool:
        """The pool of a round: all rows that are not in `selected`, with the fields that `needs` names.

        Args:
            signals: name → one entry per row of the data set.
            needs: names of `Pool` fields.
            selected: data set indices that earlier rounds chose.
        """
        selected = np.sort(selected)
        ids = np.setdiff1d(np.arange(len(self)), selected, assume_unique=True)
        fields: dict[str, Any] = {
            name: take_rows(values, ids, axis=int(name in _OF_MANY)) for name, values in signals.items()
        }
        if "selected_embeddings" in needs:
            fields["selected_embeddings"] = signals["embeddings"][selected]
        if "labels" in needs and (labels := self.labels()) is not None:
            fields["labels"] = labels[ids]
        if "texts" in needs:
            texts = self.column(self.text_column)
            fields["texts"] = [texts[i] for i in ids.tolist()]
        return Pool(ids=ids, selected=selected, **fields)

    def fingerprint(self, rows: int = 256) -> str:
        """A hash of the number of rows and of `rows` of them at even distances."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in np.unique(np.linspace(0, len(self) - 1, rows).astype(int)).tolist():
            for part in _parts(self.dataset[index]):
                digest.update(part)
        return digest.hexdigest()[:16]

    def column(self, name: str) -> Any:
        """The values of the column `name`, row by row; a `ValueError` where there is no such column."""
        if name not in self.columns:
            raise ValueError(f"`train_dataset` has no column {name!r}; it has {self.columns}")
        if hasattr(self.dataset, "column_names"):
            return self.dataset[name][:]
        return [self.dataset[i][name] for i in range(len(self))]

    def _read_labels(self) -> NDArray[np.int64] | None:
        for column in self._label_names:
            if column in self.columns:
                first = np.asarray(self.dataset[0][column])
                if first.ndim == 0 and np.issubdtype(first.dtype, np.integer):
                    return np.asarray(self.column(column), dtype=np.int64)
        return None


def _parts(row: Any) -> Iterable[bytes]:
    for name, value in named_parts(row):
        if value is not None:
            yield name.encode()
            yield value_bytes(value)


def named_parts(row: Any) -> list[tuple[str, Any]]:
    """What a row holds, by name or place: a mapping, a dataclass or a sequence, sorted where it has no order."""
    if isinstance(row, Mapping):
        return sorted((str(name), value) for name, value in row.items())
    if is_dataclass(row):
        return [(f.name, getattr(row, f.name)) for f in fields(row)]
    return [(str(place), value) for place, value in enumerate(row)]


def value_bytes(value: Any) -> bytes:
    """Bytes that are the same in every process for equal values."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Mapping):
        return b"".join(_framed(part) for name, inner in named_parts(value) for part in (name, inner))
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple, str, Mapping)):
        return b"".join(map(_framed, value))  # perhaps ragged
    array = np.asarray(value)
    return pickle.dumps(value) if array.dtype == object else array.tobytes()  # an object's bytes are its address


def _framed(value: Any) -> bytes:
    part = value_bytes(value)
    return len(part).to_bytes(8, "little") + part
