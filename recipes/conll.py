"""Tagged sentences out of CoNLL files: a word a line with its fields, a blank line after each sentence."""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from tithe.recipes.readers import Columns, DataError, opened


CONLL_FORMATS = dict.fromkeys((".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt", ".tsv"), "CoNLL")
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")
_KEY = re.compile(r"# ?\S+ = ")  # `# sent_id = 7`
_TAG = re.compile(r"O|[BIESLU]-\S+")
# What CoNLL-U puts beside the words: tokens of several words (3-4) and words that are not in the text (5.1).
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")


def read_conll(path: str, columns: Columns, storage_options: Mapping[str, Any] | None = None) -> pa.Table:
    """The sentences of one file as lists of words and labels, in columns called as `columns` says.

    Fields are separated by tabs if the first line that has words has one (a word may then hold blanks), else by
    blanks; `columns.fields` says which are word and label. Lines that start with -DOCSTART- end a sentence; comments
    (# and text, without a label) and the extra lines of CoNLL-U are left out. Raises `DataError`, naming the line,
    for lines whose number of fields differs and for empty words and labels, and for a file without sentences.
    """
    words: list[list[str]] = []
    labels: list[list[str]] = []
    with opened(path, storage_options) as file:
        try:
            for sentence in _sentences(path, io.TextIOWrapper(file, encoding="utf-8-sig"), columns):
                words.append([word for word, _ in sentence])
                labels.append([label for _, label in sentence])
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise DataError(f"{path}: is not CoNLL in UTF-8: it has the byte 0x{byte:02x}") from None
    if not words:
        raise DataError(f"{path}: is empty: it has no line with a word and a label")
    kind = pa.list_(pa.string())
    return pa.table({columns.words or "words": pa.array(words, kind), columns.label: pa.array(labels, kind)})


def _sentences(path: str, lines: io.TextIOWrapper, columns: Columns) -> Iterator[list[tuple[str, str]]]:
    separator, width = None, 0
    sentence: list[tuple[str, str]] = []
    for number, text in enumerate(lines, start=1):
        line = text.rstrip("\n")
        if not line.strip() or line.startswith(_DOCUMENT):
            if sentence:
                yield sentence
            sentence = []
            continue
        if separator is None and not _is_comment(line, columns, separator, width):
            separator = re.compile(r"\t") if "\t" in line.strip() else _BLANKS
            width = len(_fields(line, separator))
            _check_fields(path, number, width, columns)
        if _is_comment(line, columns, separator, width):
            continue
        assert separator is not None
        fields = _fields(line, separator)
        if len(fields) != width:
            raise DataError(
                f"{path}: line {number} has {len(fields)} fields, the lines before {width}: {line.strip()[:60]!r}"
            )
        if columns.fields[0] and _NOT_A_WORD.fullmatch(fields[0]):
            continue
        word, label = (fields[field].strip() for field in columns.fields)
        if not word or not label:
            raise DataError(f"{path}: line {number} has an empty {'label' if word else 'word'}: {line[:60]!r}")
        sentence.append((word, label))
    if sentence:
        yield sentence


def _fields(line: str, separator: re.Pattern[str]) -> list[str]:
    return separator.split(line if separator.pattern == r"\t" else line.strip(" \t"))


def _is_comment(line: str, columns: Columns, separator: re.Pattern[str] | None, width: int) -> bool:
    """A line that starts with # and has no label where words have theirs: "#" and "#tag" may be words as well."""
    if not line.startswith("#"):
        return False
    if _KEY.match(line):
        return True
    fields = _fields(line, separator or (re.compile(r"\t") if "\t" in line else _BLANKS))
    at = columns.fields[1]
    if (width and len(fields) != width) or not -len(fields) <= at < len(fields):
        return True
    return len(fields) < 2 or not _TAG.fullmatch(fields[at].strip())


def _check_fields(path: str, number: int, width: int, columns: Columns) -> None:
    for name, at in zip(("word_field", "label_field"), columns.fields, strict=True):
        if not -width <= at < width or width < 2:
            raise DataError(f"{path}: line {number} has {width} field{'s' * (width > 1)}, so none is `{name}` {at}")
