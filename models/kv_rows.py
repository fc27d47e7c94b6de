"""Rows that are decoded together, and their keys and values: rows join, go on, and leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .structure import plain_model


@dataclass
class LiveRows:
    """The cache of some rows. Its columns are those of the shared prefix, then padding, then a row's own tokens.

    `mask` (rows, columns) is 1 but for the padding. `spare` columns of padding stay where a batch could go without.
    """

    cache: Any
    mask: Tensor
    prefix: int
    spare: int

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and the columns in which none that is left has a token."""
        index = torch.tensor(rows, device=self.mask.device)
        self.mask = self.mask[index]
        unused = int(self.mask[:, self.prefix :].any(0).int().argmax()) - self.spare
        self.cache.batch_select_indices(index)
        if unused > 0:
            self._map(lambda states: _without(states, 2, self.prefix, unused))
            self.mask = _without(self.mask, 1, self.prefix, unused)

    def join(self, other: "LiveRows") -> None:
        """Put the rows of `other` behind these, with padding behind the prefix of the shorter ones."""
        missing = other.mask.shape[1] - self.mask.shape[1]
        self._widen(missing)
        other._widen(-missing)
        self.mask = torch.cat([self.mask, other.mask])
        for own, joined in zip(self.cache.layers, other.cache.layers, strict=True):
            own.keys, own.values = torch.cat([own.keys, joined.keys]), torch.cat([own.values, joined.values])

    def _widen(self, columns: int) -> None:
        if columns > 0:
            self._map(lambda states: _widened(states, 2, self.prefix, columns))
            self.mask = _widened(self.mask, 1, self.prefix, columns)

    def _map(self, change: Any) -> None:
        for layer in self.cache.layers:
            layer.keys, layer.values = change(layer.keys), change(layer.values)


def _without(tensor: Tensor, dim: int, start: int, count: int) -> Tensor:
    rest = start + count
    return torch.cat([tensor.narrow(dim, 0, start), tensor.narrow(dim, rest, tensor.shape[dim] - rest)], dim)


def _widened(tensor: Tensor, dim: int, start: int, count: int) -> Tensor:
    after = tensor.narrow(dim, start, tensor.shape[dim] - start)
    return torch.cat([tensor.narrow(dim, 0, start), pad(after, [0, 0] * (tensor.dim() - 1 - dim) + [count, 0])], dim)


class CachedPasses:
    """The forward passes of a causal model over prompts that begin with the same tokens, which it reads once.

    Args:
        model: a causal language model.
        prefix: the tokens that all prompts begin with.
        filler: the token that stands where a row has none; it is never attended to.

    Raises:
        ValueError: the model keeps something else than keys and values of each token.
    """

    def __init__(self, model: nn.Module, prefix: Sequence[int], filler: int) -> None:
        inner: Any = plain_model(model)
        self.model, self.filler = inner, filler
        self._one_place = inner._supports_logits_to_keep()
        self._options = {"use_cache": True, "return_dict": True}
        # A batch without padding has no mask, and PyTorch's grouped attention without one takes twice as long on a
        # CPU (bfloat16, 16 rows of 500 tokens: a pass 0.35 s, not 0.16): one column of padding is always there.
        self._spare = int(self.model.device.type == "cpu")
        kinds = [type(layer) for layer in DynamicCache(config=self.model.config).layers]
        if any(kind not in (DynamicLayer, DynamicSlidingWindowLayer) for kind in kinds):
            raise ValueError(
                f"{type(self.model).__name__} keeps states other than each token's keys and values, from which rows "
                "cannot be taken: use `generate_predictions`"
            )
        # A sliding window counts columns: padding behind the prefix would push tokens out of it.
        self.shares = DynamicSlidingWindowLayer not in kinds
        self.prefix = len(prefix) if self.shares else 0
        self._shared = self._read(prefix) if self.prefix else []

    def _read(self, prefix: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        ids = torch.tensor([list(prefix)], device=self.model.device)
        cache: Any = DynamicCache()
        self._logits(cache, ids, torch.ones_like(ids), torch.arange(len(prefix), device=ids.device)[None])
        return [(layer.keys, layer.values) for layer in cache.layers]

    def start(self, rows: Sequence[Sequence[int]]) -> tuple[LiveRows, Tensor]:
        """Read what stands behind the prefix: the rows' cache, and logits (rows, vocabulary) of what comes next."""
        count, width = len(rows), max(map(len, rows)) + self._spare
        ids = np.full((count, width), self.filler)
        own = np.zeros((count, self.prefix + width), dtype=np.int64)
        own[:, : self.prefix] = 1
        for row, tokens in enumerate(rows):
            ids[row, width - len(tokens) :] = tokens
            own[row, self.prefix + width - len(tokens) :] = 1
        places = np.maximum(own.cumsum(1)[:, self.prefix :] - 1, 0)
        # Without a config all layers keep all columns: one with a window would drop some that the mask still has.
        shared = [(k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in self._shared]
        live = LiveRows(DynamicCache(shared or None), self._tensor(own), self.prefix, self._spare)
        return live, self._logits(live.cache, self._tensor(ids), live.mask, self._tensor(places))

    def step(self, live: LiveRows, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Read one token more of each row, at its place in the row: logits (rows, vocabulary) of what comes next."""
        live.mask = pad(live.mask, [0, 1], value=1)
        return self._logits(live.cache, self._tensor(tokens)[:, None], live.mask, self._tensor(places)[:, None])

    def _logits(self, cache: Any, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places, "past_key_values": cache}
        if self._one_place:
            # An index where `generate` has a slice: of a slice PyTorch copies the head's weight once a row (bfloat16,
            # 360 tokens of 18 rows, 49,152 words: a pass on a CPU 2.9 s, not 0.5).
            inputs["logits_to_keep"] = torch.tensor([ids.shape[1] - 1], device=ids.device)
        return self.model(**inputs, **self._options).logits[:, -1]

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.long, device=self.model.device)
