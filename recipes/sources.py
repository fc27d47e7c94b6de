"""Raw tables of the splits, from files, a folder, a saved data set, or the hub."""

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import datasets
import fsspec
import pyarrow as pa

from tithe.evaluation import mask
from tithe.recipes.conll import CONLL_FORMATS, read_conll
from tithe.recipes.data_arguments import SourceArguments
from tithe.recipes.readers import (
    COMPRESSIONS,
    FORMATS,
    Columns,
    DataError,
    extension_of,
    opened,
    read_file,
    select_columns,
    unusable_filesystem,
)


_NAMES = {"train": ("train",), "validation": ("validation", "dev", "valid", "val"), "test": ("test",)}
TEXT_FORMATS = {".txt": "text"}
_SAVED = {"dataset_dict.json", "state.json"}
# `train.jsonl`, or one of the shards `train-00000-of-00002.parquet`
_SHARD = re.compile(r"(?P<name>.+?)(-\d+-of-\d+)?(\.\w+)+")


def read_tables(args: SourceArguments, columns: Columns) -> tuple[str, dict[str, pa.Table]]:
    """A name for the data, and the wanted columns of each split that is there; train is, unless a task needs none."""
    options = args.storage_options or {}
    files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    given = {split: path for split, path in files.items() if path is not None}
    if given:
        return _name_of(next(iter(given.values()))), {
            split: _read(path, columns, options) for split, path in given.items()
        }
    assert args.dataset is not None
    path = os.path.expanduser(args.dataset)
    if "://" in path or os.path.isdir(path):
        return _name_of(path), _read_folder(path, args, columns, options)
    if os.path.isfile(path):
        return _name_of(path), {"train": _read(path, columns, options)}
    if path.startswith(("/", ".")) or extension_of(path) in _formats(columns):
        raise FileNotFoundError(f"`dataset` {args.dataset}: no such folder or file")
    return args.dataset, _from_dataset_dict(_load_from_hub(args), args, columns)


def _name_of(path: str) -> str:
    """The last part of a path or URL, without the query of a URL, which may hold a key."""
    path = path.split("?")[0] if "://" in path else path
    return mask(os.path.basename(path.rstrip("/")))


def _load_from_hub(args: SourceArguments) -> datasets.DatasetDict:
    try:
        loaded = datasets.load_dataset(args.dataset, args.dataset_config, revision=args.dataset_revision)
    except Exception as error:  # the hub, the network and the set's own files fail in many ways
        raise DataError(
            f"`dataset` {args.dataset!r}: no folder here has this name, and loading it from the Hugging Face hub "
            f"failed ({type(error).__name__}: {error}); for local data pass files as `--train_file`, or a folder"
        ) from error
    return loaded


def _read_folder(
    path: str, args: SourceArguments, columns: Columns, options: Mapping[str, Any]
) -> dict[str, pa.Table]:
    try:
        filesystem, root = fsspec.url_to_fs(path, **options)
        listed = [os.path.basename(entry) for entry in filesystem.ls(root, detail=False)]
    except FileNotFoundError:
        raise FileNotFoundError(f"`dataset` {path}: no such folder") from None
    except (ImportError, ValueError, TypeError) as error:
        raise unusable_filesystem(path, error) from None
    if _SAVED & set(listed):
        try:
            saved = datasets.load_from_disk(path, storage_options=dict(options) or None)
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            raise DataError(f"`dataset` {path}: cannot be read as what `save_to_disk` wrote: {error}") from None
        saved = datasets.DatasetDict(train=saved) if isinstance(saved, datasets.Dataset) else saved
        return _from_dataset_dict(saved, args, columns)
    files = _files_by_name(listed, columns)
    prefix = path.rstrip("/")
    if not files and "data" in listed:
        return _read_folder(f"{prefix}/data", args, columns, options)
    chosen = _choose_splits(list(files), args, path, columns)
    return {
        split: _concatenated([_read(f"{prefix}/{file}", columns, options) for file in files[name]])
        for split, name in chosen.items()
    }


def _formats(columns: Columns) -> dict[str, str]:
    """Extensions of the files that can hold such columns: a table of text cells has no lists of words."""
    if columns.label is None and columns.words is None:
        return FORMATS | TEXT_FORMATS
    if columns.words is None:
        return FORMATS
    return {extension: name for extension, name in FORMATS.items() if name not in ("CSV", "TSV")} | CONLL_FORMATS


def _read(path: str, columns: Columns, options: Mapping[str, Any]) -> pa.Table:
    extension = extension_of(path)
    if columns.words is not None and extension not in _formats(columns):
        raise DataError(
            f"{path}: unknown extension {extension!r} for tagged sentences; supported are "
            f"{', '.join(_formats(columns))}, also with {', '.join(COMPRESSIONS)} behind"
        )
    if extension in TEXT_FORMATS and extension in _formats(columns):
        return _read_lines(path, columns, options)
    is_conll = columns.words is not None and extension in CONLL_FORMATS
    return read_conll(path, columns, options) if is_conll else read_file(path, columns, options)


def _read_lines(path: str, columns: Columns, options: Mapping[str, Any]) -> pa.Table:
    """A text file as one column: each line that is not blank is a row."""
    with opened(path, options) as file:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: is not text in UTF-8: it has the byte 0x{error.object[error.start]:02x}"
            ) from None
    return pa.table({columns.texts[0]: pa.array([line for line in lines if line.strip()], pa.large_string())})


def _files_by_name(listed: list[str], columns: Columns) -> dict[str, list[str]]:
    """Split name → its file, or its shards in order; a name with files of several formats is an error."""
    files: dict[str, list[str]] = {}
    for file in sorted(listed):
        match = _SHARD.fullmatch(file)
        if match and extension_of(file) in _formats(columns):
            files.setdefault(match["name"], []).append(file)
    for name, found in files.items():
        is_sharded = all("-of-" in file for file in found)
        if len(found) > 1 and (not is_sharded or len({PurePosixPath(file).suffix for file in found}) > 1):
            raise DataError(f"{' and '.join(found)} are all called {name!r}; keep one, or name it with `--train_file`")
    return files


def _choose_splits(found: list[str], args: SourceArguments, source: str, columns: Columns) -> dict[str, str]:
    """Which of the splits found is train, which validation, which test; the last two may be missing."""
    chosen = {}
    for split, usual in _NAMES.items():
        wanted = getattr(args, f"{split}_split")
        if wanted is not None and wanted not in (*found, "none"):
            raise DataError(f"{source}: no split {wanted!r} (`{split}_split`); found {', '.join(found) or 'none'}")
        names = [name for name in usual if name in found] if wanted is None else [wanted]
        if len(names) > 1:
            raise DataError(f"{source}: {' and '.join(names)} may all be {split}; name one with `--{split}_split`")
        if names and names[0] != "none":
            chosen[split] = names[0]
    if "train" not in chosen and args.needs_train:
        formats = ", ".join([*_formats(columns), *COMPRESSIONS])
        raise DataError(
            f"{source}: no split called train; found {', '.join(found) or 'none'} (files may end in {formats}); "
            "name one with `--train_split`"
        )
    if len(set(chosen.values())) < len(chosen):
        raise DataError(f"{source}: one split cannot be two of train, validation and test; got {chosen}")
    return chosen


def _from_dataset_dict(loaded: datasets.DatasetDict, args: SourceArguments, columns: Columns) -> dict[str, pa.Table]:
    source = f"`dataset` {args.dataset}"
    tables = {}
    for split, name in _choose_splits(list(loaded), args, source, columns).items():
        dataset = loaded[name]
        if set(columns.names) <= set(dataset.column_names):
            dataset = dataset.select_columns(columns.among(dataset.column_names))
        table = dataset.with_format("arrow")[:].replace_schema_metadata(dataset.features.arrow_schema.metadata)
        tables[split] = select_columns(table, source, columns)
    return tables


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise DataError(f"the shards of one split differ in their columns: {error}") from None
