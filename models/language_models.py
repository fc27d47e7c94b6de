"""What a language model is, how long its input may be, and how to see its logits a few positions at a time."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_utils import unwrap_model
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from .structure import plain_model


Kind = Literal["causal", "masked", "seq2seq"]

_UNLIMITED = 10**9  # tokenizers without a limit say 10**30
_AUTO_CLASSES: dict[Kind, tuple[str, Mapping[str, Any]]] = {
    "seq2seq": ("AutoModelForSeq2SeqLM", MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "masked": ("AutoModelForMaskedLM", MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    "causal": ("AutoModelForCausalLM", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
}


def language_model_kind(model: nn.Module) -> Kind:
    """Which likelihood a model gives: by its class, among those that Transformers' auto classes load.

    Remote code counts by its config's `auto_map`.

    Raises:
        ValueError: the model is no language model.
    """
    inner = plain_model(model)
    names = {cls.__name__ for cls in type(inner).__mro__}
    remote = getattr(inner.config, "auto_map", None) or {}
    kinds: tuple[Kind, ...] = ("seq2seq",) if inner.config.is_encoder_decoder else ("masked", "causal")
    for kind in kinds:
        auto_class, mapping = _AUTO_CLASSES[kind]
        if names & {*mapping.values(), str(remote.get(auto_class, "")).rpartition(".")[2]}:
            return kind
    raise ValueError(
        f"{type(inner).__name__} is no causal, masked or sequence-to-sequence language model: load the scoring model "
        "with `AutoModelForCausalLM`, `AutoModelForMaskedLM` or `AutoModelForSeq2SeqLM`"
    )


def longest_input(model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> int:
    """The most tokens that model, tokenizer and `max_length` all allow, special tokens among them."""
    inner = plain_model(model)
    limits = [tokenizer.model_max_length, max_length or _UNLIMITED, _UNLIMITED]
    positions = getattr(inner.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - _unused_positions(inner))
    return int(min(limits))


def _unused_positions(model: PreTrainedModel) -> int:
    """RoBERTa's kin count positions from behind the padding index."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


class PositionLogits:
    """Calls a language model so that its head sees chosen positions only, and not all of them at once.

    The body runs once. Its hidden states at the chosen positions then go through the model's own way from there to
    the logits (norm, scaling, head, soft cap, whatever it is) in chunks, by calls in which the body hands out the
    states it is told to. The logits of all positions of a batch never exist together.

    A context manager: within it, `forward` of the body is replaced.

    Raises:
        ValueError: the model is causal by name and its states see later tokens, or masked and they do not.
    """

    def __init__(self, model: nn.Module, kind: Kind) -> None:
        self.kind = kind
        self._model = unwrap_model(model)
        self._inner = plain_model(model)
        self._body = _seq2seq_body(self._inner) if kind == "seq2seq" else self._called_body()
        self._states: Tensor | None = None
        self._output: Any = None

    def __enter__(self) -> "PositionLogits":
        self._patched = self._body.__dict__.get("forward")  # accelerate's device map puts one there
        self._run = self._body.forward
        self._body.forward = self._forward  # type: ignore[method-assign]
        return self

    def __exit__(self, *exception: object) -> None:
        del self._body.forward
        if self._patched is not None:
            self._body.forward = self._patched  # type: ignore[method-assign]
        self._states = self._output = None

    def __call__(self, inputs: dict[str, Any], rows: Tensor, columns: Tensor, chunk: int) -> Iterator[Tensor]:
        """Logits (≤ chunk, vocabulary) of the positions (`rows`, `columns`) of a batch, in their order."""
        self._rows, self._columns = rows, columns
        name = "decoder_input_ids" if self.kind == "seq2seq" else "input_ids"
        self._width = inputs[name].shape[1]
        if self.kind == "seq2seq":
            ids = inputs.pop("input_ids")
            inputs["encoder_outputs"] = self._inner.get_encoder()(ids, attention_mask=inputs.get("attention_mask"))
        self._states = self._output = None
        for start in range(0, len(rows), chunk):
            self._chunk = slice(start, start + chunk)
            yield self._model(**inputs).logits[0]

    def _forward(self, *args: Any, **options: Any) -> Any:
        if self._states is None:
            self._output = self._run(*args, **options)
            states = self._output[0]
            # Prompt tuning puts virtual tokens before the batch's own.
            self._states = states[self._rows, self._columns + states.shape[1] - self._width]
        chosen = self._states[self._chunk].unsqueeze(0)
        if isinstance(self._output, tuple):
            return (chosen, *self._output[1:])
        self._output.last_hidden_state = chosen
        return self._output

    def _called_body(self) -> nn.Module:
        """The module that makes the hidden states: some models bypass their base model for the decoder within.

        Found by a forward pass over two short sequences with one beginning, which also shows where the model looks.
        """
        states: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            states[module] = output[0].float()

        bodies = list(dict.fromkeys([self._inner.base_model, self._inner.get_decoder()]))
        hooks = [body.register_forward_hook(keep) for body in bodies if body is not self._inner]
        try:
            half = torch.arange(4).remainder(self._inner.config.get_text_config().vocab_size)
            ids = torch.stack([torch.cat([half, half]), torch.cat([half, half.roll(1)])])
            ids = ids.to(self._inner.device)
            self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
        finally:
            for hook in hooks:
                hook.remove()
        called = [body for body in bodies if body in states]
        if not called:
            raise ValueError(f"{type(self._inner).__name__} calls no body of its own that its logits come from")
        self._check_direction(states[called[0]][:, -8:-4])
        return called[0]

    def _check_direction(self, beginnings: Tensor) -> None:
        beginnings = beginnings.detach()
        difference = float((beginnings[0] - beginnings[1]).abs().max())
        looks_ahead = difference > torch.finfo(self._inner.dtype).eps ** 0.5 * 0.03 * float(beginnings.abs().max())
        if looks_ahead == (self.kind == "masked"):
            return
        name = type(self._inner).__name__
        if looks_ahead:
            raise ValueError(
                f"{name} is bidirectional as configured: its shifted logits have seen the token they predict. Load it "
                "with `AutoModelForMaskedLM`, or, if it was trained as a decoder, with `is_decoder=True`"
            )
        raise ValueError(f"{name} with `is_decoder=True` sees nothing to the right of a mask: load it as a causal LM")


def _seq2seq_body(model: PreTrainedModel) -> nn.Module:
    decoder = model.get_decoder()
    whole = isinstance(decoder, PreTrainedModel) and decoder.get_output_embeddings() is not None
    return decoder.base_model if whole else decoder
