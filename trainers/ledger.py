"""The ledger: which rows were chosen in which round, with what scores, and why. Every checkpoint carries it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from ..evaluation import atomic_path, write_json_lines


LEDGER_NAME = "ledger.safetensors"
ROUNDS_NAME = "rounds.jsonl"


@dataclass
class Ledger:
    """The rounds of one run.

    Attributes:
        terms: what the selection follows from (strategy, seed, budget, pool …). A checkpoint whose terms differ is one
            of another run.
        rows: one record per round, as in `rounds.jsonl`.
        indices: per round the data set indices chosen in it, best first.
        scores: per round one score per row of the pool in data set order, NaN where a row was no candidate or the
            strategy gives it none.
        columns: per round what else the strategy said of each row, in the same form.
    """

    terms: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    indices: list[NDArray[np.int64]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    columns: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    @property
    def selected(self) -> NDArray[np.int64]:
        """All rows chosen so far, in the order of choice."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self.indices])

    def add(
        self,
        row: dict[str, Any],
        indices: NDArray[np.int64],
        scores: NDArray[np.float32],
        columns: dict[str, NDArray[Any]],
    ) -> None:
        """Enter a round."""
        self.rows.append(row)
        self.indices.append(indices)
        self.scores.append(scores)
        self.columns.append(columns)

    def save(self, folder: Path) -> None:
        """Write `ledger.safetensors` and `rounds.jsonl` into `folder`, each atomically."""
        tensors: dict[str, NDArray[Any]] = {}
        for number, (indices, scores) in enumerate(zip(self.indices, self.scores, strict=True)):
            tensors[f"{number}.indices"], tensors[f"{number}.scores"] = indices, scores
            for name, values in self.columns[number].items():
                tensors[f"{number}.column.{name}"] = np.ascontiguousarray(values)
        with atomic_path(folder / LEDGER_NAME) as path:
            save_file(tensors, path, metadata={"terms": json.dumps(self.terms, sort_keys=True)})
        self.write_rounds(folder)

    def write_rounds(self, folder: Path) -> None:
        """Write `rounds.jsonl` into `folder`, atomically."""
        write_json_lines(folder / ROUNDS_NAME, self.rows)

    @classmethod
    def load(cls, folder: Path) -> "Ledger":
        """Read what `save` wrote.

        Raises:
            ValueError: `folder` has no ledger.
        """
        if not (folder / LEDGER_NAME).is_file():
            raise ValueError(f"{folder} has no {LEDGER_NAME}: it was not written by `RoundSelectionTrainer`")
        rows = [json.loads(line) for line in (folder / ROUNDS_NAME).read_text(encoding="utf-8").splitlines()]
        with safe_open(folder / LEDGER_NAME, "numpy") as file:
            ledger = cls(terms=json.loads(file.metadata()["terms"]))
            for number, row in enumerate(rows):
                prefix = f"{number}.column."
                columns = {k[len(prefix) :]: file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}
                indices, scores = file.get_tensor(f"{number}.indices"), file.get_tensor(f"{number}.scores")
                ledger.add(row, indices, scores, columns)
        return ledger

    def check_terms(self, terms: dict[str, Any], source: Path) -> None:
        """Refuse to go on from a checkpoint of another run.

        Raises:
            ValueError: a term differs; says which, and both values.
        """
        for name, wanted in terms.items():
            if (found := self.terms.get(name)) != wanted:
                raise ValueError(
                    f"checkpoint {source} belongs to another run: its `{name}` is {found}, this run's is {wanted}. "
                    "Resume with the arguments it was made with, or choose another `output_dir`"
                )
