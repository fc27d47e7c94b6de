"""Questions, their answers, the passages that hold them, and a corpus to search, from any source."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tithe.models import Passage
from tithe.recipes.corpus import CORPUS_NAME, hash_of, keywords_of, split_of
from tithe.recipes.data_arguments import SourceArguments
from tithe.recipes.harvest import harvest
from tithe.recipes.labels import rows_of
from tithe.recipes.readers import Columns, DataError, read_file
from tithe.recipes.sources import read_tables
from tithe.recipes.splits import SPLITS, SplitRows, make_missing


API_KEYWORDS, API_WORDS = 3, 12  # keywords at least, words at most
_GOLD_COLUMNS = {"context_column": "context", "gold_column": "gold_passage_ids"}


@dataclass
class QAArguments(SourceArguments):
    """Where questions and passages come from, and which columns hold what. Train is needed to tune only."""

    needs_train: ClassVar[bool] = False

    question_column: str = field(default="question", metadata={"help": "Column of the question."})
    answers_column: str = field(
        default="answers", metadata={"help": "Column of the answers: a text, or a list of texts, each of them right."}
    )
    context_column: str | None = field(
        default=None,
        metadata={"help": "Column of the text, or list of texts, that holds the answer. Default: `context`, if any."},
    )
    gold_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the id, or list of ids, of the passages of `corpus_file` that hold the answer. "
            "Default: `gold_passage_ids`, if any."
        },
    )
    corpus_file: str | None = field(
        default=None,
        metadata={
            "help": "Passages to search, in any format that `train_file` takes. Default: the contexts of all "
            "questions."
        },
    )
    corpus_id_column: str = field(default="id", metadata={"help": "Column of a passage's id."})
    corpus_title_column: str = field(default="title", metadata={"help": "Column of its title; there may be none."})
    corpus_text_column: str = field(default="text", metadata={"help": "Column of its text."})

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [self.question_column, self.answers_column, self.context_column, self.gold_column]
        given = [name for name in names if name is not None]
        if len(set(given)) < len(given):
            raise ValueError(f"question, answers, context and gold must be different columns, got {given}")
        if (
            self.corpus_file is not None
            and self.dataset is None
            and self.train_file is None
            and self.test_file is None
        ):
            raise ValueError("`corpus_file` needs questions: give `dataset` or `test_file`")
        if self.gold_column is not None and self.corpus_file is None:
            raise ValueError("`gold_column` names passages of `corpus_file`: give that, too")
        if self.deduplicate:
            raise ValueError("`deduplicate` is of labelled texts: questions are taken as they are")


@dataclass(frozen=True)
class Question:
    """A question, the answers that are right, and the passages that hold one, if any are known."""

    text: str
    answers: tuple[str, ...]
    gold: tuple[Passage, ...] = ()


@dataclass(frozen=True)
class QAData:
    """Questions by split, train and validation perhaps empty, and the corpus, `None` where there is nothing to search.

    `fingerprint` is a hash of all questions, answers and gold passages and their order.
    """

    train: Sequence[Question]
    validation: Sequence[Question]
    test: Sequence[Question]
    passages: Sequence[Passage] | None
    name: str
    fingerprint: str
    report: dict[str, Any]


def load_qa_data(args: QAArguments) -> QAData:
    """The questions and passages that `args` name; with none named, those of the embedded corpus.

    Raises `DataError`, `FileNotFoundError` or `ImportError` (a missing extra), each in one line.

    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "rows.jsonl")
    >>> row = {"question": "What boils?", "answers": ["water", "Water"], "context": "Water boils at 100 °C."}
    >>> _ = path.write_text(json.dumps(row))
    >>> data = load_qa_data(QAArguments(test_file=str(path)))
    >>> data.test[0].answers, data.test[0].gold[0].text, len(data.passages)
    (('water', 'Water'), 'Water boils at 100 °C.', 1)
    """
    if args.dataset in (None, CORPUS_NAME) and args.train_file is None and args.test_file is None:
        splits, passages = api_questions(harvest())
        return _assembled(splits, passages, CORPUS_NAME, args, [])
    chosen = {flag: getattr(args, flag) or usual for flag, usual in _GOLD_COLUMNS.items()}
    flags = {args.question_column: "question_column", args.answers_column: "answers_column"}
    columns = Columns([args.question_column], args.answers_column, optional=list(chosen.values()), flags=flags)
    name, tables = read_tables(args, columns)
    for flag, column in chosen.items():
        if getattr(args, flag) is not None and not any(column in table.column_names for table in tables.values()):
            raise DataError(f"no split of {name} has a column {column!r} (`{flag}`)")
    tables, made = _with_all_splits(tables, args)
    if args.corpus_file is not None:
        passages = read_passages(args)
        known = {passage.id: passage for passage in passages}
        return _assembled({s: _asked(tables[s], s, args, chosen, known) for s in tables}, passages, name, args, made)
    splits = {split: _asked(tables[split], split, args, chosen, None) for split in tables}
    found = {passage.id: passage for rows in splits.values() for question in rows for passage in question.gold}
    return _assembled(splits, list(found.values()) or None, name, args, made)


def api_questions(records: pa.Table) -> tuple[dict[str, list[Question]], list[Passage]]:
    """Which function is for what some keywords say? The corpus has a passage a function: its name, place and summary.

    A question has about two thirds of the summary's words that are no stop words, so that other functions fit it,
    too; a hash of the summary says which, and in which split it lies. Summaries of several functions, of over
    `API_WORDS` words or of fewer than `API_KEYWORDS` keywords are left out.
    """
    rows: dict[str, list[tuple[Question, Passage]]] = {}
    known: set[str] = set()
    columns = (records[name].to_pylist() for name in ("kind", "module", "qualname", "text"))
    for kind, module, name, text in zip(*columns, strict=True):
        if kind != "function" or f"{module}.{name}" in known:  # some are defined twice, each under a condition
            continue
        known.add(f"{module}.{name}")
        key, keywords = keywords_of(text)
        if len(key.split()) <= API_WORDS and len(keywords) >= API_KEYWORDS:
            rng = np.random.default_rng(hash_of(key))
            kept = np.sort(rng.permutation(len(keywords))[: max(2, round(len(keywords) * 2 / 3))])
            asked = f"Which function is for: {' '.join(keywords[i] for i in kept)}?"
            passage = Passage(f"{module}.{name}", f"Function {name} of {module.split('.')[0]}: {text}")
            rows.setdefault(key, []).append((Question(asked, (name,), (passage,)), passage))
    alone = sorted((hash_of(key), *found[0]) for key, found in rows.items() if len({p.id for _, p in found}) == 1)
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    for number, question, _ in alone:
        splits[split_of(number)].append(question)
    return splits, [passage for _, _, passage in alone]


def read_passages(args: QAArguments) -> list[Passage]:
    """The corpus; a `DataError` where a passage has no id or text, or the id of another."""
    path = str(args.corpus_file)
    flags = {args.corpus_id_column: "corpus_id_column", args.corpus_text_column: "corpus_text_column"}
    columns = Columns(
        [args.corpus_text_column], args.corpus_id_column, optional=[args.corpus_title_column], flags=flags
    )
    table = read_file(path, columns, args.storage_options)
    ids, texts = (table[name].to_pylist() for name in (args.corpus_id_column, args.corpus_text_column))
    titles = [None] * len(ids)
    if args.corpus_title_column in table.column_names:
        titles = table[args.corpus_title_column].to_pylist()
    for cells, what in ((ids, "no id"), (texts, "no text")):
        bad = np.array([cell is None or not str(cell).strip() for cell in cells], dtype=bool)
        if bad.any() or not len(bad):
            raise DataError(f"{path}: {bad.sum()} of {len(bad)} passages have {what} ({rows_of(bad)})")
    found = {}
    for number, (key, text, title) in enumerate(zip(map(str, ids), texts, titles, strict=True), start=1):
        if key in found:
            raise DataError(f"{path}: row {number} has the id of another passage, {key!r}")
        found[key] = Passage(key, text.strip(), str(title or "").strip())
    return list(found.values())


def _with_all_splits(tables: Mapping[str, pa.Table], args: QAArguments) -> tuple[dict[str, pa.Table], list[str]]:
    """`tables` and, where there is train, the splits that are missing, made from it; and the names of those."""
    if "train" not in tables:
        if "test" not in tables:
            raise DataError("there is neither train nor test: name a split with `--test_split`")
        return dict(tables), []
    columns = {split: table[args.question_column].to_pylist() for split, table in tables.items()}
    hashes = {split: np.array([hash_of(text or "") for text in texts], np.uint64) for split, texts in columns.items()}
    splits = {s: SplitRows(table, hashes[s], np.zeros(len(table), np.int64)) for s, table in tables.items()}
    made = [split for split in SPLITS if split not in splits]
    make_missing(splits, args)
    return {split: rows.table for split, rows in splits.items()}, made


def _asked(
    table: pa.Table, split: str, args: QAArguments, columns: Mapping[str, str], known: Mapping[str, Passage] | None
) -> list[Question]:
    """The questions of a split; `known` is the corpus, by id."""
    texts = [(text or "").strip() for text in table[args.question_column].to_pylist()]
    answers = [_texts(cell) for cell in table[args.answers_column].to_pylist()]
    for cells, what in ((texts, "have no question"), (answers, "have no answer")):
        bad = np.array([not cell for cell in cells], dtype=bool)
        if bad.any():
            raise DataError(f"{split}: {bad.sum()} of {len(bad)} rows {what} ({rows_of(bad)})")
    column = columns["context_column" if known is None else "gold_column"]
    named = table[column].to_pylist() if column in table.column_names else [None] * len(texts)
    if known is None:
        gold = [tuple(Passage(f"c{hash_of(text):016x}", text) for text in _texts(cell)) for cell in named]
    else:
        gold = [_gold(_texts(cell), known, split, row) for row, cell in enumerate(named, start=1)]
    return [Question(*row) for row in zip(texts, map(tuple, answers), gold, strict=True)]


def _gold(ids: Sequence[str], known: Mapping[str, Passage], split: str, row: int) -> tuple[Passage, ...]:
    for key in ids:
        if key not in known:
            raise DataError(f"{split}: row {row} names a gold passage {key!r} that is not in `corpus_file`")
    return tuple(known[key] for key in ids)


def _texts(cell: Any) -> list[str]:
    """A cell that holds one text or several, without the blank ones."""
    cells = cell if isinstance(cell, list) else [] if cell is None else [cell]
    return [str(text).strip() for text in cells if text is not None and str(text).strip()]


def _assembled(
    splits: Mapping[str, Sequence[Question]],
    passages: Sequence[Passage] | None,
    name: str,
    args: QAArguments,
    made: Sequence[str],
) -> QAData:
    """The questions, subsets of them where `args` ask for some, and what tells them from others."""
    digest, found = hashlib.sha256(), {}
    for number, split in enumerate(SPLITS):
        rows = list(splits.get(split, ()))
        limit = args.max_train_samples if split == "train" else args.max_eval_samples
        if limit is not None and limit < len(rows):
            rng = np.random.default_rng([args.split_seed, 10 + number])
            rows = [rows[i] for i in np.sort(rng.permutation(len(rows))[:limit])]
        digest.update(f"{split}:{len(rows)}\n".encode())
        for question in rows:
            gold = [(passage.id, passage.title, passage.text) for passage in question.gold]
            digest.update(repr((question.text, question.answers, gold)).encode())
        found[split] = rows
    counts: dict[str, Any] = {split: len(rows) for split, rows in found.items()}
    report = {"rows": counts, "made": list(made), "passages": 0 if passages is None else len(passages)}
    return QAData(**found, passages=passages, name=name, fingerprint=digest.hexdigest()[:32], report=report)
