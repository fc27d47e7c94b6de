"""Data of the expert loop: three labelled splits, and rows that nobody has labelled yet."""

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
from datasets import Dataset

from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import memory_mapped
from tithe.recipes.choice_data import LoopDataArguments, choice_columns, load_choices, question_table
from tithe.recipes.classification import ClassificationData, text_table
from tithe.recipes.data import load_classification_data
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.sources import read_tables
from tithe.recipes.splits import SPLITS


NO_LABEL = -1


def load_loop_data(args: LoopDataArguments) -> ClassificationData:
    """Train, validation and test as `args` say, and as `unlabelled` the rows of `unlabelled_file`, if there is one.

    Of these, those that repeat an earlier one or occur in a split are left out; `report` counts them. Raises
    `DataError`, in one line.
    """
    data = load_choices(args) if args.has_choices else load_classification_data(args)
    if args.unlabelled_file is None:
        return data
    table = _read_unlabelled(args, len(data.id2label))
    known = {key for split in SPLITS for key in _keys(getattr(data, split))}
    keep = np.zeros(len(table), dtype=bool)
    for row, key in enumerate(_keys(table.to_pydict())):
        keep[row] = key not in known
        known.add(key)
    if not keep.any():
        raise DataError(f"`unlabelled_file` {args.unlabelled_file}: every text repeats or occurs in a split")
    table = table.filter(pa.array(keep))
    digest = hashlib.sha256(data.fingerprint.encode())
    for key in _keys(table.to_pydict()):
        digest.update(hashlib.blake2b("\x1f".join(key).encode(), digest_size=8).digest())
    fingerprint = digest.hexdigest()[:32]
    labels = pa.array(np.full(len(table), NO_LABEL, dtype=np.int64))
    folder = cache_dir() / "unlabelled" / fingerprint
    rows = memory_mapped(table.append_column("label", labels), data.train.features, folder, "rows")
    report = {"rows": data.report["rows"] | {"unlabelled": len(rows)}, "unlabelled_repeats": int((~keep).sum())}
    return replace(data, unlabelled=rows, report=data.report | report, fingerprint=fingerprint)


def _read_unlabelled(args: LoopDataArguments, choices: int) -> pa.Table:
    file, name = args.unlabelled_file, f"`unlabelled_file` {args.unlabelled_file}"
    source = replace(args, dataset=None, train_file=file, validation_file=None, test_file=None, unlabelled_file=None)
    if not args.has_choices:
        texts = [args.text_column] if args.text_pair_column is None else [args.text_column, args.text_pair_column]
        columns = Columns(texts, label=None)
        return text_table(read_tables(source, columns)[1]["train"], name, columns)
    table = question_table(read_tables(source, choice_columns(args, labelled=False))[1]["train"], name, args)
    counts = {len(row) for row in table["choices"].to_pylist()}
    if counts != {choices}:
        raise DataError(f"{name}: questions have {sorted(counts)} choices, those of train {choices}")
    return table


def _keys(rows: Dataset | dict[str, list[str]]) -> list[tuple[str, ...]]:
    """What tells the rows apart: their text, or texts."""
    names = [name for name in ("text", "text_pair") if name in (rows if isinstance(rows, dict) else rows.column_names)]
    return list(zip(*(rows[name][:] for name in names), strict=True))
