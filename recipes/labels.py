"""Labels of any kind → 0 … C-1, one encoding for all splits."""

import json
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from tithe.recipes.readers import DataError


_INTEGER = re.compile(r"-?(0|[1-9]\d*)$", re.ASCII)
_TEXT, _WHOLE, _BOOL = "text", "whole numbers", "true and false"


def encode_labels(
    columns: Mapping[str, pa.ChunkedArray], untyped: set[str], names: list[str] | None
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Class ids per split and the name of each id.

    With `names` (a `ClassLabel`'s) the labels are positions in them. Otherwise ids follow the order of the values in
    train: numbers by size, text by code point. `untyped` names the splits from files that know only text: their
    labels are taken for whole numbers where all of them are, so that CSV and JSON of one set get the same ids.

    Raises `DataError` for a missing label, fractions, kinds that differ between splits, a label that train lacks, and
    a train split of one class.
    """
    cleaned = {split: _clean(column, split) for split, column in columns.items()}
    uniques = {split: column.unique().to_pylist() for split, column in cleaned.items()}
    numeric = all(_INTEGER.match(value) for split in untyped for value in uniques[split])
    for split in untyped:
        if numeric:
            cleaned[split] = cleaned[split].cast(pa.int64())
            uniques[split] = [int(value) for value in uniques[split]]
    kinds = {split: _kind(column.type) for split, column in cleaned.items()}
    for split, kind in kinds.items():
        if kind != kinds["train"]:
            raise DataError(f"labels are {kinds['train']} in train but {kind} in {split}")
    values = sorted(uniques["train"])
    if names is not None:
        _check_positions(uniques, names)
    _check_seen(cleaned, set(values), names)
    if len(values) < 2:
        raise DataError(f"all labels of train are {values[0]!r}: there is nothing to learn to tell apart")
    known = list(range(len(names))) if names is not None else values
    value_set = pa.array(known, cleaned["train"].type)
    ids = {split: pc.index_in(column, value_set).to_numpy().astype(np.int64) for split, column in cleaned.items()}
    return ids, dict(enumerate(names if names is not None else map(_name, values)))


def class_names(tables: Mapping[str, pa.Table], label: str | None) -> list[str] | None:
    """The names a `ClassLabel` feature, or a list of them, gives to the labels, if the tables carry one."""
    found = {}
    for split, table in tables.items():
        if b"huggingface" in (table.schema.metadata or {}):
            feature = Features.from_arrow_schema(table.schema)[label]
            found[split] = getattr(getattr(feature, "feature", feature), "names", None)
    names = found.get("train")
    for split in tables:
        if found.get(split) != names:
            raise DataError(f"train and {split} name their classes differently: {names} and {found.get(split)}")
    return names


def rows_of(mask: pa.ChunkedArray | np.ndarray) -> str:
    """The first few rows of a mask in words, counted from 1: `rows 3, 5 and 7`."""
    rows = (np.flatnonzero(np.asarray(mask)) + 1).tolist()
    if len(rows) == 1:
        return f"row {rows[0]}"
    if len(rows) <= 5:
        return f"rows {', '.join(map(str, rows[:-1]))} and {rows[-1]}"
    return f"rows {', '.join(map(str, rows[:5]))}, …"


def _clean(column: pa.ChunkedArray, split: str) -> pa.ChunkedArray:
    """Text, int64 or bool, with no label missing."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        if not pc.all(pc.equal(column, pc.floor(column))).as_py() and column.null_count < len(column):
            raise DataError(f"labels of {split} are numbers with fractions; classes are text or whole numbers")
        column = column.cast(pa.int64())
    elif pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_string())
    elif not (pa.types.is_boolean(column.type) or pa.types.is_null(column.type)):
        raise DataError(f"labels of {split} are {column.type}; they must be text, whole numbers, or true and false")
    missing = pc.is_null(column)
    if pa.types.is_large_string(column.type):
        missing = pc.or_(missing, pc.equal(pc.fill_null(pc.utf8_trim_whitespace(column), ""), ""))
    _refuse_missing(np.asarray(missing), split)
    return column


def _refuse_missing(missing: np.ndarray, split: str) -> None:
    if missing.all():
        hint = f"; leave {split} out (of a data set: `--{split}_split none`), and it is made from train"
        raise DataError(f"no row of {split} has a label{'' if split == 'train' else hint}")
    if missing.any():
        raise DataError(f"{missing.sum()} of {len(missing)} labels of {split} are missing ({rows_of(missing)})")


def _kind(arrow_type: pa.DataType) -> str:
    return _BOOL if pa.types.is_boolean(arrow_type) else _WHOLE if pa.types.is_integer(arrow_type) else _TEXT


def _check_positions(uniques: Mapping[str, list], names: list[str]) -> None:
    for split, values in uniques.items():
        if values == [-1]:
            _refuse_missing(np.ones(1, bool), split)
        bad = [value for value in values if not isinstance(value, int) or not 0 <= value < len(names)]
        if bad:
            raise DataError(
                f"label {bad[0]!r} in {split} is no position in the {len(names)} class names; -1 is no label"
            )


def _check_seen(cleaned: Mapping[str, pa.ChunkedArray], seen: set, names: list[str] | None) -> None:
    for split, column in cleaned.items():
        counts = {pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()}
        unseen = sorted(value for value in counts if value not in seen)
        if unseen:
            listed = ", ".join(
                f"{names[value] if names else value!r} ({counts[value]} row{'s' if counts[value] > 1 else ''})"
                for value in unseen[:5]
            )
            more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
            raise DataError(f"labels of {split} that train does not have: {listed}{more}; a model cannot learn them")


def _name(value: str | int | bool) -> str:
    return value if isinstance(value, str) else json.dumps(value)
