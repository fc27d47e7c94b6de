"""Passages whose vectors lie nearest to a query's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from .dense_search import ExactSearch, FaissSearch
from .extras import require_extra
from .index_folders import check_description, describe, whole_folder
from .retrieval import Hits, Passage, as_passages, check_search
from .sentence_encoder import SentenceEncoder


_EMBEDDINGS, _FAISS = "embeddings.npy", "faiss.index"


@dataclass
class DenseRetriever:
    """Cosines of a sentence encoder's vectors: exactly, by `ExactSearch`, or over many passages by faiss.

    Args:
        model: the encoder, as an object, a folder or a hub name.
        tokenizer: its own; needed with an object.
        query_prefix: put before every query, as E5 wants `"query: "`.
        passage_prefix: put before every passage, as E5 wants `"passage: "`.
        pooling, max_length, batch_size, bf16: as `SentenceEncoder` takes them.
        exact_up_to: passages up to which the search is exact; above it, it is by faiss and `approximate`.
        approximate: `ivf` or `hnsw`, as `FaissSearch` takes them.
        progress: whether to show progress bars.

    Raises:
        ImportError: there are more passages than `exact_up_to`, and faiss is missing.
        ValueError: as `SentenceEncoder.encode` says, or `approximate` is neither.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    pooling: Literal["mean", "cls"] = "mean"
    max_length: int = 256
    batch_size: int = 64
    bf16: bool = False
    exact_up_to: int = 1_000_000
    approximate: Literal["ivf", "hnsw"] = "ivf"
    progress: bool = True
    encoder: SentenceEncoder = field(init=False, repr=False, compare=False)
    _embeddings: Any = field(default=None, init=False, repr=False, compare=False)
    _found: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.approximate not in ("ivf", "hnsw"):
            raise ValueError(f"`approximate` must be 'ivf' or 'hnsw', got {self.approximate!r}")
        self.encoder = SentenceEncoder(
            self.model, self.tokenizer, self.pooling, self.max_length, self.batch_size, self.bf16
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the vectors depend on. Where the encoder comes from is not of it, nor how the search is done."""
        return {
            "encoder": self.encoder.fingerprint,
            "query_prefix": self.query_prefix,
            "passage_prefix": self.passage_prefix,
            "pooling": self.pooling,
            "max_length": self.max_length,
            "bf16": self.bf16,
        }

    @property
    def size_bytes(self) -> int:
        """Of the vectors in float32, and of faiss's index where there is one."""
        if self._embeddings is None:
            return 0
        return self._embeddings.nbytes + (self._found.size_bytes if isinstance(self._found, FaissSearch) else 0)

    def index(self, passages: Sequence[Passage]) -> None:
        corpus = as_passages(passages)
        self._check(len(corpus))
        texts = [passage.searchable for passage in corpus]
        embeddings = self.encoder.encode(texts, self.passage_prefix, self.progress)
        self._embeddings, self._found = embeddings, self._searcher(embeddings)

    def search(self, queries: Sequence[str], k: int) -> Hits:
        k = check_search(queries, k, None if self._embeddings is None else len(self._embeddings))
        return self._found.search(self.encoder.encode(queries, self.query_prefix, progress=False), k)

    def save(self, folder: str | Path) -> None:
        check_search([], 1, None if self._embeddings is None else 1)
        with whole_folder(folder) as unfinished:
            np.save(unfinished / _EMBEDDINGS, self._embeddings)
            if isinstance(self._found, FaissSearch):
                self._found.save(unfinished / _FAISS)
            describe(unfinished, self, len(self._embeddings), note=self.encoder.name)

    def load(self, folder: str | Path) -> None:
        passages = check_description(folder, self)
        self._check(passages)
        # Mapped; "c" lets PyTorch read it without a copy, and nothing is ever written.
        embeddings = np.asarray(np.load(Path(folder) / _EMBEDDINGS, mmap_mode="c"))
        if embeddings.ndim != 2 or len(embeddings) != passages:
            raise ValueError(f"the files of the index in {folder} do not fit together: index the passages again")
        saved = Path(folder) / _FAISS
        self._embeddings, self._found = embeddings, self._searcher(embeddings, saved if saved.is_file() else None)

    def _check(self, passages: int) -> None:
        if passages > self.exact_up_to:
            # Before hours of encoding
            require_extra("faiss", "retrieval", f"a search of more than {self.exact_up_to} passages (`exact_up_to`)")

    def _searcher(self, embeddings: np.ndarray, saved: Path | None = None) -> ExactSearch | FaissSearch:
        if len(embeddings) > self.exact_up_to:
            return FaissSearch(embeddings, self.approximate, saved, self.progress)
        return ExactSearch(embeddings, self.encoder.device)
