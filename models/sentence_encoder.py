"""Texts as vectors of length 1."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedTokenizerBase

from .fingerprints import model_fingerprint, tokenizer_fingerprint
from .row_arrays import allocate
from .structure import backbone
from .text_batches import check_length, load_with_tokenizer, read_texts, repeated


_ROWS_AT_A_TIME = 2**14


@dataclass
class SentenceEncoder:
    """A Transformers model as an encoder of sentences: its last hidden states, pooled and scaled to length 1.

    Args:
        model: an encoder, as an object, a folder or a hub name; of an encoder-decoder the encoder.
        tokenizer: its own; needed with an object.
        pooling: `mean` over the attention mask (Reimers & Gurevych 2019), or `cls`, the first token.
        max_length: tokens of a text; what is longer is cut.
        batch_size: texts a batch.
        bf16: whether to compute in bfloat16 (autocast): on a processor with instructions for it twice as fast.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase | None = None
    pooling: Literal["mean", "cls"] = "mean"
    max_length: int = 256
    batch_size: int = 64
    bf16: bool = False
    _loaded: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "cls"):
            raise ValueError(f"`pooling` must be 'mean' or 'cls', got {self.pooling!r}")
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}")

    def encode(self, texts: Sequence[str], prefix: str = "", progress: bool = True) -> NDArray[np.float32]:
        """The texts, each after `prefix`, as rows (n, d) of length 1, on disk where they take more than 1 GiB.

        Raises:
            ValueError: the model cannot be loaded or has not `max_length` positions, or gives what is not finite.
        """
        model, tokenizer = self._load()
        found = None
        settings: dict[str, Any] = {"max_length": self.max_length, "batch_size": self.batch_size, "bf16": self.bf16}
        settings["progress"] = "Encoding" if progress else None
        distinct, first = repeated(texts)
        wanted = [prefix + texts[row] for row in distinct]
        for rows, outputs, inputs in read_texts(model, tokenizer, wanted, **settings):
            vectors = self._pool(outputs.last_hidden_state.float(), inputs["attention_mask"]).cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ValueError(f"the encoder gives a vector that is not finite near {wanted[rows[0]][:60]!r}")
            if found is None:
                found = allocate((len(texts), vectors.shape[1]))
            found[distinct[rows]] = vectors
        if found is None:
            return np.empty((0, model.config.hidden_size), np.float32)
        later = np.flatnonzero(first != np.arange(len(first)))
        for start in range(0, len(later), _ROWS_AT_A_TIME):
            rows = later[start : start + _ROWS_AT_A_TIME]
            found[rows] = found[first[rows]]
        return np.asarray(found)

    @property
    def fingerprint(self) -> str:
        """A hash of weights, config and tokenizer, wherever they come from; reads all weights once."""
        model, tokenizer = self._load()
        # Transformers makes a pooler up where a checkpoint has none, another one each time; it is not read here.
        return f"{model_fingerprint(model, without='pooler')[:32]} {tokenizer_fingerprint(tokenizer)[:32]}"

    @property
    def name(self) -> str:
        """The class of the model, and where it comes from."""
        model, _ = self._load()
        source = model.config._name_or_path
        return f"{type(model).__name__} from {source}" if source else type(model).__name__

    @property
    def device(self) -> torch.device:
        """The one that the model is on."""
        return self._load()[0].device

    def _load(self) -> tuple[Any, PreTrainedTokenizerBase]:
        if self._loaded is None:
            model, tokenizer = load_with_tokenizer(self.model, self.tokenizer, AutoModel)
            check_length(model, tokenizer, self.max_length)
            self._loaded = backbone(model), tokenizer
        return self._loaded

    def _pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """states (b, t, d), mask (b, t) → (b, d)"""
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=1)
