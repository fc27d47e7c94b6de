"""A person as the oracle, through files: queries are written, the run ends, and goes on once they are filled in."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import to_plain, write_atomic, write_json_lines
from .oracles import Answer, LabelsWanted, Query


SKIP = "?"
"""What to write for a row that cannot be told: it is set aside, and never asked for again."""
LABELS_NAME = "labels.json"
"""Beside the queries: which labels there are."""
FORMATS = (".jsonl", ".csv")
_AT_MOST = 10  # faults told at once
_OPINIONS = 3  # labels shown of each teacher


@dataclass(frozen=True)
class QueryRow:
    """A row of a query file: its number in the data set, what is shown of it, and the label as it was written."""

    row: int
    shown: Mapping[str, Any]
    label: str | None
    line: int


class FileOracle:
    """Asks a person, through one file a query: JSON Lines, or CSV for a spreadsheet.

    A file has one row for each of the query: `row`, its number in the data set; the columns `shows`; `teachers`, what
    each teacher thinks; and `label`, empty, to be filled in with the name of a label, or with `?` where nobody can
    tell. The order of rows does not matter. `tithe label FILE` fills it in at a terminal.

    Args:
        folder: of the files, `query-000.jsonl` and so on.
        shows: columns of the pool that the person reads.
        ending: `.jsonl` or `.csv`.

    Raises:
        ValueError: another ending. And by `label`, where a file was filled in wrongly: an unknown label or row, a row
            twice, contradicting labels, a broken line; each with its line.
        LabelsWanted: labels are missing; the message says how many, and where.
    """

    asks_teachers = False

    def __init__(self, folder: str | Path, shows: Sequence[str] = ("text",), ending: str = ".jsonl") -> None:
        if ending not in FORMATS:
            raise ValueError(f"`ending` must be `.jsonl` or `.csv`, got {ending!r}")
        self.folder, self.shows, self.ending = Path(folder), tuple(shows), ending

    def path(self, iteration: int) -> Path:
        """Of the query of an iteration."""
        return self.folder / f"query-{iteration:03d}{self.ending}"

    def label(self, query: Query) -> dict[int, Answer]:
        path = self.path(query.iteration)
        if not path.exists():
            write_query(path, query, self.shows)
            raise LabelsWanted(
                f"{len(query.rows)} labels wanted: fill in `label` in {path} (`tithe label {path}`), then start the "
                "same command again"
            )
        found, faults = read_answers(path, query.rows.tolist(), query.names)
        if faults:
            more = f"\n  … and {len(faults) - _AT_MOST} more" if len(faults) > _AT_MOST else ""
            raise ValueError(f"{path} was not filled in as it should be:\n  " + "\n  ".join(faults[:_AT_MOST]) + more)
        missing = [row for row in query.rows.tolist() if row not in found]
        if missing:
            raise LabelsWanted(
                f"{len(missing)} of {len(query.rows)} labels still wanted in {path}, the first for row {missing[0]} "
                f"(`tithe label {path}`); then start the same command again"
            )
        return {row: Answer(label, "person") for row, label in found.items()}


def write_query(path: Path, query: Query, shows: Sequence[str]) -> None:
    """Write the rows of `query`, to be filled in, atomically."""
    rows = []
    for place, (row, shown) in enumerate(zip(query.rows.tolist(), query.shown, strict=True)):
        entry: dict[str, Any] = {"row": row, **{name: to_plain(shown[name]) for name in shows}}
        if query.opinions is not None:
            entry["teachers"] = [_opinion(teacher[place], query.names) for teacher in query.opinions]
        rows.append({**entry, "label": None})
    write_atomic(path.parent / LABELS_NAME, json.dumps(list(query.names), ensure_ascii=False, indent=2))
    if path.suffix == ".jsonl":
        write_json_lines(path, rows)
        return
    for row in rows:
        told = [", ".join(f"{n} {p:.0%}" for n, p in opinion.items()) for opinion in row.get("teachers", [])]
        if told:
            row["teachers"] = " | ".join(told)
    _write_csv(path, rows, ",")


def save_label(path: Path, row: int, label: str | None) -> None:
    """Write the label of one row into a query file, atomically, and leave all else as it is."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        entries = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        entries = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=_separator(text)))
    for entry in entries:
        if str(entry["row"]).strip() == str(row):
            entry["label"] = label
    if path.suffix == ".jsonl":
        write_json_lines(path, entries)
    else:
        _write_csv(path, entries, _separator(text))


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], separator: str) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, "\ufeff" + text.getvalue())  # the mark by which spreadsheets know UTF-8


def _separator(text: str) -> str:
    """A spreadsheet saves with that of its language."""
    return max(",;\t", key=text.split("\n", 1)[0].count)


def _opinion(probabilities: Any, names: Sequence[str]) -> dict[str, float]:
    """The likeliest labels and their probabilities, the likeliest first."""
    best = np.argsort(-probabilities, kind="stable")[:_OPINIONS]
    return {names[i]: round(float(probabilities[i]), 4) for i in best}


def read_rows(path: Path) -> tuple[list[QueryRow], list[str]]:
    """The rows of a query file, in order, and its lines that are broken, each told with its number."""
    text = path.read_text(encoding="utf-8-sig")
    return _json_rows(text) if path.suffix == ".jsonl" else _csv_rows(text)


def _json_rows(text: str) -> tuple[list[QueryRow], list[str]]:
    rows, faults = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"line {number}: no JSON ({error.msg} at column {error.colno})")
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("row"), int) or "label" not in entry:
            faults.append(f"line {number}: needs `row`, a number, and `label`")
            continue
        shown = {name: value for name, value in entry.items() if name not in ("row", "label")}
        rows.append(QueryRow(entry["row"], shown, _as_text(entry["label"]), number))
    return rows, faults


def _csv_rows(text: str) -> tuple[list[QueryRow], list[str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_separator(text))
    if not {"row", "label"} <= set(reader.fieldnames or ()):
        return [], [f"line 1: the columns are {', '.join(reader.fieldnames or ()) or 'none'}; `row` and `label` lack"]
    rows, faults = [], []
    for entry in reader:
        if not (entry["row"] or "").strip().isdigit():
            faults.append(f"line {reader.line_num}: `row` is {entry['row']!r}, no number")
            continue
        shown = {name: value for name, value in entry.items() if name not in ("row", "label", None)}
        rows.append(QueryRow(int(entry["row"]), shown, _as_text(entry["label"]), reader.line_num))
    return rows, faults


def _as_text(label: Any) -> str | None:
    text = "" if label is None else str(label).strip()
    return text or None


def read_answers(path: Path, asked: Sequence[int], names: Sequence[str]) -> tuple[dict[int, int | None], list[str]]:
    """The labels that are filled in, None for a row set aside, by row; and what is wrong, each told with its line."""
    rows, faults = read_rows(path)
    numbers, wanted = {name: number for number, name in enumerate(names)}, set(asked)
    found: dict[int, int | None] = {}
    first: dict[int, QueryRow] = {}
    for entry in rows:
        place = f"line {entry.line}"
        if entry.row not in wanted:
            faults.append(f"{place}: row {entry.row} was not asked for")
            continue
        if entry.row in first:
            before = first[entry.row]
            what = "twice" if before.label == entry.label else f"as {before.label!r} in line {before.line}"
            faults.append(f"{place}: row {entry.row} is there {what}, and here as {entry.label!r}")
            continue
        first[entry.row] = entry
        if entry.label is None:
            continue
        if entry.label == SKIP:
            found[entry.row] = None
        elif entry.label in numbers:
            found[entry.row] = numbers[entry.label]
        else:
            near = get_close_matches(entry.label, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the labels are {', '.join(names[:20])}"
            faults.append(f"{place}: there is no label {entry.label!r}; {hint}")
    return found, faults
