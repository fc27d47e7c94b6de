"""The pool read by a model that does not change: once, and where a folder is given never again."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from ..models import backbone
from .pool_data import PoolData
from .signal_cache import SignalCache, model_fingerprint, signal_key
from .signal_reader import Signals


ReadRows = Callable[[Any, Collection[str]], Signals]


def cached_embeddings(
    cache: SignalCache,
    model: nn.Module,
    pool: PoolData,
    read: ReadRows,
    settings: dict[str, Any],
    process_index: int,
    num_processes: int,
) -> Signals:
    """`embeddings` of all rows of `pool`, from `cache` or read by `read`; all processes call it, process 0 gets them.

    The key is made of the backbone's weights (the head has no part in embeddings), of every row, and of `settings`.
    """
    body = backbone(model)
    key = (
        ""
        if process_index
        else signal_key("embeddings", model=model_fingerprint(body), rows=pool.fingerprint(len(pool)), **settings)
    )

    def compute(numbers: NDArray[np.int64]) -> NDArray[Any]:
        rows = pool.dataset
        part = rows.select(numbers) if isinstance(rows, Dataset) else Subset(rows, numbers.tolist())
        return read(part, {"embeddings"}).get("embeddings", np.empty((0, 0)))

    found = cache.fetch(key, len(pool), compute, process_index=process_index, num_processes=num_processes)
    return {} if found is None else {"embeddings": found}
