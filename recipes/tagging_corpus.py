"""The embedded corpus as a task of named entities: the names that docstrings mark with roles and backticks."""

import collections
import re
from collections.abc import Iterable, Mapping

import pyarrow as pa

from tithe.recipes.corpus import MIN_WORDS, hash_of, split_of
from tithe.recipes.harvest import marked_pieces


MAX_PER_PATTERN = 8
MAX_ENTITY_WORDS = 12

_WORD = re.compile(r"\w+|[^\w\s]")
_ROLES = {"class": "CLASS", "exc": "CLASS", "func": "FUNCTION", "meth": "FUNCTION"} | dict.fromkeys(
    ("attr", "data", "obj", "mod", "file", "program", "rc", "const", "envvar"), "CODE"
)
_VALUE = re.compile(r"None|True|False|-?(\d[\d._]*|inf)(e[+-]?\d+)?|nan|NaN|'[^']*'|\"[^\"]*\"")
_CALL = re.compile(r"@?[\w.]+\(.*\)")
_NAME = re.compile(r"[\w.]+")
_CLASS = re.compile(r"[A-Z]+[a-z0-9]\w*")
_ARGUMENT = re.compile(r"[(,]\s*\*{0,2}(\w+)")


def api_tagging_tables(records: pa.Table, max_per_pattern: int = MAX_PER_PATTERN) -> dict[str, pa.Table]:
    """Splits of summaries with columns `words` and `labels` (IOB2 names), from harvested records.

    An entity is what the author marked, with the markup gone: CLASS (a :class: or :exc: role, a literal in camel
    case), FUNCTION (a :func: or :meth: role, a literal with parentheses, or the name of a function of the same
    library), PARAMETER (a literal that the record's own signature has), VALUE (None, numbers, quoted strings), or CODE
    (any other literal). Summaries without a mark are left out, since unmarked names in them would count as errors,
    and so are those with formulas. Of equal texts the first is kept.

    A summary with its entities replaced by their types is its pattern. Of equal patterns `max_per_pattern` are kept
    and all lie in one split, which the pattern's hash decides (80 / 10 / 10): no text, and no text that differs from
    another in its names alone, is in two splits.
    """
    functions = collections.defaultdict(set)
    for record in records.select(["library", "kind", "qualname"]).to_pylist():
        if record["kind"] != "class":
            functions[record["library"]].add(record["qualname"].split(".")[-1])
    kept: dict[str, list[tuple[list[str], list[str]]]] = collections.defaultdict(list)
    seen = set()
    for record in records.select(["library", "signature", "summary"]).to_pylist():
        tagged = _tagged(record, functions[record["library"]])
        if tagged is not None and (text := " ".join(tagged[0]).lower()) not in seen:
            seen.add(text)
            rows = kept[_pattern(*tagged)]
            if len(rows) < max_per_pattern:
                rows.append(tagged)
    splits: dict[str, list[tuple[int, list[str], list[str]]]] = {"train": [], "validation": [], "test": []}
    for pattern, rows in kept.items():
        number = hash_of(pattern)
        splits[split_of(number)] += [(number, words, labels) for words, labels in rows]
    kind = pa.list_(pa.string())
    return {
        split: pa.table(
            {
                "words": pa.array([words for _, words, _ in sorted(rows)], kind),
                "labels": pa.array([labels for _, _, labels in sorted(rows)], kind),
            }
        )
        for split, rows in splits.items()
    }


def _tagged(record: Mapping[str, str], functions: set[str]) -> tuple[list[str], list[str]] | None:
    """The words and labels of a record, or None where it has no entity or cannot be read."""
    arguments = set(_ARGUMENT.findall(record["signature"]))
    text, spans = "", []
    for piece, mark in marked_pieces(record["summary"]):
        if mark == "math" or "`" in piece:
            return None
        kind = None if mark is None else _type_of(piece, mark, arguments, functions)
        if kind is not None and piece:
            spans.append((len(text), len(text) + len(piece), kind))
        text += piece
    if not spans or len(re.findall(r"[^\W\d_]+", text)) < MIN_WORDS:
        return None
    matches = list(_WORD.finditer(text))
    labels = ["O"] * len(matches)
    for start, end, kind in spans:
        # a word of which the author marked a part, such as a plural, is taken whole
        inside = [n for n, match in enumerate(matches) if match.start() < end and match.end() > start]
        if not inside or len(inside) > MAX_ENTITY_WORDS or any(labels[n] != "O" for n in inside):
            return None
        labels[inside[0] : inside[-1] + 1] = [f"B-{kind}"] + [f"I-{kind}"] * (len(inside) - 1)
    return [match.group() for match in matches], labels


def _type_of(shown: str, mark: str, arguments: Iterable[str], functions: set[str]) -> str | None:
    if mark != "literal":
        return _ROLES.get(mark)
    last = shown.split(".")[-1]
    if _VALUE.fullmatch(shown):
        return "VALUE"
    if _CALL.fullmatch(shown):
        return "FUNCTION"
    if _NAME.fullmatch(shown) and _CLASS.fullmatch(last) and last != last.upper():
        return "CLASS"
    if shown.lstrip("*") in arguments:
        return "PARAMETER"
    return "FUNCTION" if _NAME.fullmatch(shown) and last in functions else "CODE"


def _pattern(words: list[str], labels: list[str]) -> str:
    pairs = zip(words, labels, strict=True)
    return " ".join(word.lower() if label == "O" else label[2:] for word, label in pairs if label[0] != "I")
