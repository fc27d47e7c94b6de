"""Where the parts of a Transformers model lie: backbone, head, layers, embeddings."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import unwrap_model


def plain_model(model: nn.Module) -> PreTrainedModel:
    """The `PreTrainedModel` inside `model`: without DDP, FSDP, DeepSpeed or PEFT around it.

    Raises:
        TypeError: there is none.
    """
    inner: Any = unwrap_model(model)
    if hasattr(inner, "get_base_model"):  # PEFT
        inner = inner.get_base_model()
    if not isinstance(inner, PreTrainedModel):
        raise TypeError(
            f"`model` must be a transformers `PreTrainedModel`, perhaps wrapped; got {type(inner).__name__}"
        )
    return inner


def backbone(model: nn.Module) -> nn.Module:
    """The part of `model` that turns token ids into hidden states: its encoder, where it has encoder and decoder.

    Raises:
        TypeError: `model` is no Transformers model.
    """
    inner = plain_model(model)
    return inner.get_encoder() if inner.config.is_encoder_decoder else inner.base_model


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of `model` outside its backbone, by name. Adapters inside the backbone are not among them."""
    inner = plain_model(model)
    inside = {id(p) for p in (inner.base_model.parameters() if inner.base_model is not inner else ())}
    return {name: p for name, p in model.named_parameters() if id(p) not in inside}


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The modules outside the backbone with one output per label: one linear layer, or what PEFT wraps around it."""
    inner = plain_model(model)
    inside = {id(module) for module in inner.base_model.modules()} if inner.base_model is not inner else set()
    labels = inner.config.num_labels
    return [m for m in inner.modules() if id(m) not in inside and getattr(m, "out_features", None) == labels]


def transformer_layers(model: nn.Module) -> nn.ModuleList:
    """The backbone's layers, from the input up.

    Raises:
        ValueError: no list of as many modules as the config has layers was found (layers shared, as in ALBERT).
    """
    count = plain_model(model).config.get_text_config().num_hidden_layers
    for module in backbone(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(plain_model(model)).__name__} has no list of {count} layers of its own")


def embedding_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that make up the embeddings: words, positions, token types, and their norm where it has its own."""
    inner = plain_model(model)
    words, base = inner.get_input_embeddings(), inner.base_model
    for module in base.modules():
        if module is not base and any(child is words for child in module.children()) and not _holds_layers(module):
            return [module]
    return [m for m in base.children() if m is words or isinstance(m, nn.Embedding)] or [words]


def _holds_layers(module: nn.Module) -> bool:
    return any(isinstance(child, nn.ModuleList) for child in module.modules())
