"""Word embeddings in two matrices: codes [V, r] times projection [r, d] in the place of one table [V, d].

A factorised model is saved and loaded by `save_pretrained` and `from_pretrained` alone. What makes `from_pretrained`
build it is transformers' registry of quantization methods, the one documented seam where a library may replace modules
of a model between its construction and the reading of its weights, whichever class or Auto class loads it. (A config
field and a patched constructor would reach the same end by overriding private methods of every model.) Nothing else of
quantization stays: once read, the model carries no quantizer, so `Trainer`, PEFT, `.to()` and `torch.compile` see an
ordinary model. The registration is done by `import tithe.models`; without it transformers warns of an unknown
quantization type that names this package, and reports the word embeddings as missing and newly initialised.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from .structure import plain_model
from .tables import gathered, partitioned_like, retie, table_of, tables, top_directions


QUANT_METHOD = "tithe.models.factorized"


class _Factors(nn.Module):
    """`codes` [V, r] and `projection` [r, d], whose product is the table [V, d]."""

    def __init__(self, rows: int, width: int, rank: int, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if not 1 <= rank <= min(rows, width):
            raise ValueError(
                f"`rank` must be from 1 to {min(rows, width)} for a table of {rows} × {width}, got {rank}"
            )
        self.rank = rank  # not read from the shape, which ZeRO-3 takes away
        self.codes = nn.Parameter(torch.empty(rows, rank, device=device, dtype=dtype))
        self.projection = nn.Parameter(torch.empty(rank, width, device=device, dtype=dtype))

    @property
    def weight(self) -> Tensor:
        """The product [V, d], made anew at each access; gradients flow through it."""
        return self.codes @ self.projection


class FactorizedEmbedding(_Factors):
    """An `nn.Embedding` of `num_embeddings` × `embedding_dim` held as two matrices of rank `rank`.

    The forward pass looks up rows of `codes` and multiplies only those by `projection`, so the table is never formed.
    New instances are initialised so that entries of the product have standard deviation 0.02.

    Args:
        num_embeddings: rows of the table, V.
        embedding_dim: width of the table, d.
        rank: from 1 to min(V, d).
        padding_idx: as in `nn.Embedding`: the row whose codes get no gradient.
        scale: factor on the output, for models whose embeddings are scaled (BART, Gemma).
        embedding_class: the class that `merge` goes back to; a scaled one takes (V, d, padding_idx, embed_scale).

    Raises:
        ValueError: `rank` is out of range.

    Example:
        >>> import torch
        >>> words = FactorizedEmbedding(1000, 64, rank=8)
        >>> words(torch.tensor([[1, 2, 3]])).shape, sum(p.numel() for p in words.parameters())
        (torch.Size([1, 3, 64]), 8512)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        rank: int,
        padding_idx: int | None = None,
        *,
        scale: float = 1.0,
        embedding_class: type[nn.Embedding] = nn.Embedding,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, rank, device, dtype)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx, self.scale, self.embedding_class = padding_idx, scale, embedding_class
        # Relative Frobenius error of the product against the table it was made from; None for one not made from any.
        self.reconstruction_error: float | None = None
        if not self.codes.is_meta:
            nn.init.normal_(self.codes, std=0.02)
            nn.init.normal_(self.projection, std=rank**-0.5)

    def forward(self, input_ids: Tensor) -> Tensor:
        words = F.embedding(input_ids, self.codes, self.padding_idx) @ self.projection
        return words if self.scale == 1.0 else words * self.scale

    def merge(self) -> nn.Embedding:
        """A plain embedding with the product as its table, of the class this one stands for."""
        scaled: dict[str, Any] = {} if self.embedding_class is nn.Embedding else {"embed_scale": self.scale}
        with torch.device("meta"):
            words = self.embedding_class(self.num_embeddings, self.embedding_dim, self.padding_idx, **scaled)
        with gathered(self.codes, self.projection), torch.no_grad():
            words.weight = nn.Parameter(self.weight, requires_grad=self.codes.requires_grad)
        for name, _ in list(words.named_buffers()):
            setattr(words, name, torch.tensor(self.scale, device=self.codes.device))
        return words

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, rank={self.rank}, padding_idx={self.padding_idx}"


class FactorizedHead(_Factors):
    """An output layer tied to a `FactorizedEmbedding`: hidden @ projectionᵀ @ codesᵀ + bias, through rank r."""

    bias: nn.Parameter | None

    def __init__(self, words: FactorizedEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__(words.num_embeddings, words.embedding_dim, words.rank, "meta")
        self.codes, self.projection = words.codes, words.projection
        self.in_features, self.out_features = words.embedding_dim, words.num_embeddings
        self.register_parameter("bias", bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(F.linear(hidden, self.projection), self.codes, self.bias)


class FactorizationConfig(QuantizationConfigMixin):
    """What a factorised checkpoint's config keeps, under `quantization_config`.

    Args:
        rank: of the two matrices.
        untied: parameters that the model's class would tie to the table and this checkpoint holds on their own.
    """

    def __init__(self, rank: int = 64, untied: Sequence[str] = (), **_: Any) -> None:
        self.quant_method = QUANT_METHOD  # type: ignore[assignment]
        self.rank, self.untied = rank, list(untied)


class FactorizationQuantizer(HfQuantizer):
    """Puts factorised embeddings into a model that `from_pretrained` has built and not yet filled."""

    quantization_config: FactorizationConfig
    requires_calibration = True  # only checkpoints saved by us are read: no table is factorised while it is loaded

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        for name in self.quantization_config.untied:
            model.all_tied_weights_keys.pop(name, None)
        _replace(model, self.quantization_config.rank, fill=False)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        kept = model.config.quantization_config
        self.remove_quantization_config(model)
        model.config.quantization_config = kept
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.config.__dict__.pop("_is_quantized", None)
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


register_quantization_config(QUANT_METHOD)(FactorizationConfig)
register_quantizer(QUANT_METHOD)(FactorizationQuantizer)


def factorize_embeddings(model: nn.Module, rank: int = 64, token_counts: Tensor | None = None) -> nn.Module:
    """Replace the word embeddings of `model`, in place, by two matrices of rank `rank`, the best in squared error.

    Codes and projection come from the truncated singular value decomposition of the table (Eckart–Young): projection
    rows are the leading right singular vectors. With `token_counts` the error is that over the tokens of a text, not
    over a vocabulary that a task hardly meets: prefer it wherever there are texts (on a tagger of 384 dimensions, rank
    64 and no further tuning, F1 fell from 0.80 to 0.74 with counts and to 0.60 without).

    Where encoder, decoder and output layer share one table, they share the two matrices. An output layer of its own
    stays as it is. dtype, device, `padding_idx`, scale and `requires_grad` are kept. `resize_token_embeddings` refuses
    a factorised model: `merge_embeddings`, resize, and factorise again. `get_input_embeddings().reconstruction_error`
    is the relative Frobenius error, weighted as the decomposition; `embedding_energy` tells what each rank would keep.
    Also works for a model on the meta device (shapes only) and for one partitioned by ZeRO-3.

    Args:
        model: a Transformers model, perhaps inside PEFT.
        rank: from 1 to the width of the table.
        token_counts: how often each token occurs in the texts of the task, [V], at least 0; each counts once more.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is no Transformers model, or its word embeddings are not an `nn.Embedding`.
        ValueError: `rank` or `token_counts` does not fit the table, or the model is quantized or already factorised.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tiny = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        >>> factorize_embeddings(BertModel(tiny), rank=4).get_input_embeddings()
        FactorizedEmbedding(30522, 32, rank=4, padding_idx=0)
    """
    inner = plain_model(model)
    if getattr(inner.config, "quantization_config", None) is not None:
        raise ValueError(
            f"`model` must be neither quantized nor factorised, its config says {inner.config.quantization_config}: "
            "load it unquantized, or go back by `merge_embeddings` first"
        )
    untied = inner.get_expanded_tied_weights_keys(all_submodels=True).keys() - inner.all_tied_weights_keys.keys()
    _replace(inner, rank, fill=True, counts=token_counts)
    inner.config.quantization_config = FactorizationConfig(rank, sorted(untied))
    return model


def merge_embeddings(model: nn.Module) -> nn.Module:
    """Undo `factorize_embeddings`, in place: plain tables with the products, so that a stock checkpoint is saved.

    Raises:
        ValueError: `model` is not factorised.
    """
    inner = plain_model(model)
    owners = [m for m in inner.modules() if isinstance(m, FactorizedEmbedding)]
    if not owners:
        raise ValueError(f"`model` has no factorised embeddings to merge: {type(inner).__name__}")
    for words in owners:
        slots = [n for n, m in inner.named_modules(remove_duplicate=False) if m is words]
        tied = [m for m in inner.modules() if isinstance(m, FactorizedHead) and m.codes is words.codes]
        heads = [n for n, m in inner.named_modules() if m in tied]
        plain = words.merge()
        for name in slots:
            inner.set_submodule(name, plain)
        for name in heads:
            old = inner.get_submodule(name)
            with torch.device("meta"):
                head = nn.Linear(words.embedding_dim, words.num_embeddings, bias=old.bias is not None)
            head.weight, head.bias = plain.weight, old.bias  # type: ignore[assignment]
            inner.set_submodule(name, head)
        retie(inner, {*slots, *heads}, ("codes", "projection"), ("weight",))
    del inner.config.quantization_config
    return model


def embedding_energy(model: nn.Module) -> Tensor:
    """The share of the word embeddings' squared norm that each rank keeps, [d], from rank 1 to d; the last is 1.

    √(1 − share) is the relative Frobenius error at that rank.

    Raises:
        AttributeError: `model` is factorised, so that it has no table.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tiny = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        >>> energy = embedding_energy(BertModel(tiny))
        >>> rank = int((energy < 0.9).sum()) + 1  # the least rank that keeps 90 %
    """
    words = plain_model(model).get_input_embeddings()
    table = words.get_parameter("weight")
    with gathered(table), torch.no_grad():
        energies, _ = top_directions(table)
    return energies.cumsum(0) / energies.sum()


def _replace(inner: PreTrainedModel, rank: int, *, fill: bool, counts: Tensor | None = None) -> None:
    for names in tables(inner):
        modules = {name: inner.get_submodule(name) for name in names}
        words = _factorized(table_of(modules), rank, fill=fill, counts=counts)
        for name, module in modules.items():
            head = isinstance(module, nn.Linear)
            inner.set_submodule(name, FactorizedHead(words, module._parameters["bias"]) if head else words)
        retie(inner, set(names), ("weight",), ("codes", "projection"))


def _factorized(old: nn.Embedding, rank: int, *, fill: bool, counts: Tensor | None) -> FactorizedEmbedding:
    table = old.get_parameter("weight")
    if counts is not None and (counts.shape != (old.num_embeddings,) or not (counts >= 0).all()):
        raise ValueError(
            f"`token_counts` must be [{old.num_embeddings}], a number a token, none below 0; got {list(counts.shape)}"
        )
    scale = getattr(old, "scalar_embed_scale", getattr(old, "embed_scale", 1.0))
    with partitioned_like(table):
        words = FactorizedEmbedding(
            old.num_embeddings,
            old.embedding_dim,
            rank,
            old.padding_idx,
            scale=float(scale),
            embedding_class=type(old),
            device=table.device,
            dtype=table.dtype,
        )
    words.requires_grad_(table.requires_grad).train(old.training)
    if fill and not table.is_meta:
        with gathered(table), torch.no_grad():
            energies, directions = top_directions(table, None if counts is None else counts + 1)
            best = directions[:, :rank].to(table.dtype)
            codes = table @ best
            words.reconstruction_error = (energies[rank:].sum() / energies.sum()).clamp(min=0).sqrt().item()
        with gathered(words.codes, words.projection, write=True), torch.no_grad():
            words.codes.copy_(codes)
            words.projection.copy_(best.T)
    return words
