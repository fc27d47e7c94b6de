"""Which labels a loop has been given so far, by whom and when."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation import write_json_lines
from .oracles import Answer
from .pool_data import UNKNOWN


ANSWERS_NAME = "answers.jsonl"


class AnswerBook:
    """The answers to all queries.

    Args:
        rows: how many the pool has.

    Attributes:
        labels: int64 (rows), the class index of each row, `UNKNOWN` where it has none.
        entries: one record per row that was asked for, as in `answers.jsonl`: `iteration`, `row`, `label` (None for a
            row that could not be told) and `by`.
    """

    def __init__(self, rows: int) -> None:
        self.labels: NDArray[np.int64] = np.full(rows, UNKNOWN, dtype=np.int64)
        self.entries: list[dict[str, Any]] = []

    def enter(self, iteration: int, order: Sequence[int], answers: Mapping[int, Answer]) -> None:
        """Take in the answers to one query, in the order of its rows."""
        for row in order:
            answer = answers[row]
            self.entries.append({"iteration": iteration, "row": row, "label": answer.label, "by": answer.by})
            self.labels[row] = UNKNOWN if answer.label is None else answer.label

    @property
    def labelled(self) -> NDArray[np.int64]:
        """The rows that have a label, ascending."""
        return np.flatnonzero(self.labels != UNKNOWN)

    def count_by(self) -> dict[str, int]:
        """How many labels each source gave."""
        sources = [entry["by"] for entry in self.entries if entry["label"] is not None]
        return {source: sources.count(source) for source in sorted(set(sources))}

    def save(self, folder: Path) -> None:
        """Write `answers.jsonl` into `folder`, atomically."""
        write_json_lines(folder / ANSWERS_NAME, self.entries)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, in place of what is here: whoever holds `labels` sees it."""
        self.labels[:] = UNKNOWN
        self.entries = [json.loads(line) for line in (folder / ANSWERS_NAME).read_text(encoding="utf-8").splitlines()]
        for entry in self.entries:
            if entry["label"] is not None:
                self.labels[entry["row"]] = entry["label"]

    def clear(self) -> None:
        """Forget all, as before the first query."""
        self.labels[:] = UNKNOWN
        self.entries = []
