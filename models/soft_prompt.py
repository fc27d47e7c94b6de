"""A soft prompt: trained vectors before a model's input, put there by hooks, so that the model stays what it is."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .structure import backbone, plain_model


PROMPT = "soft_prompt"
_PREFIXED = "_soft_prompt_is_in"


class SoftPrompt(nn.Module):
    """`virtual_tokens` vectors of the model's width (Lester et al., 2104.08691).

    Args:
        virtual_tokens: how many, at least 1.
        width: of the embeddings that they stand beside.
    """

    def __init__(self, virtual_tokens: int, width: int, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.virtual_tokens = virtual_tokens  # ZeRO-3 leaves an empty weight between uses
        self.weight = nn.Parameter(torch.zeros(virtual_tokens, width, device=device, dtype=dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """The vectors before each of `rows`, (rows, tokens, width): (rows, virtual_tokens, width)."""
        return self.weight.to(rows.dtype).expand(len(rows), -1, -1)


class NoPrompt(nn.Module):
    """A prompt of no vectors: what a model whose adapters are disabled has."""

    virtual_tokens = 0

    def forward(self, rows: Tensor) -> Tensor:
        return rows[:, :0]


def attach_soft_prompt(model: PreTrainedModel, virtual_tokens: int) -> SoftPrompt:
    """Put a prompt of zeros before the input of `model`: of its encoder, or of a causal model.

    Nothing else changes: inputs, masks, positions, labels, `generate` and logits are those of the model without one,
    and the prompt is the module `soft_prompt` of the encoder, or of the model below the language-model head. Masks and
    positions that are as long as the input are extended, those that have the prompt's length already are taken as they
    are. A causal model's hidden states and logits are those of the input alone.

    Raises:
        TypeError: the model is neither an encoder-decoder nor a causal language model with a base model of its own.
        ValueError: it has a prompt already, `virtual_tokens` is below 1, or its positions have no room for them.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"`model` must be a plain transformers model, got {type(model).__name__}")
    body = backbone(model)
    if not model.config.is_encoder_decoder and (body is model or not model.can_generate()):
        raise TypeError(
            f"a soft prompt needs an encoder-decoder or a causal language model, got {type(model).__name__}"
        )
    if hasattr(body, PROMPT):
        raise ValueError("the model has a soft prompt already")
    check_positions(model, virtual_tokens)
    weight: Any = model.get_input_embeddings().weight
    dtype = weight.dtype if weight.dtype.is_floating_point else model.dtype
    prompt = SoftPrompt(virtual_tokens, embedding_width(model), weight.device, dtype)
    setattr(body, PROMPT, prompt)
    if model.config.is_encoder_decoder:
        body.register_forward_pre_hook(_before_encoder, with_kwargs=True)
        model.get_decoder().register_forward_pre_hook(_before_decoder, with_kwargs=True)
    else:
        body.register_forward_pre_hook(_before_causal, with_kwargs=True)
        body.register_forward_hook(_after_causal)
    return prompt


def detach_soft_prompt(model: PreTrainedModel) -> Tensor | None:
    """Take prompt and hooks off `model`, and return the prompt's vectors; None where it has none."""
    body = backbone(model)
    prompt = getattr(body, PROMPT, None)
    if prompt is None:
        return None
    modules = [body, model.get_decoder()] if model.config.is_encoder_decoder else [body]
    for module in modules:
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, function in hooks.items() if function in _HOOKS]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
    delattr(body, PROMPT)
    return prompt.weight.detach()


def check_positions(model: PreTrainedModel, virtual_tokens: int, tokens: int = 1) -> None:
    """Raise a `ValueError` unless `virtual_tokens` and an input of `tokens` tokens fit the model's positions."""
    if virtual_tokens < 1:
        raise ValueError(f"`virtual_tokens` must be at least 1, got {virtual_tokens}")
    longest = input_positions(model)
    if longest is not None and virtual_tokens + tokens > longest:
        raise ValueError(
            f"{virtual_tokens} virtual tokens and inputs of {tokens} tokens need {virtual_tokens + tokens} positions; "
            f"{type(model).__name__} has {longest}"
        )


def input_positions(model: PreTrainedModel) -> int | None:
    """How many positions the model's input has; None where they are relative (T5)."""
    return getattr(plain_model(model).config, "max_position_embeddings", None)


def embedding_width(model: PreTrainedModel) -> int:
    """The width of the word embeddings."""
    table: Any = model.get_input_embeddings()
    return getattr(table.weight, "ds_shape", table.weight.shape)[-1]  # ZeRO-3 leaves an empty tensor between uses


def prompt_of(model: nn.Module) -> Any:
    """The soft prompt of `model`, or what PEFT wraps around it; None where it has none."""
    return getattr(backbone(model), PROMPT, None)


def virtual_tokens_of(model: nn.Module) -> int:
    """How many vectors the prompt of `model` has, 0 without one."""
    prompt = prompt_of(model)
    return 0 if prompt is None else prompt.virtual_tokens


# Hooks. They hold no module: a deep copy of the model has its own.


def _count(module: Any) -> int:
    return module.soft_prompt.virtual_tokens


def _embedded(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """The input's embeddings, and the keyword arguments without it."""
    kwargs = dict(kwargs)
    if len(args) > 1:  # a model of one's own may call its encoder so
        kwargs, args = inspect.signature(module.forward).bind_partial(*args).arguments | kwargs, ()
    ids = args[0] if args else kwargs.pop("input_ids", None)
    embedded = kwargs.pop("inputs_embeds", None)
    if embedded is None:
        embedded = module.get_input_embeddings()(ids)
    return embedded, kwargs


def _ones_before(mask: Tensor, missing: int) -> Tensor:
    """`mask` with `missing` ones before it, if any are missing."""
    return torch.cat([mask.new_ones(len(mask), missing), mask], dim=1) if missing > 0 else mask


def _before_encoder(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    embedded, kwargs = _embedded(module, args, kwargs)
    embedded = torch.cat([module.soft_prompt(embedded), embedded], dim=1)
    mask = kwargs.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        kwargs["attention_mask"] = _ones_before(mask, embedded.shape[1] - mask.shape[1])
    return (), kwargs | {"inputs_embeds": embedded}


def _before_decoder(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    states, mask = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
    if states is not None and mask is not None and mask.dim() == 2:
        kwargs = kwargs | {"encoder_attention_mask": _ones_before(mask, states.shape[1] - mask.shape[1])}
    return args, kwargs


def _before_causal(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    embedded, kwargs = _embedded(module, args, kwargs)
    length, count = embedded.shape[1], _count(module)
    past = kwargs.get("past_key_values")
    seen = 0 if past is None else int(past.get_seq_length())
    mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
    if mask is not None and (isinstance(mask, dict) or mask.dim() != 2):
        raise ValueError(
            "a causal model with a soft prompt takes masks of shape (rows, tokens): a static cache and packed rows, "
            "whose masks are of another kind, cannot be used with it"
        )
    first = seen == 0  # else the prompt lies in the cache
    if first:
        embedded = torch.cat([module.soft_prompt(embedded), embedded], dim=1)
    kwargs["inputs_embeds"] = embedded
    if mask is not None:
        kwargs["attention_mask"] = _ones_before(mask, seen + embedded.shape[1] - mask.shape[1])
    if positions is not None and positions.shape[-1] == length:
        positions = positions + count
        if first:
            before = torch.arange(count, device=positions.device, dtype=positions.dtype)
            positions = torch.cat([before.expand(*positions.shape[:-1], count), positions], dim=-1)
        kwargs["position_ids"] = positions
    setattr(module, _PREFIXED, first)
    return (), kwargs


def _after_causal(module: Any, args: tuple[Any, ...], output: Any) -> Any:
    """Cut the prompt's states off, so that logits and labels are of the input alone."""
    if getattr(module, _PREFIXED):
        count = _count(module)
        output.last_hidden_state = output.last_hidden_state[:, count:]
        if output.get("hidden_states") is not None:
            output.hidden_states = tuple(states[:, count:] for states in output.hidden_states)
    return output


_HOOKS = (_before_encoder, _before_decoder, _before_causal, _after_causal)
