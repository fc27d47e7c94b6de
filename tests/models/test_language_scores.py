"""Scores from batches of positions equal a plain forward pass a text, mask by mask where the model is masked."""

import random

import language as tiny
import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    PreTrainedTokenizerFast,
)

from tithe.models import language_scores as module
from tithe.models.language_models import PositionLogits, language_model_kind, longest_input
from tithe.models.language_scores import LOSS_FLOOR, conditional_scores, read_language_scores


CAUSAL, MASKED, SEQ2SEQ = ["gpt2", "llama", "opt"], ["bert", "roberta"], ["t5", "bart", "encoder_decoder"]
KIND = {n: k for k, names in [("causal", CAUSAL), ("masked", MASKED), ("seq2seq", SEQ2SEQ)] for n in names}
GUESS = np.log(tiny.VOCABULARY)


def setting(name, **options):
    kind = "bart" if name == "bart" else KIND[name]
    return tiny.make_language_model(name), tiny.make_tokenizer(kind, **options)


def words(text):
    return [5 + int(word[1:]) for word in text.split()]


def causal_loss(model, context, answer):
    """The model's own loss, with labels at the answer alone."""
    ids = [*context, *answer]
    labels = [-100] * len(context) + list(answer)
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss)


def masked_loss(model, context, answer):
    losses = []
    for i, token in enumerate(answer):
        ids = [tiny.BOS, *context, *answer, tiny.EOS]
        place = 1 + len(context) + i
        ids[place] = tiny.MASK
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, place]
        losses.append(float(logits.logsumexp(-1) - logits[token]))
    return float(np.mean(losses))


def seq2seq_loss(model, source, answer, bart):
    source = [tiny.BOS] * bart + source + [tiny.EOS]
    labels = [-100] * bart + list(answer)  # what a BART tokenizer puts first is input, not scored
    target = torch.tensor([[tiny.BOS] * bart + list(answer)])
    start = model.config.decoder_start_token_id
    decoder = torch.cat([torch.tensor([[start]]), target[:, :-1]], 1)
    with torch.no_grad():
        output = model(input_ids=torch.tensor([source]), decoder_input_ids=decoder, labels=torch.tensor([labels]))
    return float(output.loss)


@pytest.mark.parametrize("name", CAUSAL)
def test_perplexity_of_a_causal_model_is_its_own_loss(name):
    model, tokenizer = setting(name)
    texts = tiny.make_texts()
    assert min(len(t.split()) for t in texts) == 1
    expected = [causal_loss(model, [tiny.BOS], words(t)) for t in texts]
    got = read_language_scores(model, tokenizer, texts, {"perplexity"}, batch_tokens=40)
    assert got["perplexity"].dtype == np.float32 and np.ptp(expected) > 0.5
    np.testing.assert_allclose(got["perplexity"], expected, atol=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_perplexity_of_a_masked_model_is_the_pseudo_log_likelihood(name):
    model, tokenizer = setting(name)
    texts = tiny.make_texts()
    expected = [masked_loss(model, [], words(t)) for t in texts]
    got = read_language_scores(model, tokenizer, texts, {"perplexity"}, batch_tokens=40)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(got["perplexity"], expected, atol=1e-5)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_perplexity_and_ifd_of_a_seq2seq_model(name):
    model, tokenizer = setting(name)
    texts, answers = tiny.make_texts(), tiny.make_texts(seed=1, longest=5)
    bart = name == "bart"
    given = [seq2seq_loss(model, words(t), words(a), bart) for t, a in zip(texts, answers, strict=True)]
    alone = [seq2seq_loss(model, [], words(a), bart) for a in answers]
    got = read_language_scores(model, tokenizer, texts, {"perplexity", "ifd"}, answers=answers, batch_tokens=40)
    assert np.ptp(given) > 0.5 and np.abs(np.subtract(given, alone)).max() > 0.05
    np.testing.assert_allclose(got["perplexity"], given, atol=2e-5)
    np.testing.assert_allclose(got["ifd"], np.divide(given, alone), rtol=2e-5)


@pytest.mark.parametrize("name", CAUSAL + MASKED)
def test_ifd_is_the_ratio_of_the_answers_losses(name):
    model, tokenizer = setting(name)
    prompts, answers = tiny.make_texts(), tiny.make_texts(seed=1, longest=4)
    loss = causal_loss if KIND[name] == "causal" else masked_loss
    start = [tiny.BOS] if KIND[name] == "causal" else []
    given = [loss(model, start + words(p), words(a)) for p, a in zip(prompts, answers, strict=True)]
    alone = [loss(model, start, words(a)) for a in answers]
    got = read_language_scores(model, tokenizer, prompts, {"ifd"}, answers=answers, batch_tokens=64)
    assert set(got) == {"ifd"}
    np.testing.assert_allclose(got["ifd"], np.divide(given, alone), rtol=2e-5)


def test_answers_are_found_by_offsets():
    """The answer's words stand in the prompt as well, and a merge crosses the border between the two."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    core.train_from_iterator(["хорошо good xgood", "good film", "agood"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    model = tiny.make_language_model("gpt2")
    model.resize_token_embeddings(len(tokenizer))
    prompts, answers = ["good good film", "хорошо", "a", ""], [" good", "хорошо", "good film", "x"]
    got = read_language_scores(model, tokenizer, prompts, {"ifd"}, answers=answers, separator="")["ifd"]
    bos, crossing = [tokenizer.bos_token_id], 0
    for value, prompt, answer in zip(got, prompts, answers, strict=True):
        ids = tokenizer(prompt + answer)["input_ids"]
        pieces = [len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]
        first = next(
            i for i, end in enumerate(pieces) if end > len(prompt) and "�" not in tokenizer.decode(ids[: i + 1])
        )
        crossing += first > 0 and pieces[first - 1] < len(prompt) or (first == 0 and len(prompt) > 0)
        while first and "�" in tokenizer.decode(ids[:first]):
            first -= 1
        given, alone = causal_loss(model, bos + ids[:first], ids[first:]), causal_loss(model, bos, ids[first:])
        assert value == pytest.approx(given / alone, rel=2e-5)
    assert crossing


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_order_batches_and_padding_side_do_not_matter(name):
    model, tokenizer = setting(name)
    texts, answers = tiny.make_texts(), tiny.make_texts(seed=1, longest=3)
    needs = {"perplexity", "ifd"}
    whole = read_language_scores(model, tokenizer, texts, needs, answers=answers)
    _, left = setting(name, padding_side="left")
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = read_language_scores(
        model, left, [texts[i] for i in order], needs, answers=[answers[i] for i in order], batch_tokens=1
    )
    for signal in needs:
        np.testing.assert_allclose(shuffled[signal], whole[signal][order], rtol=2e-5)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_logits_come_in_chunks(name, monkeypatch):
    model, tokenizer = setting(name)
    texts = tiny.make_texts()
    whole = read_language_scores(model, tokenizer, texts, {"perplexity"}, answers=texts, batch_tokens=10**6)[
        "perplexity"
    ]
    sizes, runs = [], []
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: sizes.append(logits.numel()))
    layers = {"gpt2": lambda: model.transformer.h[0], "bert": lambda: model.bert.encoder.layer[0]}
    layers["t5"] = lambda: model.encoder.block[0]
    layers[name]().register_forward_hook(lambda *_: runs.append(1))
    monkeypatch.setattr(module, "_CPU_LOGITS", 7 * tiny.VOCABULARY)
    chunked = read_language_scores(model, tokenizer, texts, {"perplexity"}, answers=texts, batch_tokens=10**6)[
        "perplexity"
    ]
    probe = 0 if name == "t5" else 2 * 8 * tiny.VOCABULARY
    assert max(sizes[bool(probe) :]) == 7 * tiny.VOCABULARY and len(sizes) > 20
    assert len(runs) == 1 + bool(probe)  # the body runs once, whatever the number of chunks
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)


def test_equal_texts_are_read_once_and_score_the_same():
    model, tokenizer = setting("gpt2")
    texts = tiny.make_texts(6)
    seen = []
    model.register_forward_pre_hook(lambda _, __, options: seen.append(len(options["input_ids"])), with_kwargs=True)
    got = read_language_scores(model, tokenizer, texts * 3, {"perplexity"})["perplexity"]
    assert sum(seen) == 2 + len(set(texts))
    assert (got.reshape(3, 6) == got[:6]).all()


def test_texts_without_a_token_to_predict_are_finite():
    for name in ("gpt2", "bert"):
        model, tokenizer = setting(name)
        got = read_language_scores(model, tokenizer, ["", "w1", " "], {"perplexity"})["perplexity"]
        np.testing.assert_allclose(got[[0, 2]], GUESS, rtol=1e-6)
        assert abs(got[1] - GUESS) > 1e-3
        assert read_language_scores(model, tokenizer, [""], {"perplexity"})["perplexity"] == np.float32(GUESS)


def test_without_bos_the_first_token_is_context():
    model, tokenizer = setting("gpt2", bos=False)
    texts = ["w1", "w1 w2 w3"]
    got = read_language_scores(model, tokenizer, texts, {"perplexity"})["perplexity"]
    np.testing.assert_allclose(got, [GUESS, causal_loss(model, words("w1"), words("w2 w3"))], rtol=1e-5)
    prompts, answers = ["w5 w6", "w5", ""], ["w1 w2 w3", "w4", "w7"]
    got = read_language_scores(model, tokenizer, prompts, {"ifd"}, answers=answers)["ifd"]
    same = causal_loss(model, words("w5 w6 w1"), words("w2 w3")) / causal_loss(model, words("w1"), words("w2 w3"))
    np.testing.assert_allclose(got, [same, causal_loss(model, words("w5"), words("w4")) / GUESS, 1], rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_long_texts_lose_their_end_and_long_prompts_their_beginning(name):
    model, tokenizer = setting(name)
    loss, around = (causal_loss, 1) if name == "gpt2" else (masked_loss, 2)
    start = [tiny.BOS] if name == "gpt2" else []
    text, room = " ".join(tiny.WORDS * 3), 10
    for limit, used in [({"max_length": room + around}, room), ({}, 64 - around)]:
        got = read_language_scores(model, tokenizer, [text], {"perplexity"}, **limit)["perplexity"]
        assert got[0] == pytest.approx(loss(model, start, words(text)[:used]), abs=1e-5)
    prompts, answers = [text, text, "w1 w2"], ["w3 w4", text, text]
    got = read_language_scores(model, tokenizer, prompts, {"ifd"}, answers=answers, max_length=room + around)["ifd"]
    kept = [(words(text)[-8:], words("w3 w4")), (words(text)[-5:], words(text)[:5]), ([6, 7], words(text)[:8])]
    expected = [loss(model, start + p, a) / loss(model, start, a) for p, a in kept]
    np.testing.assert_allclose(got, expected, rtol=2e-5)


def test_longest_input():
    for name, longest in [("gpt2", 64), ("roberta", 65 - tiny.PAD), ("t5", 10**9), ("bart", 64)]:
        model, tokenizer = setting(name)
        assert longest_input(model, tokenizer) == longest
        tokenizer.model_max_length = 33
        assert longest_input(model, tokenizer) == 33 and longest_input(model, tokenizer, 9) == 9


def test_a_trained_model_finds_what_it_was_not_trained_on_surprising():
    """Learns "each word is followed by the next": such texts score low, shuffled ones high; IFD is low where the
    prompt tells the answer."""
    model, tokenizer = setting("llama")
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        ids = (rng.integers(0, 40, (32, 1)) + np.arange(8)) % 40 + 5
        batch = torch.from_numpy(np.concatenate([np.full((32, 1), tiny.BOS), ids], 1))
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    counting = [" ".join(tiny.WORDS[i : i + 8]) for i in range(20)]
    shuffled = [" ".join(rng.permutation(text.split())) for text in counting]
    scores = read_language_scores(model, tokenizer, counting + shuffled, {"perplexity"})["perplexity"]
    assert scores[:20].max() < scores[20:].min()
    prompts, answers = ["w3 w4 w5", "w9 w8 w22"], ["w6 w7 w8", "w6 w7 w8"]
    told, untold = read_language_scores(model, tokenizer, prompts, {"ifd"}, answers=answers)["ifd"]
    assert told < 0.5 < 1 < untold


def test_the_denominator_has_a_floor():
    model, tokenizer = setting("gpt2")
    with torch.no_grad():  # every token predicts w0 with near certainty
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(40 * model.lm_head.weight[5] / model.lm_head.weight[5].norm())
        model.lm_head.weight[6:] = -model.lm_head.weight[5]
        model.lm_head.weight[:5] = -model.lm_head.weight[5]
    got = read_language_scores(model, tokenizer, ["w1"], {"ifd", "perplexity"}, answers=["w0"])
    assert causal_loss(model, [tiny.BOS], [5]) < LOSS_FLOOR
    assert got["ifd"][0] == pytest.approx(causal_loss(model, [tiny.BOS, 6], [5]) / LOSS_FLOOR, abs=1e-6)
    assert got["ifd"][0] < 1


def test_reading_leaves_no_trace():
    model, tokenizer = setting("gpt2")
    model.train()
    model.transformer.drop.eval()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = (
        read_language_scores(model, tokenizer, tiny.make_texts(), {"perplexity"})["perplexity"] for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()
    assert model.training and model.transformer.h.training and not model.transformer.drop.training
    assert "forward" not in model.transformer.__dict__ and not model.transformer._forward_hooks
    assert all(p.grad is None for p in model.parameters())


def test_a_replaced_forward_is_put_back():
    model, tokenizer = setting("gpt2")
    plain = read_language_scores(model, tokenizer, ["w1 w2"], {"perplexity"})["perplexity"]
    calls, original = [], model.transformer.forward

    def wrapped(*args, **options):
        calls.append(1)
        return original(*args, **options)

    model.transformer.forward = wrapped
    again = read_language_scores(model, tokenizer, ["w1 w2"], {"perplexity"})["perplexity"]
    assert again == plain and len(calls) == 2 and model.transformer.forward is wrapped


def test_adapters_are_read_through():
    model, tokenizer = setting("llama")
    texts = tiny.make_texts(5)
    plain = read_language_scores(model, tokenizer, texts, {"perplexity"})["perplexity"]
    lora = get_peft_model(
        tiny.make_language_model("llama"),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], lora_alpha=99, init_lora_weights=False),
    )
    got = read_language_scores(lora, tokenizer, texts, {"perplexity"})["perplexity"]
    assert np.abs(got - plain).max() > 1e-2
    prompted = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    got = read_language_scores(prompted, tokenizer, texts, {"perplexity"})["perplexity"]
    for value, text in zip(got, texts, strict=True):
        ids = torch.tensor([[tiny.BOS, *words(text)]])
        with torch.no_grad():
            logits = prompted(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 3:-1]
        assert value == pytest.approx(float(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])), abs=1e-5)


def test_half_precision_stays_close():
    model, tokenizer = setting("llama")
    texts = tiny.make_texts()
    exact = read_language_scores(model, tokenizer, texts, {"perplexity"})["perplexity"]
    rounded = read_language_scores(model.to(torch.bfloat16), tokenizer, texts, {"perplexity"})["perplexity"]
    assert 0 < np.abs(rounded - exact).max() < 0.1


def test_two_processes_read_what_one_reads(monkeypatch):
    """Each process's share, added up; batches are the same for any number of processes."""
    model, tokenizer = setting("bert")
    texts = tiny.make_texts()
    one = read_language_scores(model, tokenizer, texts, {"perplexity"}, batch_tokens=30)["perplexity"]
    shares = []
    monkeypatch.setattr(module, "_sum_over_processes", lambda values: shares.append(values.copy()))
    options = {"batch_tokens": 30, "num_processes": 2}
    assert read_language_scores(model, tokenizer, texts, {"perplexity"}, process_index=1, **options) == {}
    assert not ((shares[0] == 0).all() or (shares[0] != 0).all())
    monkeypatch.setattr(module, "_sum_over_processes", lambda values: np.add(values, shares[0], out=values))
    two = read_language_scores(model, tokenizer, texts, {"perplexity"}, process_index=0, **options)["perplexity"]
    np.testing.assert_array_equal(one, two)


def test_kinds_of_models():
    for name, kind in KIND.items():
        assert language_model_kind(tiny.make_language_model(name)) == kind
    config = BertConfig(**tiny.LAYERS, **tiny.IDS)
    for cls in (BertModel, BertForSequenceClassification):
        with pytest.raises(ValueError, match=f"{cls.__name__} is no causal, masked"):
            language_model_kind(cls(config))


@pytest.mark.parametrize("spread", [0.02, 0.5])
def test_a_bidirectional_model_is_never_read_by_shifted_logits(spread):
    config = BertConfig(**tiny.LAYERS, **tiny.IDS, initializer_range=spread)
    tokenizer = tiny.make_tokenizer("causal")
    with pytest.raises(ValueError, match="BertLMHeadModel is bidirectional"):
        read_language_scores(BertLMHeadModel(config), tokenizer, ["w1 w2"], {"perplexity"})
    config.is_decoder = True
    model = BertLMHeadModel(config).eval()
    got = read_language_scores(model, tokenizer, ["w1 w2"], {"perplexity"})["perplexity"]
    assert got[0] == pytest.approx(causal_loss(model, [tiny.BOS], words("w1 w2")), abs=1e-5)
    masked = tiny.make_language_model("bert")
    masked.config.is_decoder = True
    with pytest.raises(ValueError, match="sees nothing to the right"):
        PositionLogits(type(masked)(masked.config).eval(), "masked")


def test_errors_say_what_is_wrong():
    model, tokenizer = setting("gpt2")
    with pytest.raises(ValueError, match=r"cannot read \['el2n'\] from a language model"):
        read_language_scores(model, tokenizer, ["w1"], {"el2n"})
    with pytest.raises(ValueError, match="needs `answers`"):
        read_language_scores(model, tokenizer, ["w1"], {"ifd"})
    with pytest.raises(ValueError, match="1 `texts` and 2 `answers`"):
        read_language_scores(model, tokenizer, ["w1"], {"ifd"}, answers=["w1", "w2"])
    with pytest.raises(ValueError, match="answer of row 1 has no token"):
        read_language_scores(model, tokenizer, ["w1", "w1"], {"ifd"}, answers=["w1", " "])
    with pytest.raises(ValueError, match="`max_length` 2 leaves no room"):
        read_language_scores(model, tokenizer, ["w1"], {"perplexity"}, max_length=2)
    t5, its_tokenizer = setting("t5")
    with pytest.raises(ValueError, match="seq2seq language model needs `answers`"):
        read_language_scores(t5, its_tokenizer, ["w1"], {"perplexity"})
    bert, its_tokenizer = setting("bert")
    its_tokenizer.mask_token = None
    with pytest.raises(ValueError, match="no mask token"):
        read_language_scores(bert, its_tokenizer, ["w1"], {"perplexity"})
    assert read_language_scores(model, tokenizer, [], {"perplexity"}) == {}


def test_conditional_scores_are_losses_and_their_ratio_to_the_class_share():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 50).astype(np.float32)
    labels = rng.integers(0, 3, 50)
    got = conditional_scores(probabilities, labels)
    for i, label in enumerate(labels):
        loss, alone = -np.log(probabilities[i, label]), -np.log(np.mean(labels == label))
        assert got["perplexity"][i] == pytest.approx(loss, rel=1e-5)
        assert got["ifd"][i] == pytest.approx(loss / alone, rel=1e-5)


def test_conditional_scores_are_finite():
    got = conditional_scores(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))  # one class; impossible; certain
    np.testing.assert_allclose(got["perplexity"], [0, -np.log(1e-12)], rtol=1e-6)
    np.testing.assert_allclose(got["ifd"], [0, -np.log(1e-12) / LOSS_FLOOR], rtol=1e-6)
    assert conditional_scores(np.empty((0, 2)), np.empty(0, dtype=int))["ifd"].shape == (0,)
    for labels in ([0, 2], [0, -1], [0.0, 1.0]):
        with pytest.raises(ValueError, match="class indices below 2"):
            conditional_scores(np.full((2, 2), 0.5), np.array(labels))
    with pytest.raises(ValueError, match="must be"):
        conditional_scores(np.full((2, 2), 0.5), np.array([0]))
