"""Inner products of many rows with some queries: the highest, exactly in one blocked pass, or nearly by faiss."""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from .extras import import_extra
from .retrieval import Hits


_ROWS, _QUERIES, _GROUP = 2**17, 256, 16  # a block of scores takes 64 MiB
_PAIRS = 4096
_BFLOAT16_ERROR = 3.1 * 2.0**-9  # of products of unit vectors: both factors and the product are rounded to 8 bits

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class ExactSearch:
    """The rows with the highest inner product with each query, as float32 gives it, whatever the precision before.

    All products are computed in bfloat16 first, where the processor has instructions for it. They are off by 0.006
    at most (on a CPU; twice that is allowed for elsewhere). What may be among the k highest by that is computed again
    in float32, so the result is that of float32 alone, and equal rows come in their order. Memory is that of the rows
    in bfloat16 and one block of products.

    Args:
        embeddings: (n, d), rows of length 1, or 0.
        device: where the first pass runs.
        dtype: of the first pass; None for bfloat16 where that is faster.
    """

    def __init__(self, embeddings: Floats, device: torch.device | str = "cpu", dtype: torch.dtype | None = None):
        on_cpu = torch.device(device).type == "cpu"
        if dtype is None:
            dtype = torch.float32 if on_cpu and not multiplies_bfloat16() else torch.bfloat16
        self._embeddings = embeddings
        self._error = embeddings.shape[1] * 2.0**-22
        if dtype == torch.bfloat16:
            self._error = _BFLOAT16_ERROR * (1 if on_cpu else 2)  # others may round parts of a sum, too
        if dtype == torch.float32 and on_cpu:
            self._rough = torch.from_numpy(embeddings)
        else:
            self._rough = torch.empty(embeddings.shape, dtype=dtype, device=device)
            for start in range(0, len(embeddings), _ROWS):
                rows = slice(start, start + _ROWS)
                self._rough[rows] = torch.from_numpy(embeddings[rows])

    def search(self, queries: Floats, k: int) -> Hits:
        """The `k` (at most n) best rows for each of `queries` (q, d), of length 1."""
        hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        shape = min(len(self._embeddings), _ROWS) * min(len(queries), _QUERIES)
        scores = torch.empty(shape, dtype=self._rough.dtype, device=self._rough.device)  # one for all: pages cost time
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            hits.rows[part], hits.scores[part] = self._block(queries[part], k, scores)
        return hits

    def _block(self, queries: Floats, k: int, space: Tensor) -> Hits:
        rough = torch.from_numpy(queries).to(self._rough)
        best = _Best(len(queries), k)
        least = torch.full((len(queries),), -math.inf, device=rough.device)
        for start in range(0, len(self._rough), _ROWS):
            rows = self._rough[start : start + _ROWS]
            scores = torch.mm(rows, rough.T, out=space[: len(rows) * len(rough)].view(len(rows), len(rough)))
            peaks = _peaks(scores, k)
            # k rows here are no worse than the k-th peak less one error; another row is no better than its product
            # plus one.
            least = torch.maximum(least, _kth(peaks, k) - 2 * self._error)
            for of, found in _not_below(scores, peaks, least):
                best.add(of, found + start, self._exact(queries, of, found + start))
            least = torch.maximum(least, torch.from_numpy(best.least() - np.float32(self._error)).to(least))
        return best.hits()

    def _exact(self, queries: Floats, of: Ints, rows: Ints) -> Floats:
        """The product of query `of[i]` with row `rows[i]`, summed in an order that depends on nothing else."""
        found = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            found[part] = (self._embeddings[rows[part]] * queries[of[part]]).sum(axis=1)
        return found


class _Best:
    """The `k` best pairs of each query so far."""

    def __init__(self, queries: int, k: int) -> None:
        self._queries, self._k = queries, k
        self._of, self._rows, self._scores = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)

    def add(self, of: Ints, rows: Ints, scores: Floats) -> None:
        of, rows = np.concatenate([self._of, of]), np.concatenate([self._rows, rows])
        scores = np.concatenate([self._scores, scores])
        order = np.lexsort((rows, -scores, of))
        of = of[order]
        first = np.searchsorted(of, np.arange(self._queries))
        kept = np.arange(len(of)) - first[of] < self._k
        self._of, self._rows, self._scores = of[kept], rows[order][kept], scores[order][kept]

    def least(self) -> Floats:
        """The k-th best score of each query; -inf where there are fewer."""
        counts = np.bincount(self._of, minlength=self._queries)
        last = np.where(counts == self._k, np.cumsum(counts) - 1, 0)
        return np.where(counts == self._k, self._scores[last], np.float32(-np.inf))

    def hits(self) -> Hits:
        return Hits(self._rows.reshape(self._queries, self._k), self._scores.reshape(self._queries, self._k))


def _peaks(scores: Tensor, k: int) -> Tensor:
    """The highest of each 16 rows of `scores` (n, q), n/16 apart, in float32; for many `k` the scores themselves."""
    whole = len(scores) // _GROUP
    if k > whole // 4:
        return scores.float()
    return scores[: whole * _GROUP].view(_GROUP, whole, -1).amax(dim=0).float()


def _kth(peaks: Tensor, k: int) -> Tensor:
    """The k-th highest of each column, (q,); -inf where there are fewer rows."""
    if k > len(peaks):
        return torch.full((peaks.shape[1],), -math.inf, device=peaks.device)
    return peaks.T.contiguous().topk(k, dim=1).values[:, -1]


def _not_below(scores: Tensor, peaks: Tensor, least: Tensor) -> Iterator[tuple[Ints, Ints]]:
    """Columns and rows of the `scores` (n, q) that are not below `least` (q,), some at a time."""
    grouped = 0
    if len(peaks) < len(scores):
        grouped = len(peaks) * _GROUP
        members = torch.arange(0, grouped, len(peaks), device=scores.device)
        for part in (peaks >= least).nonzero().split(2**16):
            rows, of = part[:, :1] + members, part[:, 1:].expand(-1, _GROUP)
            kept = scores[rows, of] >= least[of]
            yield of[kept].cpu().numpy(), rows[kept].cpu().numpy()
    for part in (scores[grouped:] >= least).nonzero().split(2**20):
        yield part[:, 1].cpu().numpy(), (part[:, 0] + grouped).cpu().numpy()


class FaissSearch:
    """Nearly the rows with the highest inner product, in much less than one pass; what is found is scored exactly.

    Args:
        embeddings: (n, d), rows of length 1, or 0.
        kind: `ivf`, inverted lists, of which a 32nd is looked through, 16 at least; or `hnsw`, a graph,
            which with several threads is another each time.
        path: of an index that `save` wrote; None to build one.
        progress: whether to show a progress bar while building.

    Raises:
        ImportError: faiss is missing.
    """

    def __init__(self, embeddings: Floats, kind: str, path: Path | None = None, progress: bool = False) -> None:
        self._embeddings = embeddings
        self._faiss = import_extra("faiss", "retrieval", "an approximate search")
        self._index = _build(self._faiss, embeddings, kind, progress) if path is None else self._read(path)
        self._scan: ExactSearch | None = None

    @property
    def size_bytes(self) -> int:
        return len(self._faiss.serialize_index(self._index))

    def save(self, path: Path) -> None:
        self._faiss.write_index(self._index, str(path))

    def search(self, queries: Floats, k: int) -> Hits:
        """As `ExactSearch.search`; a query for which faiss finds fewer than `k` is looked for in all rows."""
        hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        fetched = min(2 * k, len(self._embeddings))
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            rows = self._find(queries[part], fetched)
            few = np.flatnonzero((rows >= 0).sum(axis=1) < k)
            for number, found in enumerate(rows):
                found = np.unique(found[found >= 0])
                scores = (self._embeddings[found] * queries[start + number]).sum(axis=1)
                order = np.argsort(-scores, kind="stable")[:k]
                if len(order) == k:
                    hits.rows[start + number], hits.scores[start + number] = found[order], scores[order]
            if len(few):
                self._scan = self._scan or ExactSearch(self._embeddings, dtype=torch.float32)
                hits.rows[start + few], hits.scores[start + few] = self._scan.search(queries[start + few], k)
        return hits

    def _find(self, queries: Floats, k: int) -> Ints:
        if isinstance(self._index, self._faiss.IndexHNSW):
            options = self._faiss.SearchParametersHNSW(efSearch=max(128, 2 * k))
            return self._index.search(queries, k, params=options)[1]
        options = self._faiss.SearchParametersIVF(nprobe=max(16, self._index.nlist // 32))
        return self._index.search(queries, k, params=options)[1]

    def _read(self, path: Path) -> Any:
        return self._faiss.read_index(str(path))


def _build(faiss: Any, embeddings: Floats, kind: str, progress: bool) -> Any:
    count, width = embeddings.shape
    lists = max(1, min(int(4 * math.sqrt(count)), count // 39))  # faiss wants 39 rows a list to learn them from
    name = f"IVF{lists},SQfp16" if kind == "ivf" else "HNSW32,Flat"
    index = faiss.index_factory(width, name, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        learnt_from = np.linspace(0, count - 1, min(count, 64 * max(lists, 256))).astype(np.int64)
        index.train(np.ascontiguousarray(embeddings[learnt_from]))
    for start in tqdm(range(0, count, 2**14), "Building the faiss index", disable=not progress):
        index.add(np.ascontiguousarray(embeddings[start : start + 2**14]))
    return index


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 matrices."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
