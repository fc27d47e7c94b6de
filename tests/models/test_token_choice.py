"""Which token comes next: against NumPy and the warpers of Transformers; when an answer is complete."""

import answerers
import numpy as np
import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from tithe.models.token_choice import Sampling, StopRule


@pytest.fixture(scope="module")
def logits():
    return torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.8), (7, 0.6), (100, 0.3), (1, 1.0)])
def test_probabilities_are_those_of_transformers(logits, temperature, top_k, top_p):
    scores = logits / temperature
    if top_k:
        scores = TopKLogitsWarper(min(top_k, 40))(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    found = Sampling(temperature, top_p, top_k).probabilities(logits)
    torch.testing.assert_close(found, scores.softmax(-1), atol=1e-6, rtol=1e-5)
    assert torch.equal(found > 0, scores > -torch.inf)


def test_a_token_is_drawn_by_inverse_transform(logits):
    sampling = Sampling(temperature=1.0, top_k=8)
    reached = sampling.probabilities(logits).numpy().astype(np.float64).cumsum(-1)
    for uniform in (0.0, 0.1, 0.37, 0.5, 0.9, 1 - 2**-24):
        expected = [int(np.flatnonzero(row > uniform * row[-1])[0]) for row in reached]
        assert sampling.choose(logits, [uniform] * 6) == expected


def test_what_is_left_out_is_never_drawn():
    logits = torch.tensor([[0.0, 0.0, 0.0, -50.0, -60.0]])
    sampling = Sampling(temperature=1.0, top_k=3)
    assert {sampling.choose(logits, [u])[0] for u in (0.0, 0.4, 0.99, 1 - 2**-24, 1.0)} == {0, 1, 2}


def test_frequencies_are_the_probabilities():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    sampling = Sampling(temperature=1.0, seed=5)
    uniforms = sampling.uniforms("some prompt", 0, 4000)
    drawn = sampling.choose(logits.expand(4000, -1), uniforms)
    assert np.abs(np.bincount(drawn) / 4000 - [0.1, 0.2, 0.3, 0.4]).max() < 0.03


def test_each_prompt_has_its_own_numbers():
    sampling = Sampling(temperature=1.0)
    first = sampling.uniforms("a", 0, 5)
    assert np.array_equal(first, sampling.uniforms("a", 0, 5)) and np.array_equal(
        first, sampling.uniforms("a", 0, 9)[:5]
    )
    others = [sampling.uniforms("b", 0, 5), sampling.uniforms("a", 1, 5), Sampling(1.0, seed=1).uniforms("a", 0, 5)]
    assert not any(np.array_equal(first, other) for other in others)
    assert not len(Sampling().uniforms("a", 0, 5))


def test_greedy_takes_the_likeliest_and_of_equals_the_first():
    assert Sampling().choose(torch.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, 2.0]]), []) == [1, 0]


@pytest.fixture(scope="module")
def tokenizer():
    return answerers.make_tokenizer()


@pytest.mark.parametrize(
    ("text", "end", "reason", "answer"),
    [
        ("one two", False, "", "one two"),
        ("one two", True, "eos", "one two"),
        ("one two three", False, "length", "one two three"),
        ("one two nine", False, "stop", "one two n"),
        ("five", False, "stop", "f"),
        ("nine five", False, "stop", "n"),  # the first in the text, not in the list
        ("", True, "eos", ""),
    ],
)
def test_stop_rule(tokenizer, text, end, reason, answer):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [answerers.EOS] * end
    rule = StopRule(tokenizer, 3, ("iv", "ine"), frozenset([answerers.EOS]))
    assert (rule.reason(ids), rule.text(ids)) == (reason, answer)


def test_a_stop_string_may_span_tokens(tokenizer):
    ids = tokenizer("one two three", add_special_tokens=False)["input_ids"]
    rule = StopRule(tokenizer, 9, ("e t",), frozenset())
    assert [rule.reason(ids[:count]) for count in (1, 2, 3)] == ["", "stop", "stop"]
    assert rule.text(ids) == "on"
