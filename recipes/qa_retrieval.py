"""The retriever that a question-answering run names, its index, and how well it finds the passages that are right."""

from collections.abc import Sequence
from typing import Any

from tithe.evaluation import retrieval_metrics
from tithe.models import BM25Retriever, DenseRetriever, HybridRetriever, Passage, Reranked, indexed
from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.qa_data import Question


BM25, DENSE, HYBRID = RETRIEVERS = ("bm25", "dense", "hybrid")
_DEPTH = 10  # passages that quality is measured on, at least


def make_retriever(name: str, args: Any) -> Any:
    """The retriever `name`, not yet indexed."""
    if name == BM25:
        return BM25Retriever(language=args.language)
    if name == HYBRID:
        parts = [make_retriever(part, args) for part in (BM25, DENSE)]
        return HybridRetriever(parts, weights=args.hybrid_weights, fusion=args.hybrid_fusion)
    return DenseRetriever(args.dense_encoder)


def with_index(args: Any, passages: Sequence[Passage]) -> Any:
    """The retriever that `args` name, with `passages` indexed, from the cache if it is there.

    Raises:
        ValueError: a model of it cannot be loaded.
    """
    try:
        retriever = make_retriever(args.retriever, args)
        retriever = retriever if args.reranker is None else Reranked(retriever, args.reranker)
        return indexed(retriever, passages, cache_dir() / "indexes")
    except ValueError as error:
        raise ValueError(f"`retriever` {args.retriever}: {error}") from error


def found_passages(
    retriever: Any, questions: Sequence[Question], passages: Sequence[Passage], count: int
) -> tuple[list[list[Passage]], dict[str, float]]:
    """The `count` best passages for each question, and hit@k, recall@k and MRR where the right ones are known."""
    hits = retriever.search([question.text for question in questions], max(count, _DEPTH))
    rows = [[passages[number] for number in row] for row in hits.rows]
    known = [place for place, question in enumerate(questions) if question.gold]
    quality: dict[str, float] = {}
    if known:
        ids = [[passage.id for passage in rows[place]] for place in known]
        gold = [[passage.id for passage in questions[place].gold] for place in known]
        quality = dict(retrieval_metrics(ids, gold))
    return [row[:count] for row in rows], quality
