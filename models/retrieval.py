"""What all retrievers have in common: passages, what a search returns, and the checks that come before any work.

One's own is a class with the members of `Retriever`: tests/models/test_retrieval.py has one in 20 lines.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


_GROUP = 16


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that a search can find, by its `id`.

    >>> Passage("p1", "It has two rings.", title="Uranus").searchable
    'Uranus\\nIt has two rings.'
    """

    id: str
    text: str
    title: str = ""

    @property
    def searchable(self) -> str:
        """What retrievers read: the title, where there is one, in a line of its own before the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


class Hits(NamedTuple):
    """What was found for each query, best first; passages that score the same come in the order of the corpus.

    A score of exactly 0 says that the retriever knows nothing for this passage, as BM25 of one with no word of the
    query; it gets no rank where retrievers are combined.
    """

    rows: NDArray[np.int64]
    """(queries, k): numbers of passages in the order in which they were indexed."""
    scores: NDArray[np.float32]
    """(queries, k)."""


class Retriever(Protocol):
    """What finds passages. Errors of the built-in ones: `ValueError` and `TypeError`, before any work."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that an index depends on besides the passages, as JSON can hold it."""

    @property
    def size_bytes(self) -> int:
        """The size of the index."""

    def index(self, passages: Sequence[Passage]) -> None:
        """Make `passages` what is searched, in place of any before."""

    def search(self, queries: Sequence[str], k: int) -> Hits:
        """The `k` best passages for each query; all of them where there are fewer."""

    def save(self, folder: str | Path) -> None:
        """Write the index, so that `load` of an equal retriever finds the same."""

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote. Raises `ValueError` if that was under other settings."""


def as_passages(rows: Iterable[Passage | Mapping[str, Any]]) -> list[Passage]:
    """The corpus as passages: `rows` are passages, or have `id`, `text` and perhaps `title`, as rows of a dataset do.

    Raises:
        ValueError: there are none, or one has no id, no text, or the id of another.
        TypeError: one is neither, or its id, text or title is no text.

    >>> as_passages([{"id": "a", "title": None, "text": "Water boils."}])
    [Passage(id='a', text='Water boils.', title='')]
    """
    passages, seen = [], dict[str, int]()
    for number, row in enumerate(rows):
        passage = _passage(number, row)
        if passage.id in seen:
            raise ValueError(f"passages {seen[passage.id]} and {number} have the same id, {passage.id!r}")
        seen[passage.id] = number
        passages.append(passage)
    if not passages:
        raise ValueError("there are no passages to index")
    return passages


def _passage(number: int, row: Any) -> Passage:
    found: dict[str, Any]
    if isinstance(row, Passage):
        found = {"id": row.id, "text": row.text, "title": row.title}
    elif isinstance(row, Mapping):
        found = {name: row.get(name) for name in ("id", "text", "title")}
    else:
        raise TypeError(f"passage {number} is a {type(row).__name__}, not a `Passage` or a row with `id` and `text`")
    if found["title"] is None:
        found["title"] = ""
    for name, value in found.items():
        if value is None or (name == "id" and value == ""):
            columns = f"; its columns are {sorted(map(str, row))}" if isinstance(row, Mapping) else ""
            raise ValueError(f"passage {number} has no {name!r}{columns}")
        if not isinstance(value, str):
            raise TypeError(f"passage {number}: {name!r} must be text, got {value!r} ({type(value).__name__})")
    return row if isinstance(row, Passage) and row.title is not None else Passage(**found)


def check_search(queries: Sequence[str], k: int, passages: int | None) -> int:
    """How many passages a search for `k` returns out of as many as were indexed (None: nothing was).

    Raises:
        ValueError: nothing is indexed, or `k` is below 1.
        TypeError: `queries` is one text or holds something else than texts, or `k` is no whole number.
    """
    if passages is None:
        raise ValueError("nothing is indexed yet: call `index` or `load` first")
    if isinstance(queries, str):
        raise TypeError("`queries` must be a list of texts, got one text: put it in a list")
    for number, query in enumerate(queries):
        if not isinstance(query, str):
            raise TypeError(f"query {number} must be text, got {query!r} ({type(query).__name__})")
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(f"`k` must be a whole number, got {k!r}")
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}")
    return min(operator.index(k), passages)


def top_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The rows of the `k` highest of `scores` (n), best first, equal ones in their order.

    >>> top_rows(np.array([0.0, 2.0, 1.0, 2.0, 0.0, 0.0]), 5).tolist()
    [1, 3, 2, 0, 4]
    """
    width = len(scores) // _GROUP
    if k > width // 4:
        return np.argsort(-scores, kind="stable")[:k]
    # The k-th highest of the groups' maxima is no higher than the k-th highest score, and most rows are below it.
    peaks = scores[: _GROUP * width].reshape(_GROUP, width).max(axis=0)
    least = np.partition(peaks, width - k)[width - k]
    above = np.flatnonzero(scores > least)
    best = above[np.argsort(-scores[above], kind="stable")][:k]
    return np.concatenate([best, np.flatnonzero(scores == least)[: k - len(best)]])
