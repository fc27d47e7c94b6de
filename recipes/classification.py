"""Raw tables → a checked, encoded, split and memory-mapped text classification set."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import memory_mapped
from tithe.recipes.data_arguments import DataArguments
from tithe.recipes.labels import class_names, encode_labels, rows_of
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.splits import SPLITS, SplitRows, finish_splits


_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class ClassificationData:
    """Three memory-mapped splits with the columns `text`, `text_pair` (only if asked for) and `label` (0 … C-1).

    `fingerprint` is a hash of the content: rows, labels, their order and the class names. `report` has `rows` and
    `class_counts` per split as they are, and, counted before anything was removed or subset, `duplicates`: `train`
    (rows that repeat an earlier one), `train_validation` and `train_test` (rows of these that occur in train),
    `conflicting` (texts of train with several labels), and `removed`; `made` names the splits made from train.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    id2label: dict[int, str]
    name: str
    fingerprint: str
    report: dict[str, Any]
    unlabelled: Dataset | None = None


def assemble(tables: Mapping[str, pa.Table], columns: Columns, name: str, args: DataArguments) -> ClassificationData:
    """Check, encode, split, deduplicate and subset raw `tables` (at least `train`) as `args` say.

    The result depends on the rows and on `args` alone, not on the number of processes. Raises `DataError`, in one
    line, for the first thing found wrong.
    """
    tables = {split: tables[split] for split in SPLITS if split in tables}
    for split, table in tables.items():
        _check_texts(table, split, columns)
    labels, id2label = encode_labels(
        {split: table[columns.label] for split, table in tables.items()},
        {split for split, table in tables.items() if b"untyped" in (table.schema.metadata or {})},
        class_names(tables, columns.label),
    )
    splits = {
        split: SplitRows(_texts(table, columns), _row_hashes(table, columns), labels[split])
        for split, table in tables.items()
    }
    return _result(splits, id2label, name, finish_splits(splits, args))


def text_table(table: pa.Table, what: str, columns: Columns) -> pa.Table:
    """`text` and, if asked for, `text_pair` of the rows of `table`; a `DataError` about `what` where one is empty."""
    _check_texts(table, what, columns)
    return _texts(table, columns)


def _check_texts(table: pa.Table, split: str, columns: Columns) -> None:
    if not len(table):
        raise DataError(f"{split} is empty: it has no rows")
    for column in columns.texts:
        trimmed = pc.utf8_trim_whitespace(table[column])
        bad = np.asarray(pc.fill_null(pc.equal(trimmed, ""), True))
        if bad.any():
            raise DataError(
                f"column {column!r} of {split}: {bad.sum()} of {len(bad)} cells are empty or not text ({rows_of(bad)})"
            )


def _texts(table: pa.Table, columns: Columns) -> pa.Table:
    return pa.table({name: table[column] for name, column in zip(("text", "text_pair"), columns.texts, strict=False)})


def _row_hashes(table: pa.Table, columns: Columns) -> np.ndarray:
    """64 bits of a hash per row over its text or texts."""
    hashes = np.empty(len(table), np.uint64)
    start = 0
    for batch in table.select(list(columns.texts)).to_batches(_BATCH_ROWS):
        for offset, texts in enumerate(zip(*(column.to_pylist() for column in batch.columns), strict=True)):
            digest = hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).digest()
            hashes[start + offset] = int.from_bytes(digest, "little")
        start += len(batch)
    return hashes


def _result(
    splits: Mapping[str, SplitRows], id2label: dict[int, str], name: str, report: dict[str, Any]
) -> ClassificationData:
    digest = hashlib.sha256(json.dumps([*id2label.values(), splits["train"].table.column_names]).encode())
    for split in SPLITS:
        digest.update(f"{split}:{len(splits[split].labels)}".encode())
        digest.update(splits[split].hashes.astype("<u8").tobytes() + splits[split].labels.astype("<i8").tobytes())
    fingerprint = digest.hexdigest()[:32]
    folder = cache_dir() / "classification" / fingerprint
    texts = {name: Value("string") for name in splits["train"].table.column_names}
    features = Features({**texts, "label": Value("int64")})
    mapped = {
        split: memory_mapped(rows.table.append_column("label", pa.array(rows.labels)), features, folder, split)
        for split, rows in splits.items()
    }
    counts = {split: np.bincount(splits[split].labels, minlength=len(id2label)) for split in SPLITS}
    report = {
        "rows": {split: len(splits[split].labels) for split in SPLITS},
        "class_counts": {split: dict(zip(id2label.values(), counts[split].tolist(), strict=True)) for split in SPLITS},
        **report,
    }
    return ClassificationData(**mapped, id2label=id2label, name=name, fingerprint=fingerprint, report=report)
