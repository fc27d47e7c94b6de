"""Raw tables → a checked, encoded, split and memory-mapped text classification set."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from tithe.recipes.caching import cache_dir, published
from tithe.recipes.data_arguments import DataArguments
from tithe.recipes.labels import encode_labels, rows_of
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.splits import carve, count_duplicates, distinct_rows, stratified_sample


SPLITS = ("train", "validation", "test")
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


@dataclass
class _Split:
    table: pa.Table
    hashes: np.ndarray
    labels: np.ndarray

    def rows(self, chosen: np.ndarray) -> "_Split":
        indices = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return _Split(self.table.take(pa.array(indices)), self.hashes[indices], self.labels[indices])


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
        _class_names(tables, columns.label),
    )
    splits = {
        split: _Split(_texts(table, columns), _row_hashes(table, columns), labels[split])
        for split, table in tables.items()
    }
    made = [split for split in SPLITS if split not in splits]
    _make_missing(splits, args)
    duplicates = _count_and_deduplicate(splits, args.deduplicate)
    for number, split in enumerate(SPLITS):
        limit = args.max_train_samples if split == "train" else args.max_eval_samples
        if limit is not None and limit < len(splits[split].labels):
            rng = np.random.default_rng([args.split_seed, 10 + number])
            splits[split] = splits[split].rows(stratified_sample(splits[split].labels, limit, rng))
    return _result(splits, id2label, name, {"duplicates": duplicates, "made": made})


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


def _class_names(tables: Mapping[str, pa.Table], label: str) -> list[str] | None:
    """The names a `ClassLabel` feature gives to the labels, if the tables carry one."""
    found = {}
    for split, table in tables.items():
        if b"huggingface" in (table.schema.metadata or {}):
            feature = Features.from_arrow_schema(table.schema)[label]
            found[split] = getattr(feature, "names", None)
    names = found.get("train")
    for split in tables:
        if found.get(split) != names:
            raise DataError(f"train and {split} name their classes differently: {names} and {found.get(split)}")
    return names


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


def _make_missing(splits: dict[str, _Split], args: DataArguments) -> None:
    fractions = {"test": args.test_fraction, "validation": args.validation_fraction}
    remaining = 1.0
    for number, (split, fraction) in enumerate(fractions.items()):
        if split in splits:
            continue
        train = splits["train"]
        rng = np.random.default_rng([args.split_seed, number])
        mask = carve(train.hashes, train.labels, fraction / remaining, rng)
        if not mask.any():
            raise DataError(
                f"train ({len(mask)} rows) has no class with two texts to make {split} from; give {split} data"
            )
        splits[split], splits["train"] = train.rows(mask), train.rows(~mask)
        remaining -= fraction


def _count_and_deduplicate(splits: dict[str, _Split], remove: bool) -> dict[str, int]:
    hashes = {split: splits[split].hashes for split in SPLITS}
    train = splits["train"]
    counts = count_duplicates(hashes, train.labels)
    if remove:
        splits["train"] = train.rows(distinct_rows(hashes, train.labels))
        if not len(splits["train"].labels):
            raise DataError("`--deduplicate` leaves nothing of train: every text repeats or occurs in another split")
    return {**counts, "removed": len(train.labels) - len(splits["train"].labels)}


def _result(
    splits: Mapping[str, _Split], id2label: dict[int, str], name: str, report: dict[str, Any]
) -> ClassificationData:
    digest = hashlib.sha256(json.dumps([*id2label.values(), splits["train"].table.column_names]).encode())
    for split in SPLITS:
        digest.update(f"{split}:{len(splits[split].labels)}".encode())
        digest.update(splits[split].hashes.astype("<u8").tobytes() + splits[split].labels.astype("<i8").tobytes())
    fingerprint = digest.hexdigest()[:32]
    folder = cache_dir() / "classification" / fingerprint
    mapped = {split: _memory_mapped(splits[split], folder / f"{split}.arrow") for split in SPLITS}
    counts = {split: np.bincount(splits[split].labels, minlength=len(id2label)) for split in SPLITS}
    report = {
        "rows": {split: len(splits[split].labels) for split in SPLITS},
        "class_counts": {split: dict(zip(id2label.values(), counts[split].tolist(), strict=True)) for split in SPLITS},
        **report,
    }
    return ClassificationData(**mapped, id2label=id2label, name=name, fingerprint=fingerprint, report=report)


def _memory_mapped(split: _Split, path: Path) -> Dataset:
    """The split as a dataset on disk; the file is named after its content, so one that is there is taken."""
    try:
        dataset = Dataset.from_file(str(path))
        if len(dataset) == len(split.labels):
            return dataset
    except (OSError, pa.ArrowInvalid):  # absent, or damaged: written anew
        pass
    features = Features({**{name: Value("string") for name in split.table.column_names}, "label": Value("int64")})
    with published(path) as temporary, pa.ipc.new_stream(str(temporary), features.arrow_schema) as writer:
        for batch in _batches(split, features.arrow_schema):
            writer.write_batch(batch)
    return Dataset.from_file(str(path))


def _batches(split: _Split, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    table = split.table.append_column("label", pa.array(split.labels))
    for start in range(0, len(table), _BATCH_ROWS):
        yield from table.slice(start, _BATCH_ROWS).combine_chunks().cast(schema).to_batches()
