"""Vectors of sentences, and the retriever over them."""

import sys

import numpy as np
import pytest
import torch
from language import make_language_model, make_texts, make_tokenizer
from retrievers import make_cross_encoder, make_dense, make_passages
from transformers import AutoModel

from tithe.models import DenseRetriever, SentenceEncoder


TEXTS = [*make_texts(30, longest=20), "w1 w2", "w1 w2"]


def make_encoder(name="bert", seed=0, **options):
    kind = {"bert": "masked", "t5": "seq2seq"}[name]
    options = {"max_length": 64, "batch_size": 7, **options}
    return SentenceEncoder(make_language_model(name, seed), make_tokenizer(kind), **options)


def alone(encoder, text):
    """The hidden states of one text, without padding, (tokens, d)."""
    ids = encoder.tokenizer(text, return_tensors="pt")["input_ids"]
    model = encoder.model.get_encoder() if encoder.model.config.is_encoder_decoder else encoder.model.base_model
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state[0].numpy()


@pytest.mark.parametrize("name", ["bert", "t5"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_vectors_are_pooled_states_of_length_one(name, pooling, side):
    encoder = make_encoder(name, pooling=pooling)
    encoder.tokenizer.padding_side = side
    found = encoder.encode(TEXTS, progress=False)
    states = [alone(encoder, text) for text in TEXTS]
    wanted = np.stack([one.mean(axis=0) if pooling == "mean" else one[0] for one in states])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=2e-6)
    np.testing.assert_array_equal(found[-1], found[-2])


def test_prefixes_come_before_texts_and_long_ones_are_cut():
    encoder, short = make_encoder(), make_encoder(max_length=5)
    found = encoder.encode(["w1", "w2 w3"], prefix="w9 ", progress=False)
    np.testing.assert_allclose(found, encoder.encode(["w9 w1", "w9 w2 w3"], progress=False), atol=1e-6)
    cut = short.encode(["w1 w2 w3 w4 w5"], progress=False)
    np.testing.assert_allclose(cut, encoder.encode(["w1 w2 w3"], progress=False), atol=1e-6)


def test_bf16_is_near():
    exact, near = make_encoder().encode(TEXTS, progress=False), make_encoder(bf16=True).encode(TEXTS, progress=False)
    assert near.dtype == np.float32 and not np.array_equal(exact, near)
    np.testing.assert_allclose(np.linalg.norm(near, axis=1), 1, atol=1e-5)
    assert (exact * near).sum(axis=1).min() > 0.99


def test_reading_leaves_no_trace():
    encoder = make_encoder()
    wanted = encoder.encode(TEXTS, progress=False)
    encoder.model.train()
    state = torch.get_rng_state()
    np.testing.assert_array_equal(encoder.encode(TEXTS, progress=False), wanted)
    assert encoder.model.training and torch.equal(torch.get_rng_state(), state)


def test_equal_texts_are_read_once(monkeypatch):
    encoder, rows = make_encoder(), []
    original = type(encoder.model.base_model).forward

    def forward(self, **inputs):
        rows.append(len(inputs["input_ids"]))
        return original(self, **inputs)

    monkeypatch.setattr(type(encoder.model.base_model), "forward", forward)
    encoder.encode([*TEXTS, *TEXTS], progress=False)
    assert sum(rows) == len(set(TEXTS)) and max(rows) == 7


def test_a_folder_is_the_object_it_was_saved_from(tmp_path):
    encoder = make_encoder()
    encoder.model.base_model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    loaded = SentenceEncoder(tmp_path, max_length=64)
    np.testing.assert_allclose(loaded.encode(TEXTS, progress=False), encoder.encode(TEXTS, progress=False), atol=1e-6)
    again = SentenceEncoder(AutoModel.from_pretrained(tmp_path), encoder.tokenizer, max_length=64)
    assert not torch.equal(again.model.pooler.dense.weight, loaded._load()[0].pooler.dense.weight)  # made up
    assert loaded.fingerprint == again.fingerprint == encoder.fingerprint
    assert loaded.fingerprint != make_encoder(seed=1).fingerprint
    assert str(tmp_path) in loaded.name
    with torch.no_grad():
        encoder.model.base_model.embeddings.word_embeddings.weight[7] += 1  # as training would
    assert loaded.fingerprint != encoder.fingerprint


@pytest.mark.parametrize(
    "encoder, words",
    [
        (lambda: SentenceEncoder("/no/such/model"), "`model` /no/such/model could not be loaded"),
        (lambda: SentenceEncoder(make_language_model("bert")), "needs its `tokenizer`"),
        (lambda: make_encoder(max_length=65), "`max_length` must be from 1 to the model's 64 tokens, got 65"),
        (lambda: make_encoder(max_length=0), "`max_length`"),
        (lambda: make_encoder(pooling="max"), "`pooling`"),
        (lambda: make_encoder(batch_size=0), "`batch_size`"),
        (lambda: make_dense(approximate="lsh"), "`approximate` must be 'ivf' or 'hnsw', got 'lsh'"),
    ],
)
def test_arguments_are_checked(encoder, words):
    with pytest.raises(ValueError, match=words):
        encoder().encode(["w1"])


def test_vectors_that_are_not_finite_are_refused():
    encoder = make_encoder()
    with torch.no_grad():
        encoder.model.base_model.embeddings.word_embeddings.weight[:] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        encoder.encode(["w1"], progress=False)


def test_the_retriever_ranks_by_cosine():
    passages, retriever = make_passages(), make_dense(query_prefix="w3 ", passage_prefix="w4 ")
    retriever.index(passages)
    encoder = make_encoder()
    products = (
        encoder.encode(TEXTS, "w3 ", progress=False)
        @ encoder.encode([passage.searchable for passage in passages], "w4 ", progress=False).T
    )
    hits = retriever.search(TEXTS, 30)
    np.testing.assert_allclose(hits.scores, -np.sort(-products, axis=1), atol=1e-5)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(products, hits.rows, axis=1), atol=1e-5)


def test_what_is_loaded_is_mapped_and_not_encoded_again(tmp_path, monkeypatch):
    retriever = make_dense()
    retriever.index(make_passages())
    retriever.save(tmp_path / "index")
    loaded = make_dense()
    monkeypatch.setattr(SentenceEncoder, "encode", lambda *_, **__: pytest.fail("encoded again"))
    loaded.load(tmp_path / "index")
    assert isinstance(loaded._embeddings.base, np.memmap)
    assert not any(path.name == "faiss.index" for path in (tmp_path / "index").iterdir())


def test_size_chooses_between_torch_and_faiss(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    passages = make_passages(30)
    for exact_up_to, by_faiss in ((30, False), (29, True)):
        retriever = make_dense(exact_up_to=exact_up_to)
        retriever.index(passages)
        retriever.save(tmp_path / "index")
        assert (tmp_path / "index" / "faiss.index").exists() == by_faiss
    exact = make_dense()  # how the search is done is no setting of the index
    exact.load(tmp_path / "index")
    np.testing.assert_array_equal(exact.search(TEXTS, 4).rows, retriever.search(TEXTS, 4).rows)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(SentenceEncoder, "encode", lambda *_, **__: pytest.fail("encoded before faiss was missed"))
    with pytest.raises(ImportError, match=r'pip install "tithe\[retrieval\]"'):
        make_dense(exact_up_to=29).index(passages)


def test_a_classifiers_backbone_encodes():
    model = make_cross_encoder()
    retriever = DenseRetriever(model, make_tokenizer("masked"), max_length=64, progress=False)
    plain = DenseRetriever(model.base_model, make_tokenizer("masked"), max_length=64, progress=False)
    for one in (retriever, plain):
        one.index(make_passages())
    np.testing.assert_array_equal(retriever.search(TEXTS, 5).scores, plain.search(TEXTS, 5).scores)
    assert retriever.settings == plain.settings
