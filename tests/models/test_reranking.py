"""What the cross-encoder says decides, and only of what was found."""

import numpy as np
import pytest
import torch
from language import make_texts, make_tokenizer
from retrievers import Overlap, make_cross_encoder, make_passages, make_reranked

from tithe.models import Reranked


QUERIES = make_texts(6, seed=4)
PASSAGES = make_passages()


def by_hand(model, query, passages, max_length=64):
    tokenizer, scores = make_tokenizer("masked"), []
    for passage in passages:
        inputs = tokenizer(query, passage.searchable, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        scores.append(float(logits[0] if len(logits) == 1 else logits[1] - logits[0]))
    return np.array(scores)


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("max_length", [64, 9])
@pytest.mark.parametrize("depth, k", [(8, 3), (8, 20), (1, 1)])
def test_scores_are_those_of_each_pair_alone(labels, max_length, depth, k):
    model = make_cross_encoder(labels)
    retriever = make_reranked(Overlap(), model=model, depth=depth, batch_size=5, max_length=max_length)
    retriever.index(PASSAGES)
    hits = retriever.search(QUERIES, k)
    first = retriever.retriever.search(QUERIES, max(depth, k)).rows
    for number, query in enumerate(QUERIES):
        scores = by_hand(model, query, [PASSAGES[row] for row in first[number]], max_length)
        np.testing.assert_allclose(hits.scores[number], -np.sort(-scores)[:k], atol=1e-5)
        assert set(hits.rows[number]) <= set(first[number])
        np.testing.assert_allclose(
            by_hand(model, query, [PASSAGES[row] for row in hits.rows[number]], max_length),
            hits.scores[number],
            atol=1e-5,
        )


def test_the_order_is_another():
    retriever = make_reranked(Overlap(), depth=30)
    retriever.index(PASSAGES)
    assert (retriever.search(QUERIES, 5).rows != retriever.retriever.search(QUERIES, 5).rows).mean() > 0.5


def test_another_cross_encoder_needs_no_other_index(tmp_path):
    retriever, other = make_reranked(Overlap()), make_reranked(Overlap(), model=make_cross_encoder(seed=1), depth=9)
    retriever.index(PASSAGES)
    retriever.save(tmp_path / "index")
    other.load(tmp_path / "index")
    assert (other.search(QUERIES, 5).scores != retriever.search(QUERIES, 5).scores).all()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: make_reranked(model=make_cross_encoder(3)), "one logit or two, `model` has 3"),
        (lambda: make_reranked(max_length=65), "`max_length` must be from 1 to the model's 64"),
        (lambda: make_reranked(depth=0), "`depth` must be at least 1"),
        (lambda: make_reranked(batch_size=0), "`batch_size` must be at least 1"),
        (lambda: Reranked(Overlap(), make_cross_encoder()), "needs its `tokenizer`"),
        (lambda: Reranked(Overlap(), "/no/such/model"), "could not be loaded"),
    ],
)
def test_arguments_are_checked(make, words):
    pytest.importorskip("bm25s")
    pytest.importorskip("Stemmer")
    with pytest.raises(ValueError, match=words):
        make().index(PASSAGES)
