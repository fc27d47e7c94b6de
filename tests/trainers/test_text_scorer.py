"""A language model beside the one in training: read once, before the first step, and never again with a cache."""

import language as tiny
import numpy as np
import pytest

from tithe.models import read_language_scores
from tithe.trainers import text_scorer
from tithe.trainers.text_scorer import load_language_model


def with_words(pool):
    """Texts in the words of the tiny language models."""
    return pool.map(lambda row: {"text": " ".join(f"w{token % 40}" for token in row["input_ids"])})


@pytest.fixture
def pool(make_pool):
    return with_words(make_pool())


@pytest.mark.parametrize("strategy", ["perplexity", "ifd"])
def test_scores_are_those_of_the_language_model(make_trainer, pool, strategy):
    model, tokenizer = tiny.make_language_model("gpt2"), tiny.make_tokenizer("causal")
    trainer = make_trainer(
        strategy=strategy,
        pool=pool,
        trainer={"scoring_model": (model, tokenizer)},
        rounds=1,
        proxy="linear",
        pool_answer_column="text" if strategy == "ifd" else None,
    )
    trainer.train()
    answers = pool["text"][:] if strategy == "ifd" else None
    expected = read_language_scores(model, tokenizer, pool["text"][:], {strategy}, answers=answers)[strategy]
    np.testing.assert_allclose(trainer.ledger.columns[0][strategy], expected, rtol=1e-6)
    assert trainer.ledger.rows[0]["strategy"].lower().startswith(strategy)


def test_answers_are_the_names_of_the_labels(make_trainer, make_model, pool, monkeypatch):
    seen = []
    monkeypatch.setattr(
        text_scorer,
        "read_language_scores",
        lambda model, tokenizer, texts, names, answers, **rest: (
            seen.append(answers) or {name: np.ones(len(texts), dtype=np.float32) for name in names}
        ),
    )
    named = make_model(id2label={0: "w1", 1: "w2", 2: "w3"}, label2id={"w1": 0, "w2": 1, "w3": 2})
    scoring = (tiny.make_language_model("gpt2"), tiny.make_tokenizer("causal"))
    make_trainer(strategy="ifd", model=named, pool=pool, trainer={"scoring_model": scoring}, rounds=1).train()
    assert seen == [[f"w{label + 1}" for label in pool["label"]]]


def test_a_cache_saves_the_second_reading(make_trainer, pool, tmp_path, monkeypatch):
    calls = []
    original = text_scorer.read_language_scores
    monkeypatch.setattr(
        text_scorer, "read_language_scores", lambda *args, **kw: calls.append(len(args[2])) or original(*args, **kw)
    )
    chosen = []
    for seed in (0, 0, 1):  # the last is another language model
        scoring = (tiny.make_language_model("gpt2", seed), tiny.make_tokenizer("causal"))
        options = {"strategy": "perplexity", "rounds": 3, "signal_cache": str(tmp_path / "cache")}
        trainer = make_trainer(pool=pool, trainer={"scoring_model": scoring}, **options)
        trainer.train()
        chosen.append(trainer.ledger.selected.tolist())
    assert calls == [60, 60] and chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_the_kind_of_a_saved_model_is_found(tmp_path, name):
    tiny.make_language_model(name).save_pretrained(tmp_path)
    tiny.make_tokenizer("causal").save_pretrained(tmp_path)
    model, _ = load_language_model(str(tmp_path))
    assert (
        type(model).__name__
        == {"gpt2": "GPT2LMHeadModel", "bert": "BertForMaskedLM", "t5": "T5ForConditionalGeneration"}[name]
    )


def test_what_is_no_language_model_is_refused_before_training(make_trainer, make_model, pool, tmp_path):
    make_model().save_pretrained(tmp_path / "classifier")
    tiny.make_tokenizer("causal").save_pretrained(tmp_path / "classifier")
    with pytest.raises(
        ValueError, match="was saved as BertForSequenceClassification: give a causal, masked or seq2seq"
    ):
        make_trainer(strategy="perplexity", pool=pool, scoring_model=str(tmp_path / "classifier"))
    with pytest.raises(ValueError, match="`scoring_model` .*nowhere could not be loaded"):
        make_trainer(strategy="perplexity", pool=pool, scoring_model=str(tmp_path / "nowhere"))
    make_trainer(strategy="random", pool=pool, scoring_model=str(tmp_path / "nowhere"))  # it is never asked


def test_ifd_without_answers_is_refused_before_training(make_trainer, pool):
    scoring = (tiny.make_language_model("gpt2"), tiny.make_tokenizer("causal"))
    options = {"strategy": "ifd", "strategy_kwargs": {"per_class": False}, "trainer": {"scoring_model": scoring}}
    with pytest.raises(ValueError, match="`ifd` compares answers: give `pool_answer_column`"):
        make_trainer(pool=pool.remove_columns("label"), **options)
    with pytest.raises(ValueError, match="`train_dataset` has no column 'reply'"):
        make_trainer(pool=pool, pool_answer_column="reply", **options)
