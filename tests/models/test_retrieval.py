"""What every retriever keeps to, the built-in ones and a user's own (`Overlap`, in retrievers.py)."""

import json

import numpy as np
import pytest
from language import make_texts
from retrievers import MAKE, NEEDS_FAISS, make_passages

from tithe.models import Passage, as_passages, indexed
from tithe.models.retrieval import top_rows


QUERIES = [*make_texts(9, seed=5), "w1", "nothing known"]


@pytest.fixture(scope="module")
def corpus():
    return make_passages(30)


@pytest.fixture(params=MAKE)
def make(request):
    pytest.importorskip("bm25s")
    pytest.importorskip("Stemmer")
    if request.param in NEEDS_FAISS:
        pytest.importorskip("faiss")
    return MAKE[request.param]


@pytest.fixture
def retriever(make, corpus):
    made = make()
    made.index(corpus)
    return made


@pytest.mark.parametrize("k", [1, 7, 30, 1000])
def test_finds_k_distinct_passages_best_first(retriever, corpus, k):
    rows, scores = retriever.search(QUERIES, k)
    assert rows.shape == scores.shape == (len(QUERIES), min(k, len(corpus)))
    assert rows.dtype == np.int64 and scores.dtype == np.float32
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    assert rows.min() >= 0 and rows.max() < len(corpus)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_fewer_are_the_first_of_more(retriever):
    more, fewer = retriever.search(QUERIES, 4), retriever.search(QUERIES, 2)
    np.testing.assert_array_equal(more.rows[:, :2], fewer.rows)
    np.testing.assert_allclose(more.scores[:, :2], fewer.scores, rtol=1e-6)


def test_equal_scores_come_in_the_order_of_the_corpus(retriever):
    rows, scores = retriever.search(QUERIES, 30)
    same = np.diff(scores, axis=1) == 0
    assert same.any() and (np.diff(rows, axis=1)[same] > 0).all()


def test_equal_passages_come_in_their_order(retriever):
    for row in retriever.search(QUERIES, 30).rows.tolist():
        assert all(row.index(first) < row.index(27 + first) for first in range(3))


def test_a_query_finds_alone_what_it_finds_among_others(retriever):
    together = retriever.search(QUERIES, 5)
    alone = [retriever.search([query], 5) for query in QUERIES]
    np.testing.assert_array_equal(together.rows, np.concatenate([hits.rows for hits in alone]))
    np.testing.assert_allclose(together.scores, np.concatenate([hits.scores for hits in alone]), rtol=1e-5, atol=1e-5)


def test_no_queries_find_nothing(retriever):
    assert retriever.search([], 5).rows.shape == (0, 5)


def test_what_is_loaded_finds_what_was_saved(retriever, make, tmp_path):
    retriever.save(tmp_path / "new" / "index")
    loaded = make()
    loaded.load(tmp_path / "new" / "index")
    for found, wanted in zip(loaded.search(QUERIES, 8), retriever.search(QUERIES, 8), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert loaded.size_bytes == retriever.size_bytes > 0
    loaded.save(tmp_path / "new" / "index")  # over the files that it reads
    again = make()
    again.load(tmp_path / "new" / "index")
    np.testing.assert_array_equal(again.search(QUERIES, 8).rows, retriever.search(QUERIES, 8).rows)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index"]


def test_another_corpus_takes_the_place_of_the_first(retriever, make, corpus):
    other = [Passage(f"o{i}", text) for i, text in enumerate(make_texts(12, seed=3))]
    small = retriever.size_bytes
    retriever.index(other)
    fresh = make()
    fresh.index(other)
    np.testing.assert_array_equal(retriever.search(QUERIES, 6).rows, fresh.search(QUERIES, 6).rows)
    assert 0 < retriever.size_bytes < small


def test_one_passage_is_a_corpus(make):
    retriever = make()
    retriever.index([Passage("only", "w1 w2")])
    assert retriever.search(["w2", "w9"], 3).rows.tolist() == [[0], [0]]


@pytest.mark.parametrize(
    "passages, error, words",
    [
        ([], ValueError, "no passages"),
        ([{"text": "w1"}], ValueError, "passage 0 has no 'id'; its columns are .'text'."),
        ([{"id": "a", "text": "w1"}, {"id": "", "text": "w1"}], ValueError, "passage 1 has no 'id'"),
        ([{"id": "a"}], ValueError, "passage 0 has no 'text'"),
        ([{"id": "a", "text": "w1"}, Passage("b", "w2"), Passage("a", "w3")], ValueError, "passages 0 and 2 .* 'a'"),
        ([Passage("a", 5)], TypeError, "passage 0: 'text' must be text, got 5"),
        ([{"id": 7, "text": "w1"}], TypeError, "'id' must be text, got 7 .int."),
        ([{"id": "a", "text": "w1", "title": ["w2"]}], TypeError, "'title' must be text"),
        (["w1 w2"], TypeError, "passage 0 is a str"),
    ],
)
def test_a_corpus_that_is_none_is_refused(make, passages, error, words, tmp_path):
    with pytest.raises(error, match=words):
        make().index(passages)
    with pytest.raises(error, match=words):
        indexed(make(), passages, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("k, error", [(0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)])
def test_k_is_a_number_from_one(retriever, k, error):
    with pytest.raises(error, match="`k` must be"):
        retriever.search(QUERIES, k)


@pytest.mark.parametrize("queries", ["w1 w2", [None], ["w1", 3]])
def test_queries_are_a_list_of_texts(retriever, queries):
    with pytest.raises(TypeError, match="quer"):
        retriever.search(queries, 1)


def test_nothing_is_found_before_anything_is_indexed(make):
    with pytest.raises(ValueError, match="nothing is indexed yet"):
        make().search(["w1"], 1)


def test_settings_are_what_json_holds(make):
    settings = dict(make().settings)
    assert json.loads(json.dumps(settings)) == settings == dict(make().settings)


def test_rows_of_a_dataset_are_passages():
    rows = [{"id": "a", "title": "T", "text": "w1", "url": "x"}, {"id": "b", "title": None, "text": ""}]
    assert as_passages(rows) == [Passage("a", "w1", "T"), Passage("b", "", "")]
    assert [passage.searchable for passage in as_passages(rows)] == ["T\nw1", ""]


@pytest.mark.parametrize("rows", [3, 50, 1000, 5003])
@pytest.mark.parametrize("levels", [1, 3, 2**20])
def test_top_rows_are_those_of_a_stable_sort(rows, levels):
    scores = np.random.default_rng(rows).integers(0, levels, rows).astype(np.float32)
    for k in (1, 2, 10, rows - 1, rows, rows + 5):
        np.testing.assert_array_equal(top_rows(scores, k), np.argsort(-scores, kind="stable")[:k])
