"""The predictions of a run as a table that pandas, `datasets` and DuckDB read: `predictions.parquet`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .files import PathLike, atomic_path
from .metrics import check_labels, class_names


if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class SplitPredictions:
    """What a classifier said about one split: aligned columns of n rows.

    `ids` are integers or texts (one kind throughout a file), `texts` the inputs, `probabilities` [n, c]; `labels` are
    integers in [0, c), or -1 where unknown, or None if none is known.
    """

    split: str
    ids: Sequence[int] | Sequence[str]
    texts: Sequence[str]
    probabilities: ArrayLike
    labels: ArrayLike | None = None


def write_predictions(path: PathLike, splits: Iterable[SplitPredictions], names: Sequence[str] | None = None) -> Path:
    """Write the predictions of all splits into one parquet file, in one step. Returns `path`.

    Columns: `split`, `id`, `text`, `label` and `prediction` (names of classes; their numbers as text without `names`
    [c]), `probability` of the prediction, `correct`, and `probabilities` (a list of c, in class order; the names are
    also in the file's metadata under "labels"). Where the label is unknown, `label` and `correct` are null. Raises
    `ValueError` if columns differ in length, splits in their number of classes, or labels are out of range.
    """
    import pyarrow.parquet as pq

    parts = list(splits)
    if not parts:
        raise ValueError("`splits` is empty: there are no predictions to write")
    classes = {np.shape(part.probabilities)[-1] for part in parts}
    if len(classes) != 1:
        raise ValueError(f"all splits must have the same number of classes, got {sorted(classes)}")
    labels_of = class_names(names, classes.pop())
    with atomic_path(path) as temporary:
        schema = _schema(parts, labels_of)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in parts:
                for table in _tables(part, labels_of, schema):
                    writer.write_table(table)
    return Path(path)


def _schema(parts: Sequence[SplitPredictions], names: list[str]) -> "pa.Schema":
    import pyarrow as pa

    text_ids = any(isinstance(identity, str) for part in parts for identity in part.ids[:1])
    kinds = {
        "split": pa.string(),
        "id": pa.string() if text_ids else pa.int64(),
        "text": pa.string(),
        "label": pa.string(),
        "prediction": pa.string(),
        "probability": pa.float32(),
        "correct": pa.bool_(),
        "probabilities": pa.list_(pa.float32()),
    }
    return pa.schema(kinds, metadata={"labels": json.dumps(names)})


def _tables(part: SplitPredictions, names: list[str], schema: "pa.Schema") -> Iterator["pa.Table"]:
    """The rows of a split, some thousands at once."""
    p = np.asarray(part.probabilities)
    lengths = {"ids": len(part.ids), "texts": len(part.texts), "probabilities": len(p)}
    labels = np.full(len(p), -1) if part.labels is None else np.asarray(part.labels)
    lengths["labels"] = len(labels)
    if p.ndim != 2 or len(set(lengths.values())) != 1:
        raise ValueError(f"the columns of split {part.split!r} must have one length, got {lengths}")
    check_labels(labels[labels != -1], len(names), f"labels of split {part.split!r}")
    labels = labels.astype(np.int64)
    for start in range(0, len(p), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        chunk = SplitPredictions(part.split, part.ids[rows], part.texts[rows], p[rows], labels[rows])
        yield _table(chunk, names, schema)


def _table(part: SplitPredictions, names: list[str], schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    p = np.asarray(part.probabilities, dtype=np.float32)
    labels, predictions = np.asarray(part.labels), p.argmax(axis=1)
    of_class = np.array([*names, None], dtype=object)
    offsets = np.arange(len(p) + 1, dtype=np.int32) * len(names)
    ids = part.ids.tolist() if isinstance(part.ids, np.ndarray) else list(part.ids)
    columns = {
        "split": [part.split] * len(p),
        "id": ids,
        "text": list(part.texts),
        "label": of_class[labels],
        "prediction": of_class[predictions],
        "probability": p.max(axis=1),
        "correct": pa.array(labels == predictions, pa.bool_(), mask=labels == -1),
        "probabilities": pa.ListArray.from_arrays(offsets, pa.array(p.reshape(-1))),
    }
    return pa.table(columns, schema=schema)
