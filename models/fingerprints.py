"""Hashes that say whether a model, a tokenizer or texts are those that something was made from."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .structure import plain_model


_BYTES_AT_A_TIME = 2**26
# Of a config: where from, by what and from which class, not what; the tensors tell their own type.
_NOT_WEIGHTS = ("_name_or_path", "transformers_version", "architectures", "dtype")


def model_fingerprint(model: nn.Module, without: str | None = None) -> str:
    """A hash of the model's class, config, adapters' configs, parameters and buffers, to the last bit.

    Reads every byte once, 64 MiB at a time: about a second per GB on one core, and the copy from a GPU. Where the
    model comes from (a path, a hub name) does not count, nor does a submodule named `without`.
    """
    digest = hashlib.sha256()
    config = {k: v for k, v in plain_model(model).config.to_dict().items() if k not in _NOT_WEIGHTS}
    adapters = {k: v.to_dict() for k, v in getattr(model, "peft_config", {}).items()}
    described = [type(plain_model(model)).__name__, config, adapters, getattr(model, "active_adapter", None)]
    digest.update(json.dumps(described, sort_keys=True, default=_plain).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if without is not None and name.startswith(f"{without}."):
            continue
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in _bytes(tensor):
            digest.update(part)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the vocabulary, the rules of a fast tokenizer, the special tokens and the maximum length.

    Padding and truncation that an earlier call left switched on in it do not count.
    """
    rules = {}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
        rules = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
    described = [
        type(tokenizer).__name__,
        sorted(tokenizer.get_vocab().items()),
        rules,
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        tokenizer.model_max_length,
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def text_fingerprint(*columns: Sequence[str] | None) -> str:
    """A hash of columns of texts, in their order; None is a column that is not there."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(b"none" if column is None else f"{len(column)} texts".encode())
        for text in column or ():
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Iterator[bytes]:
    flat = tensor.detach().reshape(-1)
    step = max(1, _BYTES_AT_A_TIME // tensor.element_size())
    for start in range(0, flat.numel(), step):
        yield flat[start : start + step].cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _plain(value: Any) -> Any:
    """What JSON cannot hold of a config: sets, in an order that is the same in every process, and others as text."""
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)
