"""The loss against its formula in NumPy, and against the heads' own mean where both are right."""

import inspect

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from tithe.trainers import classification_loss, losses


def cross_entropy(logits, labels, smoothing=0.0):
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, labels[:, None], -1)[:, 0]
    return -((1 - smoothing) * picked + smoothing * log_p.mean(-1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classes(model, smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)), rng.integers(0, 3, 5)
    loss = classification_loss(model, smoothing)
    arguments = {"logits": torch.tensor(logits)}, torch.tensor(labels)
    want = cross_entropy(logits, labels, smoothing).sum()
    assert loss(*arguments, num_items_in_batch=torch.tensor(20)).item() == pytest.approx(want / 20, rel=1e-6)
    assert loss(*arguments).item() == pytest.approx(want / 5, rel=1e-6)


def test_tokens_ignore_unlabelled_ones():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    model = BertForTokenClassification(config)
    labels = torch.tensor([[1, -100, 0], [-100, -100, 1]])
    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    model.eval()
    loss = classification_loss(model)(model(**inputs), labels)
    torch.testing.assert_close(loss, model(**inputs, labels=labels).loss)


@pytest.mark.parametrize(
    ("problem", "outputs", "labels"),
    [
        ("regression", 1, torch.tensor([0.5, -1.0])),
        ("regression", 3, torch.randn(2, 3)),
        ("multi_label_classification", 3, torch.tensor([[1.0, 0, 1], [0, 0, 1]])),
        (None, 1, torch.tensor([0.5, -1.0])),
        (None, 3, torch.tensor([[1.0, 0, 1], [0, 0, 1]])),
        (None, 3, torch.tensor([2, 0])),
    ],
)
def test_every_problem_type_means_what_the_head_means(make_model, problem, outputs, labels):
    model = make_model(num_labels=outputs).eval()
    model.config.problem_type = problem
    ids = torch.tensor([[3, 4], [5, 6]])
    loss = classification_loss(model)(model(ids), labels)
    torch.testing.assert_close(loss, model(ids, labels=labels).loss)


def test_data_parallel_counts_are_shares(model):
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = classification_loss(model)
    one = loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(4))
    two = loss({"logits": logits}, labels, num_items_in_batch=torch.tensor([[2], [2]]))
    torch.testing.assert_close(one, two)


def test_language_models_are_left_alone():
    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, bos_token_id=0, eos_token_id=0)
    assert classification_loss(GPT2LMHeadModel(config)) is None


def test_choices():
    """Accumulated and over processes, a choice among the logits is as right as a class."""
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    loss = classification_loss(BertForMultipleChoice(config))
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    found = loss({"logits": torch.tensor(logits)}, torch.tensor(labels), num_items_in_batch=torch.tensor(20))
    assert found.item() == pytest.approx(cross_entropy(logits, labels).sum() / 20, rel=1e-6)


def test_which_heads_of_encoder_decoders_return_a_mean():
    """Those that call `loss_function` hand it `num_items_in_batch`; of text to text, all others are corrected."""
    found = set()
    for names in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values():
        for name in [names] if isinstance(names, str) else names:
            head = getattr(transformers, name)
            source = inspect.getsource(head.forward)
            if "loss_function(" not in source and "input_features" not in source:  # those are of sounds
                found.add(name)
    assert found == losses._SEQ2SEQ
