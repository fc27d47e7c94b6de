"""Texts for the recipes that train language models: three splits, from any source, packed into blocks of tokens."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import memory_mapped
from tithe.recipes.corpus import CORPUS_NAME, MIN_WORDS, hash_of, split_of
from tithe.recipes.data_arguments import SourceArguments
from tithe.recipes.harvest import harvest
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.sources import read_tables
from tithe.recipes.splits import SPLITS, SplitRows, finish_splits


@dataclass
class LanguageArguments(SourceArguments):
    """Where the texts come from, and how long the blocks are that a language model reads."""

    train_file: str | None = field(
        default=None,
        metadata={
            "help": "Plain text (.txt), JSON (.json), JSON Lines (.jsonl, .ndjson), CSV, TSV, Parquet or Arrow file, "
            "local or a URL such as s3://bucket/train.txt; also compressed (.gz, .bz2, .xz)."
        },
    )
    text_column: str = field(
        default="text",
        metadata={"help": "Column with the texts. Of a .txt file each line that is not blank is a text."},
    )
    block_size: int = field(
        default=128, metadata={"help": "Tokens of a block. Texts, each with its end, are packed into blocks."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 8:
            raise ValueError(f"`block_size` must be at least 8 tokens, got {self.block_size}")


@dataclass(frozen=True)
class LanguageData:
    """Three memory-mapped splits with the column `text`.

    `fingerprint` is a hash of the texts and their order. `report` has `rows` per split, `empty` (blank texts, left
    out), `duplicates` counted before any were removed, and `made`, the splits that were made from train.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    name: str
    fingerprint: str
    report: dict[str, Any]


def load_language_data(args: LanguageArguments) -> LanguageData:
    """Train, validation and test as `args` say; with no data named, the summaries of the embedded corpus.

    Reads what `train_file` takes, text files, folders, and data sets of the hub. Missing splits are made from train by
    `args.split_seed`. Raises `DataError`, `FileNotFoundError` or `ImportError` (a missing extra), each in one line.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "lines.txt")
    >>> _ = path.write_text("".join(f"line number {n}\\n" for n in range(20)))
    >>> load_language_data(LanguageArguments(train_file=str(path))).report["rows"]
    {'train': 16, 'validation': 2, 'test': 2}
    """
    if args.train_file is None and args.dataset in (None, CORPUS_NAME):
        return _assembled(api_text_tables(harvest()), "text", CORPUS_NAME, args)
    name, tables = read_tables(args, Columns([args.text_column], None))
    return _assembled(tables, args.text_column, name, args)


def api_text_tables(records: pa.Table) -> dict[str, pa.Table]:
    """Splits of harvested summaries of at least `MIN_WORDS` words, each text once, by the hash of its words."""
    texts: dict[str, str] = {}
    for text in records["text"].to_pylist():
        if len(re.findall(r"[^\W\d_]+", text)) >= MIN_WORDS:
            texts.setdefault(" ".join(re.findall(r"\w+", text.lower())), text)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, text in sorted((hash_of(key), text) for key, text in texts.items()):
        splits[split_of(number)].append(text)
    return {split: pa.table({"text": pa.array(rows, pa.large_string())}) for split, rows in splits.items()}


def _assembled(tables: Mapping[str, pa.Table], column: str, name: str, args: LanguageArguments) -> LanguageData:
    report: dict[str, Any] = {"empty": {}}
    splits = {}
    for split in (split for split in SPLITS if split in tables):
        read = tables[split][column].to_pylist()
        texts = [text for text in read if text and text.strip()]
        report["empty"][split] = len(read) - len(texts)
        if not texts:
            raise DataError(f"{split} is empty: it has no text in column {column!r}")
        splits[split] = _rows(texts)
    report |= finish_splits(splits, args)
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split}:{len(splits[split].labels)}".encode() + splits[split].hashes.tobytes())
    fingerprint = digest.hexdigest()[:32]
    features, folder = Features({"text": Value("large_string")}), cache_dir() / "language" / fingerprint
    mapped = {split: memory_mapped(splits[split].table, features, folder, split) for split in SPLITS}
    rows = {split: len(mapped[split]) for split in SPLITS}
    return LanguageData(**mapped, name=name, fingerprint=fingerprint, report={"rows": rows, **report})


def _rows(texts: list[str]) -> SplitRows:
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    hashes = np.array([hash_of(text) for text in texts], dtype=np.uint64)
    return SplitRows(table, hashes, np.zeros(len(texts), dtype=np.int64))


def packed(texts: Dataset, tokenizer: PreTrainedTokenizerBase, block_size: int) -> Dataset:
    """Blocks of `block_size` tokens with `input_ids`, `attention_mask` and `labels`; only the last may be shorter.

    The tokens of `texts`, in order, each text followed by the tokenizer's end-of-sequence token. No token is lost but
    a last one that would be alone in its block, where nothing could be predicted.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("the tokenizer has no end-of-sequence token (`eos_token`), which must end each text")

    def ids() -> Iterator[list[int]]:
        for start in range(0, len(texts), 1000):
            rows = tokenizer(texts[start : start + 1000]["text"], add_special_tokens=False, verbose=False)
            yield from ([*row, end] for row in rows["input_ids"])

    stream = np.fromiter(chain.from_iterable(ids()), dtype=np.int64)
    blocks = [stream[start : start + block_size] for start in range(0, len(stream), block_size)]
    if blocks and len(blocks[-1]) < 2:
        blocks.pop()
    masks = [np.ones_like(block) for block in blocks]
    return Dataset.from_dict({"input_ids": blocks, "attention_mask": masks, "labels": blocks})
