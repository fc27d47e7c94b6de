"""What a retriever found, put in order by a model that reads query and passage together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from .index_folders import check_description, describe, whole_folder
from .retrieval import Hits, Passage, Retriever, as_passages, check_search
from .text_batches import check_length, load_with_tokenizer, read_texts, repeated


_PASSAGES = "passages.jsonl"


@dataclass
class Reranked:
    """The best of `retriever`, ordered by a cross-encoder (Nogueira & Cho 2019). Scores are its logits.

    Args:
        retriever: finds what is reordered.
        model: a sequence classifier, as an object, a folder or a hub name: with one logit, or with two, of which the
            second is of the passages that fit: the score is then their difference.
        tokenizer: its own; needed with an object.
        depth: how many passages of each query are read; k where that is more.
        max_length: tokens of query and passage together; the longer of them is cut.
        batch_size: pairs a batch.
        bf16: whether to compute in bfloat16 (autocast).
        progress: whether to show a progress bar.

    Raises:
        ValueError: the model cannot be loaded, has more than two logits or fewer than `max_length` positions, or
            `depth` or `batch_size` is below 1.
    """

    retriever: Retriever
    model: Any
    tokenizer: PreTrainedTokenizerBase | None = None
    depth: int = 30
    max_length: int = 512
    batch_size: int = 32
    bf16: bool = False
    progress: bool = True
    _texts: list[str] | None = field(default=None, init=False, repr=False, compare=False)
    _loaded: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("depth", self.depth), ("batch_size", self.batch_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the retriever; the cross-encoder changes no index."""
        return {"of": type(self.retriever).__name__, **self.retriever.settings}

    @property
    def size_bytes(self) -> int:
        """Of the retriever's index, and of the passages as UTF-8."""
        texts = sum(len(text.encode("utf-8", "surrogatepass")) for text in self._texts or ())
        return self.retriever.size_bytes + texts

    def index(self, passages: Sequence[Passage]) -> None:
        corpus = as_passages(passages)
        self._load()
        self.retriever.index(corpus)
        self._texts = [passage.searchable for passage in corpus]

    def search(self, queries: Sequence[str], k: int) -> Hits:
        k = check_search(queries, k, None if self._texts is None else len(self._texts))
        found = self.retriever.search(queries, max(k, self.depth))
        scores = self._score(queries, found.rows)
        order = np.lexsort((found.rows, -scores))[:, :k]
        return Hits(np.take_along_axis(found.rows, order, axis=1), np.take_along_axis(scores, order, axis=1))

    def save(self, folder: str | Path) -> None:
        check_search([], 1, None if self._texts is None else 1)
        assert self._texts is not None
        with whole_folder(folder) as unfinished:
            self.retriever.save(unfinished / "retriever")
            with open(unfinished / _PASSAGES, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(text) + "\n" for text in self._texts)
            describe(unfinished, self, len(self._texts))

    def load(self, folder: str | Path) -> None:
        passages = check_description(folder, self)
        with open(Path(folder) / _PASSAGES, encoding="utf-8") as file:
            texts = [json.loads(line) for line in file]
        if len(texts) != passages:
            raise ValueError(f"the files of the index in {folder} do not fit together: index the passages again")
        self.retriever.load(Path(folder) / "retriever")
        self._texts = texts

    def _score(self, queries: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(queries, found) → scores of the same shape."""
        assert self._texts is not None
        model, tokenizer = self._load()
        pairs = [(query, self._texts[row]) for query, found in zip(queries, rows, strict=True) for row in found]
        distinct, first = repeated(pairs)
        asked, read = [pairs[pair][0] for pair in distinct], [pairs[pair][1] for pair in distinct]
        settings: dict[str, Any] = {"max_length": self.max_length, "batch_size": self.batch_size, "bf16": self.bf16}
        settings["progress"] = "Reranking" if self.progress else None
        scores = np.empty(len(pairs), np.float32)
        for numbers, outputs, _ in read_texts(model, tokenizer, asked, read, **settings):
            logits = outputs.logits.float()
            logits = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
            scores[distinct[numbers]] = logits.cpu().numpy()
        return scores[first].reshape(rows.shape)

    def _load(self) -> tuple[Any, PreTrainedTokenizerBase]:
        if self._loaded is None:
            model, tokenizer = load_with_tokenizer(self.model, self.tokenizer, AutoModelForSequenceClassification)
            if model.config.num_labels > 2:
                raise ValueError(f"a cross-encoder has one logit or two, `model` has {model.config.num_labels}")
            check_length(model, tokenizer, self.max_length)
            self._loaded = model, tokenizer
        return self._loaded
