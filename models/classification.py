"""Preparing a sequence classifier for training on little: head dropout, frozen layers, two learning rates."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .structure import embedding_modules, head_parameters, plain_model, transformer_layers


# The names under which the configs of Transformers keep the dropout of a classification head.
_DROPOUT_KEYS = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob", "summary_last_dropout")


def set_head_dropout(model: nn.Module, probability: float) -> None:
    """Set the dropout before the classification head of `model`, in place and in its config.

    Where the head has dropout modules of its own, their probability changes; where it has none (GPT-2, Llama), dropout
    is applied to what enters the last linear layer, in training mode only. The weights' names stay as they are.

    Args:
        model: a sequence or token classifier, perhaps with PEFT around it.
        probability: share of the features set to zero, 0 ≤ p < 1.

    Raises:
        ValueError: `probability` is out of range, or the model has no head.
    """
    if not 0 <= probability < 1:
        raise ValueError(f"`head_dropout` must be at least 0 and below 1, got {probability}")
    inner = plain_model(model)
    base = {id(m) for m in inner.base_model.modules()}
    head = [m for m in inner.modules() if id(m) not in base and m is not inner]
    linear = [m for m in head if isinstance(m, nn.Linear)]
    if inner.base_model is inner or not linear:
        raise ValueError(f"`head_dropout` needs a model with a classification head, got {type(inner).__name__}")
    for key in _DROPOUT_KEYS:
        if hasattr(inner.config, key):
            setattr(inner.config, key, probability)
    own = [m for m in head if isinstance(m, nn.Dropout)]
    for module in own:
        module.p = probability
    if not own:

        def drop(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (F.dropout(inputs[0], probability, module.training), *inputs[1:])

        linear[-1].register_forward_pre_hook(drop)


def freeze(model: nn.Module, layers: int = 0, embeddings: bool = False) -> int:
    """Freeze the first `layers` layers of the backbone and, with `embeddings`, all that lies before them.

    Args:
        model: a Transformers model.
        layers: how many, counted from the input. Frozen layers without trained ones below them cost no backward pass:
            freeze the embeddings too, or the gradient still travels down to them.
        embeddings: freeze the word, position and type embeddings and their norm.

    Returns:
        The number of parameters frozen.

    Raises:
        ValueError: `layers` is negative or more than the model has, or its layers cannot be told apart.
    """
    modules = embedding_modules(model) if embeddings else []
    if layers:
        found = transformer_layers(model)
        if not 0 <= layers <= len(found):
            raise ValueError(f"`freeze_layers` must be from 0 to {len(found)}, the model's layers; got {layers}")
        modules = [*modules, *found[:layers]]
    parameters = {id(p): p for module in modules for p in module.parameters()}
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    return sum(p.numel() for p in parameters.values())


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
    decay_names: Collection[str],
) -> list[dict[str, Any]]:
    """Optimizer groups with one learning rate for the head and one for the backbone, each with and without decay.

    Schedulers scale each group from its own rate. The groups are plain dicts, as torch, bitsandbytes and DeepSpeed
    (with an optimizer that Transformers builds) take them; empty groups, which DeepSpeed refuses, are left out.

    Args:
        model: the model that is trained.
        learning_rate: the backbone's.
        head_learning_rate: that of all parameters outside the backbone.
        weight_decay: for the parameters in `decay_names`; the others get none.
        decay_names: names of parameters that decay: `Trainer.get_decay_parameter_names(model)`.
    """
    head = set(head_parameters(model))
    groups = []
    for in_head, rate in ((False, learning_rate), (True, head_learning_rate)):
        for decays in (True, False):
            parameters = [
                p
                for name, p in model.named_parameters()
                if p.requires_grad and (name in head) == in_head and (name in decay_names) == decays
            ]
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": weight_decay if decays else 0.0})
    return groups
