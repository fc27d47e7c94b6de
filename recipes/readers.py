"""Columns out of JSON, JSON Lines, CSV, TSV, Parquet and Arrow files, on disk or behind any fsspec URL.

Text stays text: "NA", "null" and "007" are read as written. Every error is one line that names the file.
"""

import csv
import difflib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq


FORMATS = {
    ".json": "JSON", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".csv": "CSV", ".tsv": "TSV",
    ".parquet": "Parquet", ".arrow": "Arrow",
}  # fmt: skip
COMPRESSIONS = (".gz", ".bz2", ".xz")
_BATCH_ROWS = 10_000
# A row longer than a block is an error in pyarrow's CSV reader, so the block is far above any sensible text.
_CSV_BLOCK_BYTES = 1 << 25


class DataError(ValueError):
    """The data cannot be used as it is; the message is one line."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


@dataclass(frozen=True)
class Columns:
    """Which columns to read: `texts` come as text, null where a cell is something else, the others as they are.

    `words` is the column of the lists of words of tagged sentences; `fields` says which are word and label in a
    line of a CoNLL file. Texts alone, for language models, have no `label`. `optional` are read from where they are,
    as they are: not from CSV, whose cells hold no lists. `flags` says which flag names a column, for errors.
    """

    texts: Sequence[str]
    label: str | None
    words: str | None = None
    fields: tuple[int, int] = (0, -1)
    optional: Sequence[str] = ()
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.texts, *(name for name in (self.words, self.label) if name is not None)]

    def among(self, found: Sequence[str]) -> list[str]:
        """What to read of a table that has the columns `found`: all that are wanted, and the optional ones there."""
        return [*self.names, *(name for name in self.optional if name in found)]


def extension_of(path: str) -> str:
    """`.jsonl` for `s3://bucket/train.jsonl.gz`; the empty string where there is none."""
    name = path.split("?")[0].rsplit("/", 1)[-1].lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return "." + name.rsplit(".", 1)[-1] if "." in name else ""


def read_file(path: str, columns: Columns, storage_options: Mapping[str, Any] | None = None) -> pa.Table:
    """The wanted columns of one file, rows in file order, texts as large strings.

    Raises `DataError` where the file is not what its extension says, lacks a column, or its extension is none of
    `FORMATS`; `FileNotFoundError` where there is none; `ImportError` naming what to install for a URL's file system.
    """
    extension = extension_of(path)
    if extension not in FORMATS:
        raise DataError(
            f"{path}: unknown extension {extension!r}; supported are {', '.join(FORMATS)}, also with "
            f"{', '.join(COMPRESSIONS)} behind"
        )
    with opened(path, storage_options) as file:
        try:
            if extension in (".csv", ".tsv"):
                return _read_delimited(path, file, columns, "," if extension == ".csv" else "\t")
            if extension == ".parquet":
                return _read_parquet(path, file, columns)
            if extension == ".arrow":
                return _read_arrow(path, file, columns)
            return _read_json(path, file, columns)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise DataError(f"{path}: is not {FORMATS[extension]} in UTF-8: it has the byte 0x{byte:02x}") from None
        except UnicodeEncodeError as error:
            raise DataError(f"{path}: half a surrogate pair is no text: {ascii(error.object)[:60]}") from None
        except (pa.ArrowInvalid, EOFError) as error:
            raise DataError(f"{path}: is not readable as {FORMATS[extension]}: {error}") from None


@contextmanager
def opened(path: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[BinaryIO]:
    """The bytes of a local file or URL, decompressed."""
    try:
        source = fsspec.open(os.path.expanduser(path), "rb", compression="infer", **(storage_options or {}))
    except (ImportError, ValueError, TypeError) as error:
        raise unusable_filesystem(path, error) from None
    try:
        with source as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; pass a folder as `--dataset`") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def unusable_filesystem(path: str, error: Exception) -> Exception:
    """In words, why fsspec has no file system for a URL: what to install, or what is wrong with the URL or options."""
    if isinstance(error, ImportError):
        is_s3 = path.startswith(("s3://", "s3a://"))
        return ImportError(
            f'{path}: reading from S3 needs s3fs: pip install "tithe[s3]"' if is_s3 else f"{path}: {error}"
        )
    return DataError(f"{path}: no file system for this URL with these `storage_options`: {error}")


def require_columns(path: str, found: Sequence[str], columns: Columns) -> None:
    """Raise a `DataError` that lists the columns found and guesses, unless all that are wanted are there."""
    usual = {columns.words: "words_column", columns.label: "label_column"}
    for name in columns.names:
        flag = columns.flags.get(name) or usual.get(name, "text_column")
        if found.count(name) > 1:
            raise DataError(f"{path}: has {found.count(name)} columns called {name!r}")
        if name not in found:
            near = difflib.get_close_matches(name.lower(), [f.lower() for f in found], n=1, cutoff=0.5)
            guess = next((f for f in found if near and f.lower() == near[0]), None)
            hint = f"; did you mean `--{flag} {guess}`?" if guess else f"; name one of them with `--{flag}`"
            listed = ", ".join(map(repr, [str(f)[:60] for f in found[:30]])) or "none"
            raise DataError(f"{path}: no column {name!r} (`{flag}`); found {listed}{hint}")


def text_array(column: pa.ChunkedArray, path: str, name: str) -> pa.ChunkedArray:
    """The column as large strings, or a `DataError` where its type is not text."""
    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(value_type) or pa.types.is_string(value_type) or pa.types.is_large_string(value_type):
        return column.cast(pa.large_string())
    if str(value_type) == "string_view":
        return column.cast(pa.large_string())
    raise DataError(f"{path}: column {name!r} holds {value_type}, not text; is another meant by `--text_column`?")


def select_columns(table: pa.Table, path: str, columns: Columns) -> pa.Table:
    """The wanted columns of a table that has been read, schema metadata kept."""
    require_columns(path, table.column_names, columns)
    arrays = {name: text_array(table[name], path, name) for name in columns.texts}
    arrays |= {name: table[name] for name in columns.among(table.column_names) if name not in arrays}
    return pa.table(arrays).replace_schema_metadata(table.schema.metadata)


def _read_parquet(path: str, file: BinaryIO, columns: Columns) -> pa.Table:
    parquet = pq.ParquetFile(file)
    require_columns(path, parquet.schema_arrow.names, columns)
    return select_columns(parquet.read(columns.among(parquet.schema_arrow.names)), path, columns)


def _read_arrow(path: str, file: BinaryIO, columns: Columns) -> pa.Table:
    start = file.read(6)
    file.seek(0)
    reader = pa.ipc.open_file(file) if start == b"ARROW1" else pa.ipc.open_stream(file)
    return select_columns(reader.read_all(), path, columns)


def _read_delimited(path: str, file: BinaryIO, columns: Columns, delimiter: str) -> pa.Table:
    content = io.BytesIO(file.read())
    if not content.getbuffer().nbytes:
        raise DataError(f"{path}: is empty")
    lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
    header = next(csv.reader(lines, delimiter=delimiter), [])
    lines.detach()
    content.seek(0)
    if header and re.match(r"\s*[\[{]\s*[\"{\]}]", delimiter.join(header)):
        raise DataError(f"{path}: is not {FORMATS[extension_of(path)]}: line 1 looks like JSON")
    require_columns(path, header, columns)
    table = pa_csv.read_csv(
        content,
        pa_csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
        pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.large_string()), include_columns=columns.names),
    )
    return table.replace_schema_metadata({"untyped": "true"})


def _read_json(path: str, file: BinaryIO, columns: Columns) -> pa.Table:
    found: dict[str, None] = {}
    texts: dict[str, list[pa.Array]] = {name: [] for name in columns.texts}
    others: dict[str, list[Any]] = {n: [] for n in (columns.words, columns.label, *columns.optional) if n is not None}
    rows_read: list[int] = []
    batch: list[dict[str, Any]] = []

    def flush() -> None:
        for name, chunks in texts.items():
            cells = [row.get(name) for row in batch]
            chunks.append(pa.array([cell if isinstance(cell, str) else None for cell in cells], pa.large_string()))
        rows_read.append(len(batch))
        for name, cells in others.items():
            cells.extend(row.get(name) for row in batch)
        batch.clear()

    for row in _json_rows(path, file):
        found.update(dict.fromkeys(row))
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            flush()
    flush()
    if any(rows_read):
        require_columns(path, list(found), columns)
    arrays: dict[str, Any] = {n: pa.chunked_array(chunks, pa.large_string()) for n, chunks in texts.items()}
    arrays |= {n: _label_array(path, n, cells) for n, cells in others.items() if n in found or n in columns.names}
    return pa.table(arrays)


def _json_rows(path: str, file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The objects of a list, or of one per line: which of the two is told by the first character."""
    lines = io.TextIOWrapper(file, encoding="utf-8-sig")
    numbered: Iterable[tuple[int, Any]]
    first = next((line for line in lines if line.strip()), "")
    lines.seek(0)
    if first.lstrip().startswith("["):
        try:
            rows = json.load(lines)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: is not JSON: {error}") from None
        numbered = enumerate(rows, start=1)
        unit = "item"
    else:
        numbered = (
            (number, _parse_line(path, number, line)) for number, line in enumerate(lines, start=1) if line.strip()
        )
        unit = "line"
    for number, row in numbered:
        if not isinstance(row, dict):
            raise DataError(f"{path}: {unit} {number} is not an object with columns but {str(row)[:40]!r}")
        yield row


def _parse_line(path: str, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: is not {FORMATS[extension_of(path)]}: line {number}: {error.msg} at column {error.colno}, "
            f"got {line.strip()[:40]!r}"
        ) from None


def _label_array(path: str, name: str, labels: list[Any]) -> pa.Array:
    kinds = {type(label).__name__ for label in labels} - {"NoneType"}
    if len(kinds) > 1 and kinds != {"int", "float"}:
        raise DataError(f"{path}: column {name!r} mixes {' and '.join(sorted(kinds))}; its cells must be of one type")
    try:
        return pa.array(labels)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{path}: column {name!r} cannot be read: {error}") from None
