"""Texts for many inputs: the same in any batch, kept as they come, and the same after an interruption."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration, set_seed

from tithe.models import add_lora_and_prompt, generate_predictions
from tithe.recipes.small_model import train_tokenizer


WORDS = "one two three four five six seven eight nine ten".split()
INPUTS = [" ".join(WORDS[: 1 + i % 7]) for i in range(11)] + ["nine ten", "nine ten"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(WORDS)])


@pytest.fixture(params=["t5", "llama"])
def model(request, tokenizer):
    set_seed(0)
    if request.param == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
        base = T5ForConditionalGeneration(
            T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, eos_token_id=1, **sizes)
        )
        base.lm_head.weight = torch.nn.Parameter(torch.randn_like(base.lm_head.weight))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        base = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes))
    return add_lora_and_prompt(base, virtual_tokens=3)


def alone(model, tokenizer, text, **options):
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    found = model.eval().generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0]
    found = found if model.config.is_encoder_decoder else found[ids.shape[1] :]
    return tokenizer.decode(found, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_are_those_of_each_input_alone(model, tokenizer, batch_size):
    options = {"max_new_tokens": 5, "do_sample": False}
    found = generate_predictions(model, tokenizer, INPUTS, batch_size=batch_size, progress=False, **options)
    assert found == [alone(model, tokenizer, text, **options) for text in INPUTS]
    assert len(set(found)) > 1


def counted(model, monkeypatch):
    """A list that grows with every call of `generate`."""
    monkeypatch.undo()
    calls, original = [], type(model).generate

    def generate(*args, **kwargs):
        calls.append(len(kwargs["input_ids"]))
        return original(*args, **kwargs)

    monkeypatch.setattr(type(model), "generate", generate)
    return calls


@pytest.mark.parametrize("sample", [False, True])
def test_an_interrupted_call_goes_on(model, tokenizer, tmp_path, sample, monkeypatch):
    options = {"batch_size": 4, "max_new_tokens": 5, "do_sample": sample, "seed": 3, "progress": False}
    path, whole = tmp_path / "some.jsonl", tmp_path / "whole.jsonl"
    expected = generate_predictions(model, tokenizer, INPUTS, whole, **options)
    assert generate_predictions(model, tokenizer, INPUTS, **options) == expected
    lines = whole.read_text().splitlines(keepends=True)
    assert len(lines) == len(INPUTS)
    for kept in (0, 2, 4, 7):
        path.write_text("".join(lines[:kept]) + lines[kept][:10])  # killed within a line
        calls = counted(model, monkeypatch)
        assert generate_predictions(model, tokenizer, INPUTS, path, **options) == expected
        assert len(calls) == 4 - kept // 4
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({entry["key"] for entry in found}) == len(found) == len(INPUTS)
        assert [entry["prediction"] for entry in sorted(found, key=lambda e: e["row"])] == expected


def test_settings_are_kept_apart(model, tokenizer, tmp_path):
    path = tmp_path / "texts.jsonl"
    options = {"do_sample": False, "progress": False}
    short = generate_predictions(model, tokenizer, INPUTS, path, max_new_tokens=2, **options)
    longer = generate_predictions(model, tokenizer, INPUTS, path, max_new_tokens=6, **options)
    assert len(path.read_text().splitlines()) == 2 * len(INPUTS)
    assert generate_predictions(model, tokenizer, INPUTS, path, max_new_tokens=2, **options) == short != longer


def test_sampling_neither_reads_nor_moves_the_generator(model, tokenizer):
    options = {"do_sample": True, "max_new_tokens": 5, "progress": False}
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = generate_predictions(model, tokenizer, INPUTS, **options)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert generate_predictions(model, tokenizer, INPUTS, **options) == first
    assert generate_predictions(model, tokenizer, INPUTS, seed=1, **options) != first


def test_leaves_the_mode_as_it_was(model, tokenizer):
    model.train()
    generate_predictions(model, tokenizer, INPUTS[:2], max_new_tokens=2, progress=False)
    assert model.training


def test_no_inputs(model, tokenizer, tmp_path):
    assert generate_predictions(model, tokenizer, [], tmp_path / "none.jsonl", progress=False) == []


def test_bad_input(model, tokenizer, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("no json\n")
    with pytest.raises(ValueError, match=r"line 1 is no prediction: b'no json'; move the file away"):
        generate_predictions(model, tokenizer, ["one"], path)
    without = train_tokenizer(["one"])
    without.pad_token = None
    with pytest.raises(ValueError, match="has no padding token"):
        generate_predictions(model, without, ["one"])
