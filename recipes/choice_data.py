"""Multiple-choice data: a question, its choices, and which of them is right."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import memory_mapped
from tithe.recipes.classification import ClassificationData
from tithe.recipes.data_arguments import DataArguments
from tithe.recipes.labels import rows_of
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.sources import read_tables
from tithe.recipes.splits import SPLITS, SplitRows, finish_splits


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HEADS = ("multiple_choice", "classification")


@dataclass
class LoopDataArguments(DataArguments):
    """`DataArguments`, and what makes multiple choice of them."""

    choices_column: list[str] | None = field(
        default=None,
        metadata={
            "help": "Column with the list of a question's choices, or the columns of one choice each. `text_column` "
            "is then the question, and `label_column` the number of the right choice, counted from 0, or its letter."
        },
    )
    choice_head: str = field(
        default="multiple_choice",
        metadata={
            "help": "How choices are scored: `multiple_choice`, each with the question by one number, or "
            "`classification` of the question with all of them in one text."
        },
    )

    unlabelled_file: str | None = field(
        default=None,
        metadata={
            "help": "File, of the formats of `train_file`, with rows that have no label: what the loop asks for. The "
            "rows of train are then what is labelled from the start, in place of `initial_pool_size`."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choice_head not in HEADS:
            raise ValueError(f"`choice_head` must be `multiple_choice` or `classification`, got {self.choice_head!r}")
        if self.choices_column is not None and self.text_pair_column is not None:
            raise ValueError("`choices_column` and `text_pair_column` exclude each other: choices are the second text")

    @property
    def has_choices(self) -> bool:
        """Whether the rows are questions with choices."""
        return self.choices_column is not None

    @property
    def scores_each_choice(self) -> bool:
        """Whether the model has a multiple-choice head."""
        return self.has_choices and self.choice_head == "multiple_choice"


def choice_columns(args: LoopDataArguments, labelled: bool = True) -> Columns:
    """The columns of questions, their choices and, if `labelled`, which of them is right."""
    assert args.choices_column is not None
    one = len(args.choices_column) == 1
    texts = [args.text_column] if one else [args.text_column, *args.choices_column]
    label = args.label_column if labelled else None
    return Columns(texts, label, words=args.choices_column[0] if one else None)


def load_choices(args: LoopDataArguments) -> ClassificationData:
    """Train, validation and test with the columns `text`, `text_pair` (all choices in one text), `choices`, `label`.

    Raises `DataError`, in one line.
    """
    name, tables = read_tables(args, choice_columns(args))
    splits = {split: _checked(tables[split], split, args) for split in SPLITS if split in tables}
    counts = {len(row) for rows in splits.values() for row in rows.table["choices"].to_pylist()}
    if len(counts) > 1:
        raise DataError(f"questions have {sorted(counts)} choices; all must have the same number")
    return _mapped(splits, counts.pop(), name, finish_splits(splits, args))


def _checked(table: pa.Table, split: str, args: LoopDataArguments) -> SplitRows:
    kept = question_table(table, split, args)
    counts = [len(row) for row in kept["choices"].to_pylist()]
    labels = np.array([_number(*pair) for pair in zip(table[args.label_column].to_pylist(), counts, strict=True)])
    if (labels < 0).any():
        raise DataError(
            f"column {args.label_column!r} of {split}: {(labels < 0).sum()} of {len(labels)} cells name no choice, by "
            f"number from 0 or by letter ({rows_of(labels < 0)})"
        )
    pairs = zip(kept["text"].to_pylist(), kept["text_pair"].to_pylist(), strict=True)
    digests = [hashlib.blake2b(f"{q}\x1f{c}".encode(), digest_size=8).digest() for q, c in pairs]
    hashes = [int.from_bytes(digest, "little") for digest in digests]
    return SplitRows(kept, np.array(hashes, dtype=np.uint64), labels)


def question_table(table: pa.Table, what: str, args: LoopDataArguments) -> pa.Table:
    """`text`, `text_pair` and `choices` of the rows of `table`; a `DataError` about `what` where one is incomplete."""
    questions, choices = table[args.text_column].to_pylist(), _choices(table, args)
    rows = list(zip(questions, choices, strict=True))
    empty = np.array([not (q and q.strip()) or any(not choice.strip() for choice in row) for q, row in rows])
    few = np.array([len(row) < 2 for row in choices])
    for bad, problem in ((few, "have fewer than two choices"), (empty, "have an empty question or choice")):
        if bad.any():
            raise DataError(f"{what}: {bad.sum()} of {len(bad)} rows {problem} ({rows_of(bad)})")
    joined = [" ".join(f"{_LETTERS[n]}. {choice}" for n, choice in enumerate(row)) for row in choices]
    return pa.table(
        {
            "text": pa.array(questions, pa.string()),
            "text_pair": pa.array(joined, pa.string()),
            "choices": pa.array(choices, pa.list_(pa.string())),
        }
    )


def _choices(table: pa.Table, args: LoopDataArguments) -> list[list[str]]:
    assert args.choices_column is not None
    if len(args.choices_column) == 1:
        return [[str(choice) for choice in row or ()] for row in table[args.choices_column[0]].to_pylist()]
    parts = [table[name].to_pylist() for name in args.choices_column]
    return [[choice or "" for choice in row] for row in zip(*parts, strict=True)]


def _number(label: Any, choices: int) -> int:
    """The number of the choice that `label` names, or -1."""
    text = str(label).strip()
    if text.isdigit():
        return int(text) if int(text) < choices else -1
    place = _LETTERS.find(text.upper()) if len(text) == 1 else -1
    return place if place < choices else -1


def _mapped(splits: Mapping[str, SplitRows], choices: int, name: str, report: dict[str, Any]) -> ClassificationData:
    digest = hashlib.sha256(b"choices")
    for split in SPLITS:
        digest.update(f"{split}:{len(splits[split].labels)}".encode())
        digest.update(splits[split].hashes.astype("<u8").tobytes() + splits[split].labels.astype("<i8").tobytes())
    fingerprint = digest.hexdigest()[:32]
    text = Value("string")
    features = Features({"text": text, "text_pair": text, "choices": List(text), "label": Value("int64")})
    folder = cache_dir() / "choices" / fingerprint
    mapped = {
        split: memory_mapped(rows.table.append_column("label", pa.array(rows.labels)), features, folder, split)
        for split, rows in splits.items()
    }
    names = dict(enumerate(_LETTERS[:choices]))
    counts = {split: np.bincount(splits[split].labels, minlength=choices).tolist() for split in SPLITS}
    report = {
        "rows": {split: len(splits[split].labels) for split in SPLITS},
        "class_counts": {split: dict(zip(names.values(), counts[split], strict=True)) for split in SPLITS},
        **report,
    }
    return ClassificationData(**mapped, id2label=names, name=name, fingerprint=fingerprint, report=report)


def tokenise_choices(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """`rows` with a list of `input_ids`, `attention_mask`, … a choice, each paired with the question.

    A question too long is cut, from its end, and no choice: it could not be told from the others.
    """

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        counts = [len(row) for row in batch["choices"]]
        questions = [q for q, count in zip(batch["text"], counts, strict=True) for _ in range(count)]
        choices = [choice for row in batch["choices"] for choice in row]
        flat = tokenizer(questions, choices, truncation="only_first", max_length=max_length)
        starts = np.cumsum([0, *counts])
        return {
            name: [values[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)] for name, values in flat.items()
        }

    return rows.map(encode, batched=True, desc="Tokenising")


class ChoiceCollator:
    """Pads the choices of all rows of a batch to one length: tensors (rows, choices, tokens)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        names = [name for name in rows[0] if name in self.tokenizer.model_input_names]
        flat = [{name: row[name][n] for name in names} for row in rows for n in range(len(row["input_ids"]))]
        padded = self.tokenizer.pad(flat, return_tensors="pt")
        batch: dict[str, Any] = {name: values.unflatten(0, (len(rows), -1)) for name, values in padded.items()}
        label = next((name for name in ("label", "labels") if name in rows[0]), None)
        if label is not None:
            batch["labels"] = torch.tensor([int(row[label]) for row in rows])
        return batch
