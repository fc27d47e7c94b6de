"""What a strategy is given and what it gives back: the candidates of a round, and the rows chosen from them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

import numpy as np

from .rows import Exchange


# Dimensions of each numeric signal, and the axis that runs over the candidates.
_LAYOUT = {
    "embeddings": (2, 0),
    "probabilities": (2, 0),
    "mc_probabilities": (3, 1),
    "committee_probabilities": (3, 1),
    "el2n": (1, 0),
    "perplexity": (1, 0),
    "ifd": (1, 0),
    "head_inputs": (2, 0),
    "selected_embeddings": (2, 0),
}
_CHECK_ELEMENTS = 1 << 20


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidates of one round as aligned arrays, and the rows that earlier rounds chose.

    Row i of every field belongs to the dataset index `ids[i]`. Fields that no strategy asked for stay None.
    Arrays are kept as they are (a memory-mapped file is not read into memory), and checked once, block by block.

    Shapes, with n candidates, m rows already selected, c classes, s dropout passes and t committee members:

    - `ids` int[n], unique; `selected` int[m], disjoint from `ids`
    - `texts` n strings; `labels` [n], read only by strategies that say so
    - `embeddings` [n, d]; `selected_embeddings` [m, d]; `head_inputs` [n, h], what the last linear layer reads
    - `probabilities` [n, c]; `mc_probabilities` [s, n, c]; `committee_probabilities` [t, n, c]
    - `el2n`, `perplexity`, `ifd` [n]

    Raises:
        ValueError: ids repeated or already selected, a field of another length or number of dimensions, or
            a signal that is not finite: the message names the field, how many rows are affected, and the first id.

    >>> Pool(ids=[4, 7], embeddings=[[0.0, 1.0], [1.0, 0.0]]).ids.tolist()
    [4, 7]
    """

    ids: np.ndarray
    selected: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    texts: Sequence[str] | None = None
    labels: np.ndarray | None = None
    embeddings: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    mc_probabilities: np.ndarray | None = None
    committee_probabilities: np.ndarray | None = None
    el2n: np.ndarray | None = None
    perplexity: np.ndarray | None = None
    ifd: np.ndarray | None = None
    head_inputs: np.ndarray | None = None
    selected_embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "selected"):
            object.__setattr__(self, name, _as_indices(name, getattr(self, name)))
        overlap = np.intersect1d(self.ids, self.selected)
        if overlap.size:
            raise ValueError(
                f"{overlap.size} of the pool's `ids` are already in `selected` (first: {overlap[0]}). "
                "Leave the rows of earlier rounds out of the candidates."
            )
        if self.labels is not None:
            object.__setattr__(self, "labels", np.asarray(self.labels))
        for name in ("texts", "labels"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.ids):
                raise ValueError(f"`{name}` has {len(values)} rows, but the pool has {len(self.ids)} `ids`.")
        if self.labels is not None and self.labels.dtype.kind == "f":
            _check_finite("labels", self.labels, self.ids)
        for name, (dimensions, axis) in _LAYOUT.items():
            if getattr(self, name) is not None:
                self._check_signal(name, dimensions, axis)
        self._check_dimensions()

    def __len__(self) -> int:
        return len(self.ids)

    def _check_signal(self, name: str, dimensions: int, axis: int) -> None:
        array = np.asarray(getattr(self, name))
        owner = "selected" if name == "selected_embeddings" else "ids"
        owners = getattr(self, owner)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"`{name}` must be numeric, got dtype {array.dtype}.")
        if array.ndim != dimensions:
            raise ValueError(f"`{name}` must have {dimensions} dimension(s), got shape {array.shape}.")
        if array.shape[axis] != len(owners):
            raise ValueError(
                f"`{name}` has {array.shape[axis]} rows on axis {axis}, but the pool has {len(owners)} `{owner}`."
            )
        _check_finite(name, np.moveaxis(array, axis, 0), owners)
        object.__setattr__(self, name, array)

    def _check_dimensions(self) -> None:
        ours, theirs = self.embeddings, self.selected_embeddings
        if ours is not None and theirs is not None and len(theirs) and ours.shape[1] != theirs.shape[1]:
            raise ValueError(
                f"`selected_embeddings` has {theirs.shape[1]} dimensions, but `embeddings` has {ours.shape[1]}. "
                "Compute both with the same model."
            )


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows a strategy chose.

    - `indices`: the chosen dataset indices, distinct, best first.
    - `scores`: one float per candidate, aligned with `pool.ids`; NaN where undefined. Each strategy's docstring says
      what its scores mean.
    - `columns`: optional further values per candidate, such as the bin a strategy put a row in.

    >>> Selection(indices=[7], scores=[0.1, 0.9]).indices.tolist()
    [7]
    """

    indices: np.ndarray
    scores: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", _as_indices("indices", self.indices))
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float64))
        object.__setattr__(self, "columns", {name: np.asarray(column) for name, column in self.columns.items()})
        if self.scores.ndim != 1:
            raise ValueError(f"`scores` must have one dimension, got shape {self.scores.shape}.")
        for name, column in self.columns.items():
            if column.shape[:1] != self.scores.shape:
                raise ValueError(
                    f"Column `{name}` must have one row per candidate ({len(self.scores)}), got shape {column.shape}."
                )


@runtime_checkable
class Strategy(Protocol):
    """Anything with `needs` and `select` can choose the rows of a round; no base class is required.

    `needs` names the `Pool` fields that `select` reads, so that they are computed once, in one pass.
    `selected_embeddings` is needed only in a round in which something is already selected.
    `select` returns k distinct candidates (`All` alone returns every one), draws only from `rng`, runs no model, and
    gives the same rows for any order of the pool's rows.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection: ...


@runtime_checkable
class ShardedStrategy(Protocol):
    """A strategy that can also choose among candidates that lie in several processes.

    `select_sharded` is called by all of them, each with a `Pool` of its own candidates, which may be empty, and of all
    rows that were selected before. It returns the same `indices` in each, k of all candidates, and the `scores` of the
    process's own; how the processes hear of each other is `share`. `shards` says whether it can, as it is set up.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    @property
    def shards(self) -> bool: ...

    def select_sharded(self, pool: Pool, k: int, share: Exchange) -> Selection: ...


def check_request(strategy_name: str, pool: Pool, k: int, needs: frozenset[str]) -> None:
    """Refuse a request that `strategy_name` cannot fill.

    Raises:
        ValueError: `k` is not an integer from 1 to the number of candidates, or a field in `needs` is missing from
            the pool or is no field at all.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(pool):
        raise ValueError(
            f"`{strategy_name}` was asked for k={k!r} rows from a pool of {len(pool)} candidates: `k` must be an "
            f"integer from 1 to {len(pool)}. Change the budget, or give a larger pool."
        )
    known = {f.name for f in fields(Pool)}
    for name in sorted(needs):
        if name not in known:
            hint = "".join(f" Did you mean `{near}`?" for near in difflib.get_close_matches(name, known, n=1))
            raise ValueError(f"`{strategy_name}` needs `{name}`, which is not a field of `Pool`.{hint}")
        excused = name == "selected_embeddings" and not len(pool.selected)
        if getattr(pool, name) is None and not excused:
            found = [f.name for f in fields(Pool) if getattr(pool, f.name) is not None]
            raise ValueError(
                f"`{strategy_name}` needs `{name}`, but the pool only has {', '.join(f'`{f}`' for f in found)}. "
                f"Compute every field in the strategy's `needs` and pass it as `Pool({name}=...)`."
            )


def _as_indices(name: str, values: object) -> np.ndarray:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"`{name}` must be dataset indices (integers), got dtype {array.dtype}.")
    if array.ndim != 1:
        raise ValueError(f"`{name}` must have one dimension, got shape {array.shape}.")
    array = array.astype(np.int64, copy=False)
    unique, counts = np.unique(array, return_counts=True)
    if len(unique) != len(array):
        raise ValueError(
            f"`{name}` must be unique: {(counts > 1).sum()} are repeated (first: {unique[counts > 1][0]})."
        )
    return array


def _check_finite(name: str, rows: np.ndarray, ids: np.ndarray) -> None:
    """`rows` has the candidates on its first axis; blocks keep the temporary mask small for memory-mapped arrays."""
    step = max(1, _CHECK_ELEMENTS * len(rows) // max(1, rows.size))
    bad = []
    for start in range(0, len(rows), step):
        finite = np.isfinite(rows[start : start + step])
        if not finite.all():
            bad.append(start + np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1)))
    if bad:
        where = np.concatenate(bad)
        raise ValueError(
            f"`{name}` is not finite in {len(where)} of {len(rows)} rows (first id: {ids[where[0]]}). "
            "Remove those rows from the pool, or look for overflow in the model that computed it."
        )
