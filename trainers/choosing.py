"""One round: the rows that a strategy chooses, and what is written down of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..selection import Pool, Selection, Strategy, coverage_radius
from .pool_data import PoolData


@dataclass(frozen=True)
class Choice:
    """The rows of a round.

    Attributes:
        selection: indices, and scores and columns of all rows of the data set.
        radius: greatest distance of a row to the nearest chosen one, on L2-normalised embeddings; None where none were
            read.
    """

    selection: Selection
    radius: float | None


def choose(
    strategy: Strategy,
    data: PoolData,
    signals: Mapping[str, NDArray[np.float32]],
    selected: NDArray[np.int64],
    k: int,
    rng: np.random.Generator,
) -> Choice:
    """Let `strategy` choose `k` rows beside those already `selected`; `signals` are of all rows of the data set.

    Raises:
        ValueError: a signal is not finite, or the strategy breaks its contract.
    """
    pool = data.candidates(signals, strategy.needs, selected)
    chosen = select_exactly(strategy, pool, k, rng)
    radius = None
    if "embeddings" in signals:
        embeddings, rows = signals["embeddings"], np.concatenate([selected, chosen.indices])
        radius = coverage_radius(embeddings, embeddings[rows], normalize=True)
    return Choice(over_data_set(chosen, pool.ids, len(data)), radius)


def statistics(choice: Choice, labels: NDArray[np.int64] | None, selected: NDArray[np.int64]) -> dict[str, Any]:
    """What `rounds.jsonl` says of a choice: rows per class of all selected by now, mean score of the added, radius."""
    scores = choice.selection.scores[choice.selection.indices]
    scores = scores[np.isfinite(scores)]
    rows = np.concatenate([selected, choice.selection.indices])
    counts = None if labels is None else np.unique(labels[rows], return_counts=True)
    return {
        "class_balance": None if counts is None else {str(c): int(n) for c, n in zip(*counts, strict=True)},
        "mean_score": float(scores.mean()) if len(scores) else None,
        "coverage_radius": choice.radius,
    }


def describe(strategy: Strategy) -> str:
    """What identifies a strategy from run to run: its hyper-parameters, but never an address in memory."""
    if is_dataclass(strategy) and not isinstance(strategy, type):
        arguments = ", ".join(f"{name}={value!r}" for name, value in asdict(strategy).items())
        return f"{type(strategy).__name__}({arguments})"
    return type(strategy).__qualname__


def evenness(counts: Sequence[int], classes: int) -> float:
    """How evenly counts are spread over `classes` classes: entropy / log(classes), from 0 (one class) to 1 (equal)."""
    if classes < 2:
        return 1.0
    shares = np.array(counts) / sum(counts)
    return float(-(shares * np.log(shares)).sum() / math.log(classes))


def select_exactly(strategy: Strategy, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
    """`strategy.select`, held to its contract: a user's own strategy may break it.

    Raises:
        ValueError: it did not give `k` distinct candidates.
    """
    chosen = strategy.select(pool, k, rng)
    candidates = np.intersect1d(chosen.indices, pool.ids)
    if len(candidates) != k or len(chosen.indices) != k:
        raise ValueError(
            f"strategy {describe(strategy)} was asked for {k} distinct candidates and gave "
            f"{len(chosen.indices)} rows, {len(candidates)} distinct candidates among them"
        )
    return chosen


def over_data_set(chosen: Selection, ids: NDArray[np.int64], rows: int) -> Selection:
    """The same with scores, and those columns that are numbers, for all `rows` rows of the data set.

    A row that was no candidate has the score NaN, and 0 in the columns.
    """
    scores = np.full(rows, np.nan, dtype=np.float32)
    scores[ids] = chosen.scores
    columns = {}
    for name, values in chosen.columns.items():
        if values.dtype.kind in "fiub":
            columns[name] = np.zeros(rows, dtype=values.dtype)
            columns[name][ids] = values
    return Selection(indices=np.asarray(chosen.indices, dtype=np.int64), scores=scores, columns=columns)
