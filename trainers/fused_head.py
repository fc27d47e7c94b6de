"""A language model's head, met where it is called: its loss is computed there, and its logits never exist."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..models import plain_model


# What some models do to the logits behind the head; a loss computed at the head would not see it.
_BEHIND_THE_HEAD = ("final_logit_softcapping", "logits_scaling", "logit_scale", "output_multiplier_scale")


def linear_head(model: nn.Module) -> nn.Linear | None:
    """The layer whose output *is* the logits of `model`, or None where they are more than one linear map."""
    inner = plain_model(model)
    head = inner.get_output_embeddings()
    config = inner.config.get_text_config()
    if type(head) is not nn.Linear or any(getattr(config, name, None) for name in _BEHIND_THE_HEAD):
        return None
    bias = getattr(inner, "final_logits_bias", None)
    return None if bias is not None and bool(bias.any()) else head


@contextmanager
def at_head(head: nn.Linear, take: Callable[[Tensor, Tensor, Tensor | None], Any]) -> Iterator[list[Any]]:
    """Within it `head` calls `take(hidden, weight, bias)` in place of computing logits; the results are collected.

    The call is made inside the head's own forward, where sharded parameters are whole. What is collected has passed
    the head's forward hooks: of a tensor or tuple of tensors ZeRO-3 thereby learns when to have them whole again in
    the backward pass. The model goes on with one number that hangs on it: DDP follows the model's outputs to see which
    parameters will have a gradient.
    """
    found: list[Any] = []

    def forward(hidden: Tensor) -> Any:
        return take(hidden, head.weight, head.bias)

    def collect(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> Tensor:
        found.append(output)
        return (output[0] if isinstance(output, tuple) else output).sum().reshape(1)

    head.forward = forward  # type: ignore[method-assign, assignment]
    last = head.register_forward_hook(collect)
    try:
        yield found
    finally:
        last.remove()
        del head.forward
