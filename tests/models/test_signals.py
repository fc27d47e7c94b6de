"""What is read of a pool is what the model says of each row alone, and reading leaves no trace."""

import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMultipleChoice,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from tithe.models import read_signals, row_arrays, signals, take_rows


NEEDS = {"embeddings", "probabilities", "el2n"}


def read(model, pool, needs, collate, **options):
    lengths = [len(row) for row in pool["input_ids"]]
    return read_signals(model, pool, needs, collate=collate, lengths=lengths, **{"batch_size": 7, **options})


def one_by_one(model, pool, collate):
    """The three signals from their definitions, a row at a time, without padding."""
    model.eval()
    rows = []
    for row in pool:
        batch = collate([row])
        labels = batch.pop("labels")
        with torch.no_grad():
            outputs = model(**batch, output_hidden_states=True)
        probabilities = np.exp(outputs.logits[0].double().numpy())
        probabilities /= probabilities.sum()
        onehot = np.eye(len(probabilities))[int(labels[0])]
        mean = outputs.hidden_states[-1][0].double().numpy().mean(0)
        rows.append((mean, probabilities, np.linalg.norm(probabilities - onehot)))
    return [np.array(column) for column in zip(*rows, strict=True)]


def test_signals_are_their_definitions(model, pool, collate):
    embeddings, probabilities, el2n = one_by_one(model, pool, collate)
    read_in_batches = read(model, pool, NEEDS, collate)
    np.testing.assert_allclose(read_in_batches["embeddings"], embeddings, atol=1e-5)
    np.testing.assert_allclose(read_in_batches["probabilities"], probabilities, atol=1e-6)
    np.testing.assert_allclose(read_in_batches["el2n"], el2n, atol=1e-6)
    assert all(values.dtype == np.float32 for values in read_in_batches.values())


def test_only_what_is_needed_is_read_in_one_pass(model, pool, collate):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert set(read(model, pool, {"el2n", "embeddings"}, collate)) == {"el2n", "embeddings"}
    assert len(calls) == -(-len(pool) // 7)


def test_reading_leaves_modes_and_generators_as_they_were(model, pool, collate):
    def noisy(rows):
        torch.rand(1), np.random.rand(), random.random()
        return collate(rows)

    model.train()
    model.bert.embeddings.eval()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    read(model, pool, NEEDS, noisy)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert model.training and model.classifier.training
    assert not model.bert.embeddings.training and not model.bert.embeddings.dropout.training
    assert not model.bert._forward_hooks


def test_dropout_is_off_while_reading(make_model, pool, collate):
    model = make_model(hidden_dropout_prob=0.5).train()
    first, second = (read(model, pool, {"probabilities"}, collate)["probabilities"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_longest_rows_come_first(model, pool, collate):
    widths = []

    def watched(rows):
        batch = collate(rows)
        widths.append(batch["input_ids"].shape[1])
        return batch

    read(model, pool, {"probabilities"}, watched)
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]


def test_token_classification_averages_over_labelled_tokens():
    model = BertForTokenClassification(
        BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20, num_labels=4
        )
    ).eval()
    rows = [
        {"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1], "labels": [-100, 2, 3]},
        {"input_ids": [4, 5], "attention_mask": [1, 1], "labels": [0, -100]},
    ]

    def collate(batch):
        width = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
        return {k: torch.tensor([row[k] + [v] * (width - len(row[k])) for row in batch]) for k, v in fill.items()}

    got = read_signals(model, rows, {"probabilities", "el2n"}, collate=collate, lengths=[3, 2], batch_size=2)
    for i, row in enumerate(rows):
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]]), torch.tensor([row["attention_mask"]])).logits[0]
        active = [t for t, label in enumerate(row["labels"]) if label != -100]
        probabilities = logits.softmax(-1)[active].numpy()
        errors = probabilities - np.eye(4)[[row["labels"][t] for t in active]]
        np.testing.assert_allclose(got["probabilities"][i], probabilities.mean(0), atol=1e-6)
        np.testing.assert_allclose(got["el2n"][i], np.linalg.norm(errors, axis=1).mean(), atol=1e-6)


def test_a_language_model_gives_embeddings_only(pool, collate):
    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=2000, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    assert read(model, pool, {"embeddings"}, collate)["embeddings"].shape == (len(pool), 8)
    with pytest.raises(ValueError, match="2000 logits.*`?embeddings`? only"):
        read(model, pool, {"probabilities"}, collate)


@pytest.mark.parametrize("kind", ["modernbert", "distilbert", "gpt2", "bart"])
def test_other_architectures(kind, pool, collate):
    sizes = {
        "modernbert": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            **{name: 1 for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")},
        },
        "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1},
        "bart": {
            "d_model": 16,
            **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
            **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
            **{f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")},
        },
    }[kind]
    config = AutoConfig.for_model(kind, vocab_size=60, num_labels=3, pad_token_id=0, **sizes)
    model = AutoModelForSequenceClassification.from_config(config)

    def ending(rows):  # BART's head reads the end token, of which every row must have one
        batch = collate([{**row, "input_ids": [*row["input_ids"][:3], 2], "attention_mask": [1] * 4} for row in rows])
        return batch

    rows = pool.select(range(10))
    got = read(model, rows, NEEDS, ending if kind == "bart" else collate)
    assert got["embeddings"].shape == (10, 16)
    np.testing.assert_allclose(got["probabilities"].sum(1), 1, atol=1e-5)


def test_peft_models_are_read_through_their_adapters(model, pool, collate):
    plain = read(model, pool, {"probabilities"}, collate)["probabilities"]
    adapted = get_peft_model(model, LoraConfig(target_modules=["value"], lora_alpha=9999, init_lora_weights=False))
    through = read(adapted, pool, NEEDS, collate)
    assert np.abs(through["probabilities"] - plain).max() > 1e-3
    assert through["embeddings"].shape == (len(pool), 16)


def test_large_arrays_lie_on_disk(model, pool, collate, monkeypatch):
    small = read(model, pool, NEEDS, collate)
    monkeypatch.setattr(row_arrays, "_ON_DISK_ABOVE", 100)
    large = read(model, pool, NEEDS, collate)
    assert isinstance(large["embeddings"], np.memmap)
    for name in NEEDS:
        np.testing.assert_array_equal(large[name], small[name])
    rows = np.array([1, 5, 9])
    taken = take_rows(large["embeddings"], rows)
    assert isinstance(taken, np.memmap)
    np.testing.assert_array_equal(taken, small["embeddings"][rows])
    assert take_rows(small["el2n"], np.arange(len(pool))) is small["el2n"]


def test_errors_say_what_is_wrong(model, make_model, pool, collate):
    with pytest.raises(ValueError, match=r"cannot read \['perplexity'\]"):
        read(model, pool, {"perplexity"}, collate)
    with pytest.raises(ValueError, match="`el2n` needs one class index per row"):
        read(model, pool.remove_columns("label"), {"el2n"}, collate)
    with pytest.raises(ValueError, match="two classes or more"):
        read(make_model(num_labels=1), pool, {"probabilities"}, collate)
    with pytest.raises(ValueError, match="gives no logits"):
        read(model.bert, pool, {"probabilities"}, collate)


def test_nothing_needed_nothing_read(model, pool, collate):
    model.register_forward_hook(lambda *_: pytest.fail("a forward pass was made"))
    assert read(model, pool, set(), collate) == {}


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def test_the_last_layer_makes_the_probabilities_of_the_head_inputs(model, pool, collate):
    found = read(model, pool, {"head_inputs", "probabilities"}, collate)
    weight, bias = (p.detach().numpy() for p in (model.classifier.weight, model.classifier.bias))
    np.testing.assert_allclose(softmax(found["head_inputs"] @ weight.T + bias), found["probabilities"], atol=1e-6)


def test_head_inputs_of_an_adapted_head(make_model, pool, collate):
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    model = get_peft_model(make_model(), config)
    layer = model.base_model.model.classifier.modules_to_save["default"]
    torch.nn.init.normal_(layer.weight)
    found = read(model, pool, {"head_inputs", "probabilities"}, collate)
    logits = found["head_inputs"] @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(softmax(logits), found["probabilities"], atol=1e-5)


def test_head_inputs_need_a_layer_whose_outputs_are_the_logits(pool, collate):
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 60, "num_labels": 3, "pad_token_id": 0}
    last = AutoModelForSequenceClassification.from_config(GPT2Config(**sizes))
    with pytest.raises(ValueError, match="chooses among its outputs"):
        read(last, pool, {"head_inputs"}, collate)
    with pytest.raises(ValueError, match="has no last linear layer"):
        read(GPT2LMHeadModel(GPT2Config(**{**sizes, "num_labels": 2})), pool, {"head_inputs"}, collate)


def test_passes_with_dropout_differ_and_repeat(model, pool, collate):
    model.train()
    state = torch.get_rng_state()
    first = read(model, pool, {"mc_probabilities", "probabilities"}, collate, mc_passes=40)
    assert torch.equal(state, torch.get_rng_state()) and all(module.training for module in model.modules())
    again = read(model, pool, {"mc_probabilities"}, collate, mc_passes=40)
    other = read(model, pool, {"mc_probabilities"}, collate, mc_passes=40, mc_seed=1)
    assert first["mc_probabilities"].shape == (40, len(pool), 3)
    np.testing.assert_array_equal(first["mc_probabilities"], again["mc_probabilities"])
    assert (first["mc_probabilities"] != other["mc_probabilities"]).mean() > 0.9
    assert np.unique(first["mc_probabilities"][:, 0, 0]).size == 40
    off = np.abs(first["mc_probabilities"].mean(axis=0) - first["probabilities"])
    assert off.max() < np.abs(first["mc_probabilities"] - first["probabilities"]).max() / 3
    plain = read(model, pool, {"probabilities"}, collate)["probabilities"]
    np.testing.assert_array_equal(first["probabilities"], plain)


def test_what_is_dropped_depends_on_the_batch_and_not_on_what_was_read_before(model, pool, collate):
    """The share of two processes, each read alone, is the same as in one."""
    lengths = np.array([len(row) for row in pool["input_ids"]])
    batches = signals._length_sorted_batches(lengths, 7)
    whole = read(model, pool, {"mc_probabilities"}, collate, mc_passes=2)["mc_probabilities"]
    model.eval()
    for number in (3, 1):
        rows = batches[number]
        batch = collate([pool[i] for i in rows.tolist()])
        with torch.no_grad():
            alone = signals._with_dropout(model, batch, 2, (0, number))
        np.testing.assert_array_equal(alone.numpy(), whole[:, rows].transpose(1, 0, 2))


def test_batch_norms_keep_to_what_they_have_learnt(model, pool, collate):
    model.classifier = torch.nn.Sequential(torch.nn.BatchNorm1d(16), model.classifier)
    read(model, pool, {"mc_probabilities"}, collate, mc_passes=2)
    assert model.classifier[0].num_batches_tracked == 0


def test_a_model_without_dropout_is_refused(make_model, pool, collate):
    model = make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with pytest.raises(ValueError, match="dropout changes nothing"):
        read(model, pool, {"mc_probabilities"}, collate)


def test_multiple_choice_is_read_choice_by_choice():
    """Probabilities over a row's choices; its embedding is the mean over theirs, padding left out."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMultipleChoice(BertConfig(vocab_size=30, max_position_embeddings=16, **sizes)).eval()
    rng = np.random.default_rng(0)
    rows = [[rng.integers(3, 30, rng.integers(2, 7)).tolist() for _ in range(4)] for _ in range(9)]

    def collate(part):
        ids = torch.zeros(len(part), 4, 7, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(part):
            for n, choice in enumerate(row["input_ids"]):
                ids[i, n, : len(choice)], mask[i, n, : len(choice)] = torch.tensor(choice), 1
        return {"input_ids": ids, "attention_mask": mask}

    pool, lengths = [{"input_ids": row} for row in rows], [max(map(len, row)) for row in rows]
    found = read_signals(model, pool, {"embeddings", "probabilities"}, collate=collate, lengths=lengths, batch_size=4)
    for row, embedding, probabilities in zip(rows, found["embeddings"], found["probabilities"], strict=True):
        scores, means = [], []
        for choice in row:
            with torch.no_grad():
                output = model(input_ids=torch.tensor([[choice]]), output_hidden_states=True)
            scores.append(output.logits.item())
            means.append(output.hidden_states[-1][0].mean(0).numpy())
        np.testing.assert_allclose(probabilities, np.exp(scores) / np.exp(scores).sum(), rtol=1e-5)
        np.testing.assert_allclose(embedding, np.mean(means, axis=0), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="head_inputs"):
        read_signals(model, pool, {"head_inputs"}, collate=collate, lengths=lengths)
