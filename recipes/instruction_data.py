"""Instructions, inputs and outputs: what a sequence-to-sequence recipe trains on, from any source."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value

from tithe.evaluation import LANGUAGES
from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import memory_mapped
from tithe.recipes.corpus import CORPUS_NAME, hash_of, keywords_of, split_of
from tithe.recipes.data_arguments import SourceArguments
from tithe.recipes.harvest import harvest
from tithe.recipes.labels import rows_of
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.sources import read_tables
from tithe.recipes.splits import SPLITS, SplitRows, finish_splits


API_INSTRUCTION = "Make a sentence of:"
API_KEYWORDS, API_WORDS = 2, 12  # keywords at least, words at most
NONE = "none"


@dataclass
class InstructionArguments(SourceArguments):
    """Where the rows come from, which columns count, and how long they may be."""

    instruction_column: str = field(
        default="instruction", metadata={"help": f"Column of the instruction; `{NONE}` if there is no such column."}
    )
    input_column: str = field(
        default="input",
        metadata={"help": f"Column of what the instruction is about, cells may be empty; `{NONE}` if there is none."},
    )
    output_column: str = field(default="output", metadata={"help": "Column of the text to write."})
    references_column: str = field(
        default=NONE,
        metadata={
            "help": "Column of validation and test with a list of texts, all of them right, that an output is scored "
            f"against; rows without, and with `{NONE}` all rows, are scored against their output."
        },
    )
    max_input_length: int = field(
        default=100, metadata={"help": "Tokens of instruction and input; longer ones are cut at their end."}
    )
    max_output_length: int = field(
        default=200, metadata={"help": "Tokens of an output: longer ones are cut, and no longer ones are generated."}
    )
    language: str = field(
        default="en", metadata={"help": "Language of the outputs, such as `en` or `ru`: METEOR stems its words."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns:
            raise ValueError(f"`instruction_column` and `input_column` cannot both be `{NONE}`")
        if len({*self.columns, self.output_column}) <= len(self.columns):
            raise ValueError("`instruction_column`, `input_column` and `output_column` must be different columns")
        for name in ("max_input_length", "max_output_length"):
            if getattr(self, name) < 8:
                raise ValueError(f"`{name}` must be at least 8 tokens, got {getattr(self, name)}")
        if self.language.lower() not in {*LANGUAGES, *LANGUAGES.values()}:
            raise ValueError(f"`language` must be one of {', '.join(LANGUAGES)}; got {self.language!r}")

    @property
    def columns(self) -> list[str]:
        """The columns that make the source, in order."""
        return [name for name in (self.instruction_column, self.input_column) if name != NONE]


@dataclass(frozen=True)
class InstructionData:
    """Three memory-mapped splits with the columns `source` and `target`, and `references` where they were asked for.

    `fingerprint` is a hash of the texts and their order; `report` has `rows` per split, `made` and `duplicates`, as
    `tithe.recipes.splits.finish_splits` gives them: rows of one source and several targets are `conflicting`.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    name: str
    fingerprint: str
    report: dict[str, Any]


def load_instruction_data(args: InstructionArguments) -> InstructionData:
    """Train, validation and test as `args` say; with no data named, keywords and summaries of the embedded corpus.

    Raises `DataError`, `FileNotFoundError` or `ImportError` (a missing extra), each in one line.

    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "rows.jsonl")
    >>> rows = [{"instruction": "Add.", "input": f"{n} + 1", "output": str(n + 1)} for n in range(20)]
    >>> _ = path.write_text("\\n".join(map(json.dumps, rows)))
    >>> data = load_instruction_data(InstructionArguments(train_file=str(path)))
    >>> data.report["rows"], data.train[0]["source"].splitlines()[0]
    ({'train': 16, 'validation': 2, 'test': 2}, 'Add.')
    """
    if args.train_file is None and args.dataset in (None, CORPUS_NAME):
        return _assembled(api_instruction_tables(harvest()), CORPUS_NAME, args)
    extra = [] if args.references_column == NONE else [args.references_column]
    flags = {getattr(args, flag): flag for flag in ("instruction_column", "input_column", "output_column")}
    columns = Columns([*args.columns, args.output_column], None, optional=extra, flags=flags)
    name, tables = read_tables(args, columns)
    if extra and not any(args.references_column in table.column_names for table in tables.values()):
        raise DataError(f"no split of {name} has a column {args.references_column!r} (`references_column`)")
    return _assembled({split: _joined(table, split, args) for split, table in tables.items()}, name, args)


def api_instruction_tables(records: pa.Table) -> dict[str, pa.Table]:
    """Write a short summary from its keywords, which are its words in lower case without scikit-learn's stop words.

    Each summary is there once, in the split that the hash of its words says; those of over `API_WORDS` words or under
    `API_KEYWORDS` keywords are not.
    """
    rows: dict[str, tuple[str, str]] = {}
    for text in records["text"].to_pylist():
        key, keywords = keywords_of(text)
        if len(keywords) >= API_KEYWORDS and len(key.split()) <= API_WORDS:
            rows.setdefault(key, (f"{API_INSTRUCTION}\n{' '.join(keywords)}", text))
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for number, row in sorted((hash_of(key), row) for key, row in rows.items()):
        splits[split_of(number)].append(row)
    return {split: _table(*zip(*found, strict=True)) for split, found in splits.items() if found}


def _table(sources: Any, targets: Any) -> pa.Table:
    return pa.table({"source": pa.array(sources, pa.large_string()), "target": pa.array(targets, pa.large_string())})


def _joined(table: pa.Table, split: str, args: InstructionArguments) -> pa.Table:
    """Source and target of each row; a `DataError` where one of them is empty."""
    if not len(table):
        raise DataError(f"{split} is empty: it has no rows")
    parts = zip(*(table[name].to_pylist() for name in args.columns), strict=True)
    sources = ["\n".join(part.strip() for part in row if part and part.strip()) for row in parts]
    targets = [(text or "").strip() for text in table[args.output_column].to_pylist()]
    for texts, what in ((sources, "have neither instruction nor input"), (targets, "have an empty target")):
        bad = np.array([not text for text in texts])
        if bad.any():
            raise DataError(f"{split}: {bad.sum()} of {len(bad)} rows {what} ({rows_of(bad)})")
    joined = _table(sources, targets)
    return joined if args.references_column == NONE else _with_references(joined, table, split, args)


def _with_references(joined: pa.Table, table: pa.Table, split: str, args: InstructionArguments) -> pa.Table:
    """`joined`, and for each row the texts that its output is scored against: its target, where there are none."""
    cells: list[Any] = [None] * len(table)
    if args.references_column in table.column_names:
        cells = table[args.references_column].to_pylist()
    texts: list[Any] = [[cell] if isinstance(cell, str) else cell or [] for cell in cells]
    bad = np.array([not isinstance(row, list) or any(not isinstance(text, str) for text in row) for row in texts])
    if bad.any():
        raise DataError(
            f"{split}: {bad.sum()} of {len(bad)} rows have references that are no texts ({rows_of(bad)}, "
            f"`references_column` {args.references_column})"
        )
    kept = [[text.strip() for text in row if text.strip()] for row in texts]
    found = [row or [target] for row, target in zip(kept, joined["target"].to_pylist(), strict=True)]
    return joined.append_column("references", pa.array(found, pa.list_(pa.large_string())))


def _assembled(tables: Mapping[str, pa.Table], name: str, args: InstructionArguments) -> InstructionData:
    splits = {split: _rows(tables[split]) for split in SPLITS if split in tables}
    report = finish_splits(splits, args, lambda train: _hashes(train.table["target"].to_pylist()))
    digest = hashlib.sha256()
    for split in SPLITS:
        table = splits[split].table
        targets = _hashes(table["target"].to_pylist())
        digest.update(f"{split}:{len(targets)}".encode() + splits[split].hashes.tobytes() + targets.tobytes())
        if "references" in table.column_names:
            digest.update(json.dumps(table["references"].to_pylist()).encode())
    fingerprint = digest.hexdigest()[:32]
    text = Value("large_string")
    columns: dict[str, Any] = {"source": text, "target": text}
    if "references" in splits["train"].table.column_names:
        columns["references"] = datasets.List(text)
    features, folder = Features(columns), cache_dir() / "instructions" / fingerprint
    mapped = {split: memory_mapped(splits[split].table, features, folder, split) for split in SPLITS}
    rows = {split: len(mapped[split]) for split in SPLITS}
    return InstructionData(**mapped, name=name, fingerprint=fingerprint, report={"rows": rows, **report})


def _rows(table: pa.Table) -> SplitRows:
    return SplitRows(table, _hashes(table["source"].to_pylist()), np.zeros(len(table), dtype=np.int64))


def _hashes(texts: list[str]) -> np.ndarray:
    return np.array([hash_of(text) for text in texts], dtype=np.uint64)
