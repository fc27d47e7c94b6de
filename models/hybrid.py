"""Several retrievers as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .index_folders import check_description, describe, whole_folder
from .retrieval import Hits, Passage, Retriever, as_passages, check_search


@dataclass
class HybridRetriever:
    """Ranks, or scores, of several retrievers added up.

    By ranks: reciprocal rank fusion (Cormack et al. 2009), score(d) = Σ weight / (rank_constant + rank of d), with
    ranks from 1; the retrievers' scores need not be alike. By scores: score(d) = Σ weight · (s − low) / (high − low),
    low and high being the least and the highest score that a retriever gives among its first `depth` (Bruch et al.
    2023): prefer it where one retriever is much better than another, and the weights can be chosen on data. A passage
    that a retriever does not find among its first `depth`, or finds with a score of exactly 0, gets nothing from it.

    Args:
        retrievers: such as `[BM25Retriever(), DenseRetriever(model)]`.
        rank_constant: the higher, the less the first ranks stand out.
        weights: of each retriever; None for 1.
        depth: how many passages each retriever finds; k where that is more.
        fusion: `ranks` or `scores`.

    Raises:
        ValueError: there is no retriever, or not as many weights; a weight or `rank_constant` is negative; `depth` is
            below 1; `fusion` is neither.
    """

    retrievers: Sequence[Retriever]
    rank_constant: float = 60.0
    weights: Sequence[float] | None = None
    depth: int = 100
    fusion: Literal["ranks", "scores"] = "ranks"
    _passages: int | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weights = self._weights()
        if not self.retrievers or len(weights) != len(self.retrievers):
            raise ValueError(f"there are {len(self.retrievers)} `retrievers` and {len(weights)} `weights`")
        if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise ValueError(f"`weights` must not be negative, nor all 0, got {list(weights)}")
        if not self.rank_constant >= 0 or self.depth < 1:
            raise ValueError(
                "`rank_constant` must not be negative and `depth` at least 1, got "
                f"{self.rank_constant} and {self.depth}"
            )
        if self.fusion not in ("ranks", "scores"):
            raise ValueError(f"`fusion` must be 'ranks' or 'scores', got {self.fusion!r}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the retrievers; how they are fused changes no index."""
        return {"retrievers": [[type(one).__name__, dict(one.settings)] for one in self.retrievers]}

    @property
    def size_bytes(self) -> int:
        """Of all indexes."""
        return sum(retriever.size_bytes for retriever in self.retrievers)

    def index(self, passages: Sequence[Passage]) -> None:
        corpus = as_passages(passages)
        for retriever in self.retrievers:
            retriever.index(corpus)
        self._passages = len(corpus)

    def search(self, queries: Sequence[str], k: int) -> Hits:
        k = check_search(queries, k, self._passages)
        found = [retriever.search(queries, max(k, self.depth)) for retriever in self.retrievers]
        hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        for query in range(len(queries)):
            rows, fused = self._fuse([(one.rows[query], one.scores[query]) for one in found])
            order = np.lexsort((rows, -fused))[:k]
            hits.rows[query, : len(order)], hits.scores[query, : len(order)] = rows[order], fused[order]
            if len(order) < k:  # the retrievers know of fewer
                others = np.setdiff1d(np.arange(k), rows)[: k - len(order)]
                hits.rows[query, len(order) :], hits.scores[query, len(order) :] = others, 0
        return hits

    def _fuse(self, found: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]) -> tuple[NDArray[Any], ...]:
        """The rows that any retriever found, ascending, and their scores."""
        rows, parts = [], []
        for weight, (ranked, scores) in zip(self._weights(), found, strict=True):
            known = np.flatnonzero(scores)
            rows.append(ranked[known])
            parts.append(weight * (self._by_rank(known) if self.fusion == "ranks" else _by_score(scores)[known]))
        distinct, place = np.unique(np.concatenate(rows), return_inverse=True)
        return distinct, np.bincount(place, np.concatenate(parts), len(distinct))

    def _by_rank(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        return 1 / (self.rank_constant + 1 + places)

    def _weights(self) -> Sequence[float]:
        return [1.0] * len(self.retrievers) if self.weights is None else self.weights

    def save(self, folder: str | Path) -> None:
        check_search([], 1, self._passages)
        assert self._passages is not None
        with whole_folder(folder) as unfinished:
            for number, retriever in enumerate(self.retrievers):
                retriever.save(unfinished / str(number))
            describe(unfinished, self, self._passages)

    def load(self, folder: str | Path) -> None:
        passages = check_description(folder, self)
        for number, retriever in enumerate(self.retrievers):
            retriever.load(Path(folder) / str(number))
        self._passages = passages


def _by_score(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """From 0 for the last of `scores`, which descend, to 1 for the first; 1 for all where they are equal."""
    above = scores.astype(np.float64) - scores[-1]
    return above / above[0] if above[0] > 0 else np.ones(len(scores))
