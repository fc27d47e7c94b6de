"""A cached index is the one that would be built, or it is built."""

import os
import signal

import numpy as np
import pytest
from retrievers import MAKE, NEEDS_FAISS, Overlap, make_bm25, make_dense, make_passages, make_reranked

from tithe.models import HybridRetriever, Passage, indexed
from tithe.models.index_folders import whole_folder


QUERIES = ["w1 w2 w3", "w7"]
CORPUS = make_passages()


@pytest.fixture(autouse=True)
def bm25s():
    pytest.importorskip("bm25s")
    pytest.importorskip("Stemmer")


class Counted(Overlap):
    """Notes how often it was built."""

    builds = 0

    def index(self, passages):
        self.builds += 1
        super().index(passages)


@pytest.mark.parametrize("name", MAKE)
def test_the_second_call_loads(name, tmp_path, monkeypatch):
    if name in NEEDS_FAISS:
        pytest.importorskip("faiss")
    first = indexed(MAKE[name](), CORPUS, tmp_path / "cache")
    second = MAKE[name]()
    monkeypatch.setattr(type(second), "index", lambda *_: pytest.fail("was built again"))
    assert indexed(second, CORPUS, tmp_path / "cache") is second
    for found, wanted in zip(second.search(QUERIES, 9), first.search(QUERIES, 9), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_corpus_or_setting_has_another_folder(tmp_path):
    moved = [Passage("p0", "w1 w2"), Passage("p1", "w3")]
    corpora = [
        CORPUS,
        CORPUS[::-1],
        CORPUS[:-1],
        moved,
        [Passage("p0", "w1"), Passage("p1", "w2 w3")],
        [Passage("p0", "w2", "w1"), moved[1]],
        [Passage("q0", "w1 w2"), moved[1]],
        [Passage("p0", " w2", title="w1"), moved[1]],
        [Passage("p0w1", " w2"), moved[1]],
    ]
    for number, corpus in enumerate(corpora, start=1):
        retriever = indexed(Counted(), corpus, tmp_path)
        assert retriever.builds == 1 and len(list(tmp_path.iterdir())) == number
    retrievers = [make_bm25(), make_bm25(k1=2), make_bm25(language="russian"), make_bm25(stopwords=False)]
    retrievers += [make_bm25(b=0.1), make_bm25(title_weight=1), make_dense(), make_dense(seed=1)]
    retrievers += [make_dense(passage_prefix="w1 "), make_dense(max_length=3), make_dense(pooling="cls")]
    retrievers += [HybridRetriever([make_bm25()]), HybridRetriever([make_bm25(k1=2)]), make_reranked()]
    for number, retriever in enumerate(retrievers, start=len(corpora) + 1):
        indexed(retriever, CORPUS, tmp_path)
        assert len(list(tmp_path.iterdir())) == number


@pytest.mark.parametrize("how", ["cut", "flipped", "missing", "no manifest", "bad manifest"])
@pytest.mark.parametrize("name", ["a user's own", "bm25", "dense", "hybrid", "reranked"])
def test_a_damaged_index_is_built_anew(name, how, tmp_path, caplog):
    wanted = indexed(MAKE[name](), CORPUS, tmp_path).search(QUERIES, 9)
    (folder,) = tmp_path.iterdir()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "files.json"]
    victim = max(files, key=lambda path: path.stat().st_size)
    data = victim.read_bytes()
    if how == "cut":
        victim.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        victim.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif how == "missing":
        victim.unlink()
    elif how == "no manifest":
        (folder / "files.json").unlink()
    else:
        (folder / "files.json").write_text('{"index/texts.json"')
    found = indexed(MAKE[name](), CORPUS, tmp_path).search(QUERIES, 9)
    np.testing.assert_array_equal(found.rows, wanted.rows)
    assert "is damaged" in caplog.text and [path.name for path in tmp_path.iterdir()] == [folder.name]
    caplog.clear()
    indexed(MAKE[name](), CORPUS, tmp_path)
    assert "is damaged" not in caplog.text


class Interrupted(Overlap):
    def save(self, folder):
        super().save(folder)
        raise KeyboardInterrupt


def test_an_interrupted_call_leaves_nothing(tmp_path):
    Interrupted.__name__ = "Overlap"
    with pytest.raises(KeyboardInterrupt):
        indexed(Interrupted(), CORPUS, tmp_path)
    assert not list(tmp_path.iterdir())


class Killed(Counted):
    def save(self, folder):
        super().save(folder)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that it forks")
def test_a_killed_call_leaves_no_index(tmp_path):
    Killed.__name__ = "Counted"  # folders are named after it
    child = os.fork()
    if child == 0:
        indexed(Killed(), CORPUS, tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert all(path.name.startswith(".unfinished-") for path in tmp_path.iterdir())
    assert [indexed(retriever, CORPUS, tmp_path).builds for retriever in (Counted(), Counted())] == [1, 0]


@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid", "reranked"])
def test_saving_deletes_no_other_files(name, tmp_path):
    retriever = MAKE[name]()
    with pytest.raises(ValueError, match="nothing is indexed"):
        retriever.save(tmp_path / "index")
    retriever.index(CORPUS)
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match="holds something else than an index"):
        retriever.save(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        retriever.save(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(FileNotFoundError, match="no index"):
        retriever.load(tmp_path)


@pytest.mark.parametrize(
    "saved, other, words",
    [
        (make_bm25, lambda: make_bm25(language="russian"), '`language` is "english" in the index and "russian" here'),
        (make_bm25, lambda: make_bm25(stopwords=False), "`stopwords` is"),
        (make_bm25, lambda: make_bm25(k1=0.5), "`k1` is 1.5 in the index and 0.5 here"),
        (make_bm25, make_dense, '`retriever` is "BM25Retriever" in the index and "DenseRetriever" here'),
        (make_dense, lambda: make_dense(seed=1), "made with BertModel.* `encoder` is"),
        (make_dense, lambda: make_dense(query_prefix="w1 "), '`query_prefix` is "" in the index and "w1 " here'),
        (
            lambda: HybridRetriever([make_bm25()]),
            lambda: HybridRetriever([make_bm25(b=0.5)]),
            "`retrievers` is",
        ),
        (make_reranked, lambda: make_reranked(make_bm25(b=0.5)), "`b` is 0.75 in the index and 0.5 here"),
    ],
)
def test_an_index_of_other_settings_is_refused(saved, other, words, tmp_path):
    retriever = saved()
    retriever.index(CORPUS)
    retriever.save(tmp_path / "index")
    with pytest.raises(ValueError, match=words):
        other().load(tmp_path / "index")


def test_the_old_folder_stays_until_the_new_one_is_whole(tmp_path):
    for content in ("old", "new"):
        with whole_folder(tmp_path / "a" / "b", marker="file") as folder:
            (folder / "file").write_text(content)
            before = (tmp_path / "a" / "b" / "file").exists()
            assert before == (content == "new")
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "a" / "b", marker="file") as folder:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "b" / "file").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
