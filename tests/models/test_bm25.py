"""BM25 is its formula, over words that passages and queries are made into in one way."""

import sys
import unicodedata

import numpy as np
import pytest
from language import make_texts

from tithe.models import BM25Retriever, Passage


@pytest.fixture(autouse=True)
def bm25s():
    pytest.importorskip("bm25s")
    pytest.importorskip("Stemmer")


def build(texts, **options):
    retriever = BM25Retriever(**{"progress": False, **options})
    retriever.index([Passage(str(i), text) for i, text in enumerate(texts)])
    return retriever


def by_formula(documents, query, k1, b):
    lengths = np.array([len(document) for document in documents])
    scores = np.zeros(len(documents))
    for word in query:
        counts = np.array([document.count(word) for document in documents])
        idf = np.log(1 + (len(documents) - (counts > 0).sum() + 0.5) / ((counts > 0).sum() + 0.5))
        held_back = k1 * (1 - b + b * lengths / lengths.mean())
        scores += np.where(counts > 0, idf * counts / np.maximum(counts + held_back, 1e-9), 0)
    return scores


@pytest.mark.parametrize("k1, b", [(1.5, 0.75), (0.9, 0.4), (0, 0), (2, 1)])
def test_scores_are_those_of_the_formula(k1, b):
    texts = [*make_texts(40), "w0 w0 w0 w1"]
    retriever = build(texts, language=None, stopwords=False, k1=k1, b=b)
    queries = [*make_texts(10, seed=1), "w0 w0"]
    rows, scores = retriever.search(queries, len(texts))
    for query, row, found in zip(queries, rows, scores, strict=True):
        wanted = by_formula([text.split() for text in texts], query.split(), k1, b)
        np.testing.assert_allclose(found, wanted[row], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found, np.sort(wanted)[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [0, 1, 3])
def test_a_title_counts_as_often_as_its_weight(weight):
    retriever = BM25Retriever(language=None, stopwords=False, title_weight=weight, progress=False)
    retriever.index([Passage("a", "w1 w2", title="w3"), Passage("b", "w3 w4 w4 w4")])
    plain = build([" ".join(["w3"] * weight + ["w1", "w2"]), "w3 w4 w4 w4"], language=None, stopwords=False)
    for found, wanted in zip(retriever.search(["w3", "w1"], 2), plain.search(["w3", "w1"], 2), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert (retriever.search(["w3"], 1).rows[0, 0] == 0) == (weight > 0)


@pytest.mark.parametrize(
    "language, passages, queries",
    [
        ("english", ["Runners were running", "Cats sleep"], ["who RUNS?", "a sleeping cat"]),
        ("en", ["Runners were running", "Cats sleep"], ["who RUNS?", "a sleeping cat"]),
        ("russian", ["Кошки спят на диване", "Ёлка стоит в лесу"], ["о спящей кошке", "ЕЛКИ в ЛЕСАХ"]),
        ("ru", ["Кошки спят на диване", "Ёлка стоит в лесу"], ["о спящей кошке", "ЕЛКИ в ЛЕСАХ"]),
        ("de", ["Die Häuser am See", "Ein Wald"], ["das Haus im See", "Wälder"]),
        ("turkish", ["evlerimiz güzel", "kediler uyuyor"], ["ev", "kedi"]),
        (None, ["東京 タワー", "Λίμνη"], ["東京", "λίμνη"]),
    ],
)
def test_queries_are_stemmed_as_passages_are(language, passages, queries, tmp_path):
    retriever = build(passages, language=language)
    retriever.save(tmp_path / "index")
    loaded = BM25Retriever(language=language, progress=False)
    loaded.load(tmp_path / "index")
    for one in (retriever, loaded):
        rows, scores = one.search(queries, 1)
        assert rows[:, 0].tolist() == [0, 1] and (scores > 0).all()


def test_codes_and_names_are_one_setting():
    assert BM25Retriever("ru").settings == BM25Retriever("Russian").settings != BM25Retriever("en").settings


def test_an_accent_is_part_of_its_letter():
    texts = ["чайка над морем", "и кафе"]
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    assert decomposed[0] != texts[0]
    for passages, queries in ((texts, decomposed), (decomposed, texts)):
        rows, scores = build(passages, language=None, stopwords=False).search([queries[0].split()[0]], 1)
        assert rows[0, 0] == 0 and scores[0, 0] > 0


def test_stop_words_count_for_nothing():
    texts = ["the of and", "The cat", "of the whale"]
    assert build(texts).search(["the of"], 3).scores.tolist() == [[0, 0, 0]]
    assert (build(texts, stopwords=False).search(["the"], 3).scores > 0).all()
    assert build(texts, stopwords=["Whale"]).search(["whales", "whale", "the"], 1).scores[:, 0].tolist()[1] == 0
    russian = build(["и в на", "кит и кот"], language="ru")
    assert russian.search(["и в"], 2).scores.tolist() == [[0, 0]]


def test_a_query_of_unknown_words_finds_the_first_passages():
    retriever = build(make_texts(20))
    rows, scores = retriever.search(["", "zebra", "?!", "the"], 4)
    assert rows.tolist() == [[0, 1, 2, 3]] * 4 and not scores.any()


def test_passages_without_words_are_found_last():
    retriever = build(["", "cat", "the", "?"])
    assert retriever.search(["cat"], 4).rows.tolist() == [[1, 0, 2, 3]]
    with pytest.raises(ValueError, match="no passage has a word"):
        build(["the", "?!"])


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"language": "klingon"}, ValueError, "`language` must be None or one of arabic.*'klingon'"),
        ({"k1": -1}, ValueError, "`k1` must be from 0"),
        ({"k1": float("nan")}, ValueError, "`k1` must be from 0"),
        ({"b": 1.5}, ValueError, "`b` must be from 0 to 1, got 1.5"),
        ({"title_weight": -1}, ValueError, "`title_weight`"),
        ({"title_weight": 1.5}, ValueError, "`title_weight`"),
        ({"stopwords": "english"}, TypeError, "`stopwords` must be True, False or a list"),
    ],
)
def test_arguments_are_checked(options, error, words):
    with pytest.raises(error, match=words):
        BM25Retriever(**options)


@pytest.mark.parametrize("module", ["bm25s", "Stemmer"])
def test_what_is_missing_is_named(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "tithe\[retrieval\]"'):
        BM25Retriever()


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    retriever, other = build(make_texts(20)), build(make_texts(9))
    retriever.save(tmp_path / "index")
    other.save(tmp_path / "other")
    (tmp_path / "other" / "data.csc.index.npy").replace(tmp_path / "index" / "data.csc.index.npy")
    with pytest.raises(ValueError, match="do not fit together"):
        retriever.load(tmp_path / "index")
