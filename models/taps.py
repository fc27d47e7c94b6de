"""What a module inside a model says or reads, kept from its latest forward pass by a hook."""

import inspect
from typing import Any

from torch import Tensor, nn

from .structure import backbone, output_layers, plain_model


class BackboneOutput:
    """Holds the last hidden states of the backbone's latest forward pass, in float32 (rows, tokens, d).

    `mask` is the attention mask that it was given, where it was given one of (rows, tokens): a model may call it
    otherwise in its own `forward`.
    """

    def __init__(self, model: nn.Module, active: bool) -> None:
        self.states: Tensor | None = None
        self.mask: Tensor | None = None
        self._module = backbone(model) if active else None

    def __enter__(self) -> "BackboneOutput":
        if self._module is not None:
            self._handle = self._module.register_forward_hook(self._keep, with_kwargs=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._module is not None:
            self._handle.remove()

    def _keep(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", None)
        if states is None or states.dim() != 3:
            raise ValueError(
                f"{type(module).__name__} gives no hidden states (rows, tokens, width) to take `embeddings` from: a "
                "model class of your own names the attribute that holds its encoder in `base_model_prefix`"
            )
        self.states = states.float()
        mask = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments.get("attention_mask")
        self.mask = mask if isinstance(mask, Tensor) and mask.shape == states.shape[:2] else None


class HeadInput:
    """Holds what the output layer read in the latest forward pass, in float32."""

    def __init__(self, model: nn.Module, active: bool) -> None:
        self.states: Tensor | None = None
        self._modules = output_layers(model) if active else []
        if active and not self._modules:
            raise ValueError(f"{type(plain_model(model)).__name__} has no last linear layer to read `head_inputs` of")

    def __enter__(self) -> "HeadInput":
        self._handles = [module.register_forward_pre_hook(self._keep) for module in self._modules]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, inputs: Any) -> None:
        self.states = inputs[0].float()
