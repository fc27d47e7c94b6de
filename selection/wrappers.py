"""Wrappers that compose with any strategy, a user's own included: balanced over classes, deduplicated, noisy."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .pool import _LAYOUT, Pool, Selection, Strategy, check_request
from .quotas import apportion
from .rows import Rows


_BLOCK = 1024


@dataclass(frozen=True)
class Balanced:
    """The picks of another strategy, with a fixed budget for each class.

    The budget is divided over the classes that occur, equally or in proportion to their counts in the pool; what a
    class is too small for goes to the others by the same shares, and which classes get the remainder is drawn from
    `rng`. Then the strategy is asked once per class, with the class's candidates alone as the pool, so it composes
    with strategies whose picks depend on each other or on k. It knows the rows of earlier rounds, but not the other
    classes' picks of this round.

    Needs what the strategy needs, and `labels` or `probabilities`. The picks come out in turns, the best of each
    class first. Scores and columns are the strategy's, each within its class, and missing (NaN) where a class has no
    budget; the column `class` numbers the classes in sorted order.

    Prefer it where a score prefers some classes, or where the classes are many: at 10 % a linear model on frozen
    embeddings reaches 85.8 % on banking77 by stratified random and 84.0 % by random, but 70.6 % and 70.7 % with the
    two even classes of rotten_tomatoes. With `by="labels"` it reads labels, which active learning has none of; use
    `by="predicted"` there, but after a warm round: an untrained head predicts one class, and then nothing is balanced.

    Args:
        strategy: any strategy.
        by: "labels", or "predicted" for the most probable class.
        shares: "equal", or "pool" for shares as in the pool.

    >>> from .baselines import Random
    >>> pool = Pool(ids=range(6), labels=[0, 0, 0, 0, 0, 1])
    >>> Balanced(Random()).select(pool, 2, np.random.default_rng(0)).columns["class"].tolist()
    [0, 0, 0, 0, 0, 1]
    """

    strategy: Strategy
    by: str = "labels"
    shares: str = "equal"

    def __post_init__(self) -> None:
        _check_inner("balanced", self.strategy)
        if self.by not in ("labels", "predicted"):
            raise ValueError(f'`by` must be "labels" or "predicted", got {self.by!r}.')
        if self.shares not in ("equal", "pool"):
            raise ValueError(f'`shares` must be "equal" or "pool", got {self.shares!r}.')

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.strategy.needs) | {"labels" if self.by == "labels" else "probabilities"}

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("balanced", pool, k, self.needs)
        classes = self._classes(pool)
        sizes = np.bincount(classes)
        quotas = _divide(sizes if self.shares == "pool" else np.ones(len(sizes)), sizes, k, rng)
        answers = _Answers(len(pool))
        picks = []
        for number, quota in enumerate(quotas):
            if quota:
                where = np.flatnonzero(classes == number)
                picks.append(answers.ask(self.strategy, _part(pool, where, self.strategy), where, int(quota), rng))
        turn = np.concatenate([np.arange(len(of_class)) for of_class in picks])
        order = np.concatenate(picks)[np.argsort(turn, kind="stable")]
        return Selection(pool.ids[order], answers.scores, {**answers.columns, "class": classes})

    def _classes(self, pool: Pool) -> np.ndarray:
        if self.by == "predicted":
            assert pool.probabilities is not None
            values = pool.probabilities.argmax(axis=1)
        else:
            assert pool.labels is not None
            values = pool.labels
        if values.ndim != 1:
            raise ValueError(
                f"`balanced` needs one label per row, got `labels` of shape {values.shape}. "
                'Use by="predicted" for token labels, or the strategy alone.'
            )
        return np.unique(values, return_inverse=True)[1]


@dataclass(frozen=True)
class Deduplicated:
    """The picks of another strategy without near-duplicates, of each other or of rows of earlier rounds.

    Two rows are near-duplicates if the cosine of their embeddings is at least `threshold`. The strategy is asked for
    k rows; a pick that is a near-duplicate of a better one is dropped, and for what is missing the strategy is asked
    again, as in a further round: the rows kept count as selected, and their near-duplicates are no candidates any
    more. Only when none are left but near-duplicates do the best of these fill the budget, and come out last.

    Needs what the strategy needs, `embeddings`, and `selected_embeddings` after the first round. Scores and columns
    are the strategy's, as of the last time that the row was a candidate; NaN where it never was. The column
    `duplicate` marks the near-duplicates that were found, picked ones included.

    Prefer it where rows repeat (templates, quotations, crawled text) and the strategy scores rows one by one: equal
    rows have equal scores. Strategies that pick for coverage rarely pick duplicates anyway. A threshold too low for
    the embeddings declares whole topics duplicates, and then all but a few picks are made by the fallback.

    Args:
        strategy: any strategy.
        threshold: least cosine of near-duplicates, above 0 and at most 1. Cosines within 1e-6 of it count.

    >>> from .baselines import All
    >>> pool = Pool(ids=[0, 1, 2], embeddings=[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> Deduplicated(All()).select(pool, 3, np.random.default_rng(0)).indices.tolist()
    [0, 2, 1]
    """

    strategy: Strategy
    threshold: float = 0.95

    def __post_init__(self) -> None:
        _check_inner("deduplicated", self.strategy)
        if not 0 < self.threshold <= 1:
            raise ValueError(f"`threshold` must be a cosine above 0 and at most 1, got {self.threshold}.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.strategy.needs) | {"embeddings", "selected_embeddings"}

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("deduplicated", pool, k, self.needs)
        assert pool.embeddings is not None
        rows, by_id = Rows(pool.embeddings, normalize=True), np.argsort(pool.ids)
        answers = _Answers(len(pool))
        duplicate = np.zeros(len(pool), dtype=bool)
        open_ = np.ones(len(pool), dtype=bool)
        if pool.selected_embeddings is not None:
            duplicate[by_id] = self._near(rows, by_id, rows.centres_of(pool.selected_embeddings).vectors)
        kept = np.empty(0, dtype=np.int64)
        while len(kept) < k:
            where = by_id[(open_ & ~duplicate)[by_id]]
            fill = not len(where)
            where = by_id[open_[by_id]] if fill else where
            count = min(k - len(kept), len(where))
            picks = answers.ask(self.strategy, _part(pool, where, self.strategy, kept), where, count, rng)
            fresh = picks if fill else self._distinct(rows, picks)
            open_[fresh] = False
            kept = np.concatenate([kept, fresh])
            if len(kept) < k:
                left = by_id[(open_ & ~duplicate)[by_id]]
                duplicate[left] = self._near(rows, left, rows.take(fresh).vectors)
        return Selection(pool.ids[kept], answers.scores, {**answers.columns, "duplicate": duplicate})

    def _near(self, rows: Rows, where: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which of the rows `where` are near-duplicates of any of `others`."""
        near = np.zeros(len(where), dtype=bool)
        for start in range(0, len(where), _BLOCK):
            block = rows.take(where[start : start + _BLOCK]).vectors
            for left in range(0, len(others), _BLOCK):
                cosines = block @ others[left : left + _BLOCK].T
                near[start : start + _BLOCK] |= (cosines >= self.threshold - 1e-6).any(axis=1)
        return near

    def _distinct(self, rows: Rows, picks: np.ndarray) -> np.ndarray:
        """The picks that are no near-duplicates of better ones."""
        kept = picks[:0]
        for start in range(0, len(picks), _BLOCK):
            block = picks[start : start + _BLOCK]
            block = block[~self._near(rows, block, rows.take(kept).vectors)]
            vectors = rows.take(block).vectors
            near = np.triu(vectors @ vectors.T >= self.threshold - 1e-6, 1)
            fine = np.ones(len(block), dtype=bool)
            for row in np.flatnonzero(near.any(axis=1)):
                if fine[row]:
                    fine &= ~near[row]
            kept = np.concatenate([kept, block[fine]])
        return kept


@dataclass(frozen=True)
class Noisy:
    """The picks of another strategy, some of them replaced at random.

    The strategy is asked for its k picks. Then k rows are drawn one after another without replacement, each with
    probability proportional to exp(1 / temperature) for a pick and to 1 for any other candidate (Gumbel top-k on
    utilities of 1 and 0 divided by the temperature, 1903.06059). Temperature 0 gives the strategy's own picks,
    infinity a uniform sample. Scores play no part, so this means the same for strategies that pick sets, such as
    k-centre, as for those that rank; and a row just below the cut is no likelier than any other.

    Needs what the strategy needs. Scores and columns are the strategy's; the column `random` marks the picks that
    the strategy did not make. Its own picks come out first, in its order.

    Prefer it where a strategy alone picks too narrow a set (the highest scores at a small budget lose to random), and
    in small rounds. Of 10 % of a pool it keeps about 96 % of the picks at temperature 0.15, 76 % at the default,
    and 39 % at 0.5.

    Args:
        strategy: any strategy.
        temperature: from 0 to infinity.

    >>> from .baselines import All
    >>> Noisy(All(), temperature=0.1).select(Pool(ids=range(9)), 4, np.random.default_rng(0)).indices.tolist()
    [0, 1, 2, 3]
    """

    strategy: Strategy
    temperature: float = 0.25

    def __post_init__(self) -> None:
        _check_inner("noisy", self.strategy)
        if not self.temperature >= 0:
            raise ValueError(f"`temperature` must be at least 0, got {self.temperature}.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.strategy.needs)

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("noisy", pool, k, self.needs)
        answers = _Answers(len(pool))
        picks = answers.ask(self.strategy, pool, np.arange(len(pool)), k, rng)
        by_id = np.argsort(pool.ids)
        keys = np.empty(len(pool))
        keys[by_id] = rng.gumbel(size=len(pool))
        with np.errstate(divide="ignore", over="ignore"):
            keys[picks] += np.float64(1) / self.temperature
        # At temperature 0 all picks tie at infinity, and at any other no two rows do.
        drawn = by_id[np.argsort(-keys[by_id], kind="stable")[:k]]
        random = np.setdiff1d(drawn, picks)
        order = np.concatenate([picks[np.isin(picks, drawn)], random[np.argsort(-keys[random], kind="stable")]])
        marked = np.zeros(len(pool), dtype=bool)
        marked[random] = True
        return Selection(pool.ids[order], answers.scores, {**answers.columns, "random": marked})


class _Answers:
    """The scores and columns of one strategy that was asked about several parts of a pool of n rows."""

    def __init__(self, n: int) -> None:
        self.scores = np.full(n, np.nan)
        self.columns: dict[str, np.ndarray] = {}

    def ask(self, strategy: Strategy, part: Pool, where: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
        """The k picks in `part`, which are the rows `where` of the whole pool, as positions in the whole pool."""
        answer = strategy.select(part, k, rng)
        self.scores[where] = answer.scores
        for name, values in answer.columns.items():
            if name not in self.columns:
                missing: Any = np.nan if values.dtype.kind == "f" else np.zeros((), values.dtype)
                self.columns[name] = np.full((len(self.scores), *values.shape[1:]), missing, dtype=values.dtype)
            self.columns[name][where] = values
        by_id = np.argsort(part.ids)
        return where[by_id[np.searchsorted(part.ids, answer.indices[:k], sorter=by_id)]]


def _part(pool: Pool, where: np.ndarray, strategy: Strategy, kept: np.ndarray | None = None) -> Pool:
    """The rows `where` of a pool as far as `strategy` needs them; the rows `kept` count as selected."""
    values: dict[str, Any] = {"ids": pool.ids[where], "selected": pool.selected}
    for name in {f.name for f in fields(Pool)} & set(strategy.needs):
        whole = getattr(pool, name)
        if name == "texts" and whole is not None:
            values[name] = [whole[row] for row in where]
        elif name not in ("ids", "selected", "selected_embeddings") and whole is not None:
            values[name] = np.take(whole, where, axis=_LAYOUT.get(name, (1, 0))[1])
    earlier = pool.selected_embeddings
    if kept is not None and len(kept):
        assert pool.embeddings is not None
        values["selected"] = np.concatenate([pool.selected, pool.ids[kept]])
        picked = pool.embeddings[kept]
        earlier = picked if earlier is None else np.concatenate([earlier, picked])
    if "selected_embeddings" in strategy.needs:
        values["selected_embeddings"] = earlier
    return Pool(**values)


def _divide(shares: np.ndarray, sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k in proportion to `shares`, but at most `sizes`; the first places in a random order get the remainders."""
    order = rng.permutation(len(sizes))
    quotas = np.zeros(len(sizes), dtype=np.int64)
    while quotas.sum() < k:
        room = order[quotas[order] < sizes[order]]
        more = apportion(shares[room], int(k - quotas.sum()))
        quotas[room] = np.minimum(quotas[room] + more, sizes[room])
    return quotas


def _check_inner(name: str, strategy: object) -> None:
    if isinstance(strategy, type) or not isinstance(strategy, Strategy):
        raise ValueError(
            f"`{name}` wraps a strategy, an object with `needs` and `select`, got {strategy!r}. "
            f'By name: get_strategy("{name}:random").'
        )
