"""Tiny retrievers of every kind over made-up passages, and one of a user's own."""

import json
from pathlib import Path

import numpy as np
from language import LAYERS, VOCABULARY, WORDS, make_language_model, make_texts, make_tokenizer
from transformers import BertConfig, BertForSequenceClassification, set_seed

from tithe.models import (
    BM25Retriever,
    DenseRetriever,
    Hits,
    HybridRetriever,
    Passage,
    Reranked,
    as_passages,
    check_search,
)


class Overlap:
    """How many words query and passage share."""

    settings = {"words": "lower case, split at blanks"}
    texts = None

    @property
    def size_bytes(self):
        return sum(len(word) for text in self.texts or () for word in text)

    def index(self, passages):
        self.texts = [sorted(set(passage.searchable.lower().split())) for passage in as_passages(passages)]

    def search(self, queries, k):
        k = check_search(queries, k, self.texts and len(self.texts))
        asked = [set(query.lower().split()) for query in queries]
        counts = [[len(words.intersection(text)) for text in self.texts] for words in asked]
        scores = np.array(counts, np.float32).reshape(len(queries), len(self.texts))
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Hits(rows, np.take_along_axis(scores, rows, axis=1))

    def save(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "texts.json").write_text(json.dumps(self.texts))

    def load(self, folder):
        self.texts = json.loads((Path(folder) / "texts.json").read_text())


def make_bm25(**options):
    return BM25Retriever(**{"progress": False, **options})


def make_dense(seed=0, **options):
    return DenseRetriever(
        make_language_model("bert", seed), make_tokenizer("masked"), **{"max_length": 64, "progress": False, **options}
    )


def make_cross_encoder(labels=1, seed=0):
    set_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "pad_token_id": 0, "max_position_embeddings": 64, "num_labels": labels}
    return BertForSequenceClassification(BertConfig(**LAYERS, **sizes, initializer_range=0.5)).eval()


def make_reranked(retriever=None, **options):
    options = {"depth": 4, "max_length": 64, "progress": False, **options}
    model = options.pop("model", None) or make_cross_encoder()
    return Reranked(retriever or make_bm25(), model, make_tokenizer("masked"), **options)


MAKE = {
    "a user's own": Overlap,
    "bm25": make_bm25,
    "dense": make_dense,
    "ivf": lambda: make_dense(exact_up_to=3),
    "hnsw": lambda: make_dense(exact_up_to=3, approximate="hnsw"),
    "hybrid": lambda: HybridRetriever([make_bm25(), make_dense(), Overlap()]),
    "hybrid by scores": lambda: HybridRetriever([make_bm25(), make_dense()], weights=[0.5, 1], fusion="scores"),
    "reranked": make_reranked,
    "reranked hybrid": lambda: make_reranked(HybridRetriever([make_bm25(), make_dense()]), depth=9),
}
NEEDS_FAISS = {"ivf", "hnsw"}


def make_passages(count=30):
    """Every other one with a title; the last three are the first three again, under other ids."""
    texts = make_texts(count - 3, shortest=4)
    passages = [Passage(f"p{i}", text, title=WORDS[i] if i % 2 else "") for i, text in enumerate(texts)]
    return passages + [Passage(f"again {old.id}", old.text, old.title) for old in passages[:3]]
