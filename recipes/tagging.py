"""Raw tables of words and labels → a checked, encoded, split and memory-mapped token classification set."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import memory_mapped
from tithe.recipes.data_arguments import SourceArguments
from tithe.recipes.labels import class_names
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.splits import SPLITS, SplitRows, finish_splits
from tithe.trainers.tag_schemes import check_bio, detect_scheme, split_tag, to_iob2


Rows = list[tuple[list[str], list[str]]]  # words and labels of each sentence


@dataclass(frozen=True)
class TaggingData:
    """Three memory-mapped splits with the columns `words` (texts) and `labels` (positions in `names`), as long a row.

    `names` are the labels in IOB2, each B-X with its I-X; unless the data set orders them, O is the first and types
    follow by name. `fingerprint` is a hash of the content: words, labels, their order and `names`. `report` has, per
    split as it is, `rows`, `words` and `entities` (counts by type); counted before anything was removed or subset,
    `duplicates` as in `ClassificationData` (a text is a sentence), `empty` (sentences without words, left out) and
    `misaligned` (labels I-X that continue nothing, kept; `misaligned_examples` says where, with rows from 0); the
    `scheme` found, how many labels were `converted` to IOB2, and which splits were `made` from train.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    names: list[str]
    name: str
    fingerprint: str
    report: dict[str, Any]

    @property
    def splits(self) -> DatasetDict:
        """The three splits under their names."""
        return DatasetDict({split: getattr(self, split) for split in SPLITS})

    @property
    def id2label(self) -> dict[int, str]:
        """Position → name of a label, as configs of models have it."""
        return dict(enumerate(self.names))


def assemble_tagging(
    tables: Mapping[str, pa.Table],
    columns: Columns,
    name: str,
    args: SourceArguments,
    tag_names: Sequence[str] | None = None,
) -> TaggingData:
    """Check, bring to IOB2, encode, split, deduplicate and subset raw `tables` (at least `train`) as `args` say.

    `tag_names` name labels that are numbers where the tables do not. Missing splits and subsets are stratified by
    whether a sentence has entities. The result depends on the rows and the arguments alone. Raises `DataError`, in
    one line, for the first thing found wrong: rows whose words and labels differ in number, words that are no text,
    labels that are no labels of spans or that have no name, types that train lacks.
    """
    names = class_names(tables, columns.label) or (None if tag_names is None else list(tag_names))
    report: dict[str, Any] = {"empty": {}}
    rows: dict[str, Rows] = {}
    for split in (split for split in SPLITS if split in tables):
        read = _rows(tables[split], columns, split, names)
        rows[split] = [pair for pair in read if pair[0]]
        report["empty"][split] = len(read) - len(rows[split])
        if not rows[split]:
            raise DataError(f"{split} is empty: it has no sentence with words")
    report |= _to_iob2(rows)
    names = _names(rows, names if report["scheme"] == "IOB2" else None)
    checks = {split: check_bio([labels for _, labels in pairs], names) for split, pairs in rows.items()}
    report["misaligned"] = {split: check.misaligned for split, check in checks.items()}
    report["misaligned_examples"] = {split: str(check) for split, check in checks.items() if check.misaligned}
    splits = {split: _encoded(pairs, names) for split, pairs in rows.items()}
    # Texts conflict where the same words carry other labels.
    report |= finish_splits(splits, args, lambda train: _hashes(train.table["labels"].to_pylist()))
    return _result(splits, names, name, report)


def _rows(table: pa.Table, columns: Columns, split: str, names: Sequence[str] | None) -> Rows:
    assert columns.words is not None
    for column in (columns.words, columns.label):
        kind = table[column].type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise DataError(f"column {column!r} of {split} holds {kind}, not lists: one item per word is wanted")
    pairs: Rows = []
    cells = zip(table[columns.words].to_pylist(), table[columns.label].to_pylist(), strict=True)
    for number, (words, labels) in enumerate(cells, start=1):
        if words is None or labels is None:
            raise DataError(f"row {number} of {split} has no {'words' if words is None else 'labels'}")
        if len(words) != len(labels):
            raise DataError(f"row {number} of {split} has {len(words)} words but {len(labels)} labels")
        bad = next((word for word in words if not isinstance(word, str) or not word.strip()), None)
        if bad is not None or None in words:
            raise DataError(f"row {number} of {split} has a word that is {'blank' if bad is not None else 'missing'}")
        pairs.append((words, [_named(label, names, f"row {number} of {split}") for label in labels]))
    return pairs


def _named(label: Any, names: Sequence[str] | None, where: str) -> str:
    if isinstance(label, int) and not isinstance(label, bool):
        if names is None:
            raise DataError(f"{where} has the label {label}, a number; say what it means: `--tag_names O B-PER …`")
        if not 0 <= label < len(names):
            raise DataError(f"{where} has the label {label}, which is no position in the {len(names)} label names")
        label = names[label]
    if not isinstance(label, str):
        raise DataError(f"{where} has the label {label!r}; labels are names or whole numbers")
    try:
        split_tag(label)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    return label


def _to_iob2(rows: dict[str, Rows]) -> dict[str, Any]:
    """Convert the rows in place; the scheme is that of all splits together, for small ones may fit several."""
    scheme = detect_scheme(labels for pairs in rows.values() for _, labels in pairs)
    converted = 0
    for pairs in rows.values():
        for number, (words, labels) in enumerate(pairs):
            pairs[number] = (words, to_iob2(labels, scheme))
            converted += sum(a != b for a, b in zip(labels, pairs[number][1], strict=True))
    return {"scheme": scheme, "converted": converted}


def _names(rows: Mapping[str, Rows], given: Sequence[str] | None) -> list[str]:
    """Those given, in their order, and what they lack of O and of B-X and I-X for each type."""
    types = {split: {label[2:] for _, labels in pairs for label in labels} - {""} for split, pairs in rows.items()}
    for split, found in types.items():
        if found - types["train"]:
            unseen = ", ".join(sorted(found - types["train"]))
            raise DataError(f"entities of {split} are of types that train does not have: {unseen}; none can be learnt")
    if not types["train"]:
        raise DataError("train has no entity: all its labels are O")
    names = list(given or ())
    wanted = types["train"] | {split_tag(name)[1] for name in names} - {""}
    complete = ["O", *(f"{prefix}-{kind}" for kind in sorted(wanted) for prefix in "BI")]
    return names + [name for name in complete if name not in names]


def _encoded(pairs: Rows, names: Sequence[str]) -> SplitRows:
    """Words and labels, a hash of the words, and whether there are entities, by which splits are stratified."""
    ids = {name: number for number, name in enumerate(names)}
    table = pa.table(
        {
            "words": pa.array([words for words, _ in pairs], pa.list_(pa.string())),
            "labels": pa.array([[ids[label] for label in labels] for _, labels in pairs], pa.list_(pa.int64())),
        }
    )
    hashes = _hashes(words for words, _ in pairs)
    return SplitRows(table, hashes, np.array([set(labels) != {"O"} for _, labels in pairs]).astype(np.int64))


def _hashes(rows: Any) -> np.ndarray:
    """64 bits of a hash of each row of texts or numbers."""
    digests = (hashlib.blake2b("\x1f".join(map(str, row)).encode(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _result(splits: Mapping[str, SplitRows], names: list[str], name: str, report: dict[str, Any]) -> TaggingData:
    digest = hashlib.sha256(json.dumps(names).encode())
    for split in SPLITS:
        table = splits[split].table
        digest.update(f"{split}:{len(table)}".encode())
        digest.update(splits[split].hashes.astype("<u8").tobytes())
        digest.update(_hashes(table["labels"].to_pylist()).astype("<u8").tobytes())
    fingerprint = digest.hexdigest()[:32]
    folder = cache_dir() / "tagging" / fingerprint
    features = Features({"words": List(Value("string")), "labels": List(ClassLabel(names=names))})
    mapped = {split: memory_mapped(splits[split].table, features, folder, split) for split in SPLITS}
    labels = {split: splits[split].table["labels"].to_pylist() for split in SPLITS}
    counts: dict[str, Any] = {
        "rows": {split: len(rows) for split, rows in labels.items()},
        "words": {split: sum(map(len, rows)) for split, rows in labels.items()},
        "entities": {split: _entities(rows, names) for split, rows in labels.items()},
    }
    return TaggingData(**mapped, names=names, name=name, fingerprint=fingerprint, report=counts | report)


def _entities(rows: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, int]:
    counts = Counter(chain.from_iterable(rows))
    return {names[k][2:]: counts[k] for k in range(len(names)) if names[k].startswith("B-")}
