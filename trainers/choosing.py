"""One round: the rows that a strategy chooses, and what is written down of them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from ..selection import Pool, Selection, ShardedStrategy, Strategy, coverage_radius
from .exchange import shared_by_all
from .pool_data import UNKNOWN, PoolData
from .round_pictures import PoolMap
from .sharded_choice import choose_sharded
from .signal_reader import SignalReader, Signals


@dataclass(frozen=True)
class Choice:
    """The rows of a round.

    Attributes:
        selection: indices, and scores and columns of all rows of the data set.
        radius: greatest distance of a row to the nearest chosen one, on L2-normalised embeddings; None where none were
            read.
        strategy: what chose them, as `describe` puts it.
        seconds: what reading signals and choosing took.
    """

    selection: Selection
    radius: float | None
    strategy: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Chooser:
    """Chooses the rows of one round after the other.

    Attributes:
        initial: chooses the first round where `strategy` reads what says nothing before training; None: `strategy`.
        seed: with the number of the round, of the generator that strategies draw from.
        process_index: of this process; process 0 alone selects, so that no rounding of another process's can lead
            it to other rows.
        read_shard: reads the embeddings of this process's rows, and says which these are; for a strategy that can
            choose among rows of several processes (`ShardedStrategy`). None where the rows are to come together.
        map: drawn of each round on process 0, where it has embeddings; None where nobody wants to see it.
    """

    pool: PoolData
    strategy: Strategy
    initial: Strategy | None
    reader: SignalReader
    seed: int
    process_index: int = 0
    read_shard: Callable[[], tuple[NDArray[np.int64], NDArray[np.float32]]] | None = None
    map: PoolMap | None = None

    def check(self) -> None:
        """Raise a `ValueError` if the pool, or what is known before training, cannot give what is needed."""
        for strategy in (self.strategy, self.initial):
            if strategy is not None:
                self.pool.check(strategy.needs, type(strategy).__name__, self.reader.provided)
        untrained = self.reader.untrained(self.initial.needs) if self.initial else frozenset()
        if untrained:
            raise ValueError(
                f"`initial_strategy` {describe(self.initial)} reads {', '.join(sorted(untrained))} of a model that is "
                "not trained yet: choose `random` or `facility_location`, or `None` if the model is fine-tuned already"
            )
        if self.initial is None and self.reader.proxy and self.reader.untrained(self.strategy.needs):
            raise ValueError(
                "`initial_strategy` None leaves a `proxy` no rows to learn from in the first round: choose `auto`"
            )
        if self.reader.reads_labels(self.strategy.needs) and self.pool.labels() is None:
            raise ValueError(
                f"strategy {describe(self.strategy)} needs one class index per row in a column `label` or `labels` to "
                f"compare predictions with; `train_dataset` has {self.pool.columns}. Without such labels `proxy` must "
                "be `None`, `el2n_proxies` 0, and perplexities those of a `scoring_model`"
            )

    def choose(self, number: int, k: int, selected: NDArray[np.int64]) -> Choice:
        """Choose `k` rows for round `number` beside those already `selected`; all processes must call it.

        Raises:
            ValueError: a signal is not finite, or the strategy breaks its contract; on all processes.
        """
        strategy = self.strategy
        if number == 0 and self.initial is not None and self.reader.untrained(strategy.needs):
            strategy = self.initial
        start = time.perf_counter()
        if self.read_shard is not None and isinstance(strategy, ShardedStrategy) and strategy.shards:
            rows, embeddings = self.read_shard()
            scored = time.perf_counter()
            selection, radius = choose_sharded(strategy, rows, embeddings, len(self.pool), k, selected)
            seconds = {"scoring": scored - start, "selecting": time.perf_counter() - scored}
            return Choice(selection, radius, describe(strategy), shared_by_all(seconds)[0])
        read = self.reader.read(strategy.needs)
        outcome: list[Any] = [None]
        if self.process_index == 0:
            outcome = [self._choose(strategy, number, k, selected, read, start)]
        broadcast_object_list(outcome)
        if not isinstance(outcome[0], Choice):
            raise outcome[0] or RuntimeError("process 0 sent no selection")
        return outcome[0]

    def _choose(
        self, strategy: Strategy, number: int, k: int, selected: NDArray[np.int64], read: Signals, start: float
    ) -> Choice | Exception:
        """The choice, or what went wrong, for all to raise: process 0 alone would leave the others waiting."""
        rng = np.random.default_rng((self.seed, number))
        try:
            labels = self.pool.labels()
            labelled = selected if labels is None else selected[labels[selected] != UNKNOWN]
            signals = self.reader.complete(strategy.needs, read, labels, labelled, number)
            scored = time.perf_counter()
            selection, radius = choose(strategy, self.pool, signals, selected, k, rng)
        except Exception as error:
            return error
        seconds = {"scoring": scored - start, "selecting": time.perf_counter() - scored}
        if self.map is not None:
            self.map.draw(signals.get("embeddings"), selected, selection.indices)
        return Choice(selection, radius, describe(strategy), seconds)


def choose(
    strategy: Strategy,
    data: PoolData,
    signals: Mapping[str, NDArray[np.float32]],
    selected: NDArray[np.int64],
    k: int,
    rng: np.random.Generator,
) -> tuple[Selection, float | None]:
    """Let `strategy` choose `k` rows beside those already `selected`; `signals` are of all rows of the data set.

    Returns the selection over the whole data set, and the coverage radius of all rows selected by then.

    Raises:
        ValueError: a signal is not finite, or the strategy breaks its contract.
    """
    pool = data.candidates(signals, strategy.needs, selected)
    chosen = select_exactly(strategy, pool, k, rng)
    radius = None
    if "embeddings" in signals:
        embeddings, rows = signals["embeddings"], np.concatenate([selected, chosen.indices])
        radius = coverage_radius(embeddings, embeddings[rows], normalize=True)
    return over_data_set(chosen, pool.ids, len(data)), radius


def statistics(choice: Choice, labels: NDArray[np.int64] | None, selected: NDArray[np.int64]) -> dict[str, Any]:
    """What `rounds.jsonl` says of a choice: rows per class of all selected by now, mean score of the added, radius."""
    scores = choice.selection.scores[choice.selection.indices]
    scores = scores[np.isfinite(scores)]
    rows = np.concatenate([selected, choice.selection.indices])
    counts = None if labels is None else np.unique(labels[rows][labels[rows] != UNKNOWN], return_counts=True)
    return {
        "class_balance": None if counts is None else {str(c): int(n) for c, n in zip(*counts, strict=True)},
        "mean_score": float(scores.mean()) if len(scores) else None,
        "coverage_radius": choice.radius,
    }


def describe(strategy: Any) -> str:
    """What identifies a strategy from run to run: its hyper-parameters, but never an address in memory."""
    if is_dataclass(strategy) and not isinstance(strategy, type):
        arguments = ", ".join(f"{f.name}={describe(getattr(strategy, f.name))}" for f in fields(strategy))
        return f"{type(strategy).__name__}({arguments})"
    return type(strategy).__qualname__ if isinstance(strategy, Strategy) else repr(strategy)


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
