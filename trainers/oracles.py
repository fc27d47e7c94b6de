"""Who says what the label of a row is: a column of the data, the teachers, or whoever an oracle of one's own asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Query:
    """Rows whose labels are wanted.

    Attributes:
        iteration: of the loop, from 0.
        rows: data set indices, most wanted first.
        names: of the labels; a label is an index into them.
        shown: of each row the columns that the oracle asked for, by `shows`.
        opinions: (teachers, rows, classes), what each teacher thinks of the rows, as probabilities; None without
            teachers.
        weights: of the teachers, adding up to 1.
    """

    iteration: int
    rows: NDArray[np.int64]
    names: Sequence[str]
    shown: Sequence[Mapping[str, Any]]
    opinions: NDArray[np.float32] | None = None
    weights: Sequence[float] = ()

    @property
    def ensemble(self) -> NDArray[np.float32] | None:
        """(rows, classes), the weighted mean of the teachers' probabilities."""
        if self.opinions is None:
            return None
        return np.tensordot(np.asarray(self.weights, dtype=np.float32), self.opinions, axes=1)

    def part(self, places: NDArray[np.int64]) -> "Query":
        """The query for some of the rows, given by their places in this one."""
        opinions = None if self.opinions is None else self.opinions[:, places]
        shown = [self.shown[i] for i in places.tolist()]
        return replace(self, rows=self.rows[places], shown=shown, opinions=opinions)


@dataclass(frozen=True)
class Answer:
    """What an oracle says of a row: its label, or None where it cannot be told; and who says so."""

    label: int | None
    by: str


@runtime_checkable
class Oracle(Protocol):
    """Gives labels. Yours needs these three, and no base class.

    Attributes:
        shows: columns of the pool that it wants to see of each row.
        asks_teachers: whether it needs the teachers' opinions.
    """

    @property
    def shows(self) -> Sequence[str]: ...

    @property
    def asks_teachers(self) -> bool: ...

    def label(self, query: Query) -> Mapping[int, Answer]:
        """An answer for each of `query.rows`, by data set index; it is asked on process 0 alone.

        The same query may be asked again, after a stop. Raises `LabelsWanted` where the answers are not there yet.
        """
        ...


class LabelsWanted(Exception):
    """The labels that a run needs to go on are not there yet; the message says where to give them."""


class ColumnOracle:
    """The labels of the data set itself: for data that are labelled already, to see what a strategy would have asked.

    Args:
        labels: one class index per row of the pool; a negative one is a row that cannot be told.
    """

    shows: Sequence[str] = ()
    asks_teachers = False

    def __init__(self, labels: Sequence[int] | NDArray[np.int64]) -> None:
        self._labels = np.asarray(labels)

    def label(self, query: Query) -> dict[int, Answer]:
        found = self._labels[query.rows].tolist()
        return {
            row: Answer(label if label >= 0 else None, "column")
            for row, label in zip(query.rows.tolist(), found, strict=True)
        }


class EnsembleOracle:
    """The teachers' labels: the likeliest class of their averaged probabilities, where that is sure enough.

    Args:
        threshold: least probability of that class. A row below it goes to `person`.
        person: another oracle, such as a `FileOracle`; without one such rows stay unlabelled.

    Raises:
        ValueError: `threshold` is not within 0 and 1.
    """

    asks_teachers = True

    def __init__(self, threshold: float = 0.9, person: Oracle | None = None) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a probability, from 0 to 1; got {threshold}")
        self.threshold, self.person = threshold, person

    @property
    def shows(self) -> Sequence[str]:
        return () if self.person is None else self.person.shows

    def label(self, query: Query) -> dict[int, Answer]:
        ensemble = query.ensemble
        if ensemble is None:
            raise ValueError("an `EnsembleOracle` needs teachers: pass `teachers` to the trainer")
        sure = ensemble.max(axis=1) >= self.threshold
        rows, best = query.rows.tolist(), ensemble.argmax(axis=1).tolist()
        answers = {rows[i]: Answer(best[i], "ensemble") for i in np.flatnonzero(sure).tolist()}
        unsure = np.flatnonzero(~sure)
        if self.person is not None and len(unsure):
            return {**answers, **self.person.label(query.part(unsure))}
        return answers | {rows[i]: Answer(None, "ensemble") for i in unsure.tolist()}


def ask(oracle: Oracle, query: Query) -> dict[int, Answer]:
    """The answers of `oracle`, held to its contract.

    Raises:
        ValueError: it left a row out, answered one it was not asked, or gave a label that there is not.
        LabelsWanted: the answers are not there yet.
    """
    answers = {int(row): answer for row, answer in oracle.label(query).items()}
    asked = set(query.rows.tolist())
    if answers.keys() != asked:
        raise ValueError(
            f"{type(oracle).__name__} was asked for the labels of {len(asked)} rows; it left out "
            f"{len(asked - answers.keys())} of them and answered {len(answers.keys() - asked)} others"
        )
    for row, answer in answers.items():
        if answer.label is not None and not 0 <= answer.label < len(query.names):
            raise ValueError(
                f"{type(oracle).__name__} gave row {row} the label {answer.label}; there are {len(query.names)}, "
                "from 0 up"
            )
    return answers
