"""A round's rows chosen among embeddings that stay in the processes that have read them."""

import numpy as np
from numpy.typing import NDArray

from ..models import take_rows
from ..selection import Pool, Selection, ShardedStrategy, coverage_radius
from .exchange import shared_by_all


def choose_sharded(
    strategy: ShardedStrategy,
    rows: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    length: int,
    k: int,
    selected: NDArray[np.int64],
) -> tuple[Selection, float]:
    """Let `strategy` choose `k` rows beside those already `selected`; all processes call it.

    Args:
        rows: of this process, rising; `embeddings` (n, d) are theirs.
        length: rows of the data set.

    Returns:
        The same in all processes: the selection, with scores of all rows of the data set (NaN for those that were
        selected before), and the coverage radius of all rows selected by then, on L2-normalised embeddings.

    Raises:
        ValueError: an embedding is not finite, in whichever process.
    """
    selected = np.sort(selected)
    earlier = np.append(selected, -1)[np.searchsorted(selected, rows)] == rows
    before = _of_all(embeddings[earlier])
    pool = _checked_pool(rows[~earlier], take_rows(embeddings, np.flatnonzero(~earlier)), selected, before)
    chosen = strategy.select_sharded(pool, k, shared_by_all)
    centres = np.concatenate([before, _of_all(embeddings[np.isin(rows, chosen.indices)])])
    radius = max(shared_by_all(coverage_radius(embeddings, centres, normalize=True) if len(rows) else 0.0))
    scores = np.full(length, np.nan, dtype=np.float32)
    for ids, values in shared_by_all((pool.ids, chosen.scores)):
        scores[ids] = values
    return Selection(chosen.indices, scores), radius


def _checked_pool(
    ids: NDArray[np.int64], embeddings: NDArray[np.float32], selected: NDArray[np.int64], before: NDArray[np.float32]
) -> Pool:
    """This process's candidates; an error of any process is raised in all, which would wait for it otherwise."""
    pool, error = Pool(ids=ids), None
    try:
        earlier = before if len(selected) else None
        pool = Pool(ids=ids, embeddings=embeddings, selected=selected, selected_embeddings=earlier)
    except ValueError as found:
        error = found
    if errors := [told for told in shared_by_all(error) if told is not None]:
        raise errors[0]
    return pool


def _of_all(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of all processes, one process's after the other's."""
    return np.concatenate(shared_by_all(np.asarray(vectors)))
