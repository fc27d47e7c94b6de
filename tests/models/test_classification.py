import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2ForSequenceClassification

from tithe.models import (
    backbone,
    embedding_modules,
    freeze,
    head_parameters,
    parameter_groups,
    plain_model,
    set_head_dropout,
    transformer_layers,
)


def gpt2():
    config = GPT2Config(n_embd=8, n_layer=2, n_head=1, vocab_size=60, pad_token_id=0, bos_token_id=0, eos_token_id=0)
    return GPT2ForSequenceClassification(config)


def test_parts_of_a_model(model):
    assert backbone(model) is model.bert
    assert embedding_modules(model) == [model.bert.embeddings]
    assert list(transformer_layers(model)) == list(model.bert.encoder.layer)
    assert set(head_parameters(model)) == {"classifier.weight", "classifier.bias"}
    with pytest.raises(TypeError, match="got Linear"):
        plain_model(torch.nn.Linear(2, 2))


def test_adapters_belong_to_the_backbone(model):
    adapted = get_peft_model(model, LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))
    names = head_parameters(adapted)
    assert names and all("classifier" in name for name in names)
    assert not any("lora" in name for name in names)


def test_head_dropout_changes_the_head_only(model):
    set_head_dropout(model, 0.4)
    assert model.dropout.p == 0.4
    assert model.bert.embeddings.dropout.p == model.config.hidden_dropout_prob == 0.1
    assert model.config.classifier_dropout == 0.4


def test_head_dropout_where_the_head_has_none():
    model = gpt2().eval()
    names = list(model.state_dict())
    ids = torch.arange(1, 7).view(2, 3)
    before = model(ids).logits
    set_head_dropout(model, 0.9)
    assert torch.equal(model(ids).logits, before)
    for module in model.modules():
        module.training = module is model.score  # everything else without noise
    torch.manual_seed(0)
    first = model(ids).logits
    torch.manual_seed(1)
    assert not torch.equal(first, model(ids).logits)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_head_dropout_out_of_range(model, probability):
    with pytest.raises(ValueError, match="`head_dropout` must be at least 0 and below 1"):
        set_head_dropout(model, probability)


def test_head_dropout_needs_a_head(model):
    with pytest.raises(ValueError, match="classification head, got BertModel"):
        set_head_dropout(model.bert, 0.1)


def test_freeze(model):
    frozen = freeze(model, layers=1, embeddings=True)
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {
        n for n, _ in model.named_parameters() if n.startswith(("bert.embeddings", "bert.encoder.layer.0"))
    }
    assert frozen == sum(p.numel() for p in model.parameters() if not p.requires_grad)


def test_freeze_where_embeddings_lie_beside_the_layers():
    model = gpt2()
    freeze(model, embeddings=True)
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {"transformer.wte.weight", "transformer.wpe.weight"}


@pytest.mark.parametrize("layers", [-1, 3])
def test_freeze_too_many(model, layers):
    with pytest.raises(ValueError, match="`freeze_layers` must be from 0 to 2"):
        freeze(model, layers=layers)


def test_parameter_groups_cover_what_is_trained_once(model):
    freeze(model, embeddings=True)
    decays = {name for name, p in model.named_parameters() if p.dim() > 1}
    groups = parameter_groups(model, learning_rate=1e-5, head_learning_rate=1e-3, weight_decay=0.1, decay_names=decays)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    by_id = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert by_id[id(model.classifier.weight)] == (1e-3, 0.1)
    assert by_id[id(model.classifier.bias)] == (1e-3, 0.0)
    assert by_id[id(model.bert.pooler.dense.weight)] == (1e-5, 0.1)
    assert by_id[id(model.bert.pooler.dense.bias)] == (1e-5, 0.0)


def test_parameter_groups_leave_empty_ones_out(model):
    freeze(model, layers=2, embeddings=True)
    for parameter in model.bert.pooler.parameters():
        parameter.requires_grad_(False)
    groups = parameter_groups(model, learning_rate=1e-5, head_learning_rate=1e-3, weight_decay=0.1, decay_names=set())
    assert [group["lr"] for group in groups] == [1e-3]
