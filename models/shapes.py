"""Shapes of a smaller model of the same kind: what fits a budget of parameters, and the config that says so."""

import copy
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from .factorized import factorize_embeddings


# Names under which configs keep a size, beside the ones that `attribute_map` makes common to all.
_LAYERS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_decoder_layers")
_HEADS = ("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads")
_INTERMEDIATE = ("intermediate_size", "hidden_dim", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim")
_PER_LAYER = ("layer_types", "mlp_layer_types")


class Shape(NamedTuple):
    """The four sizes of a model."""

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int


def spaced(total: int, count: int) -> list[int]:
    """`count` of `total` layers, evenly spaced, the first and the last among them (the first alone if one)."""
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that `config.architectures` names.

    Raises:
        ValueError: it names none of Transformers' own.
    """
    names = config.architectures or [""]
    found = getattr(transformers, names[0], None)
    if found is None:
        raise ValueError(
            f"`teacher` is a config whose `architectures` is {config.architectures}: set it to the class of the "
            "student, as in `config.architectures = ['BertForTokenClassification']`, or pass a model"
        )
    return found


def shape_of(config: PreTrainedConfig) -> Shape:
    """The sizes that `config` has now; of an encoder-decoder model the greater of both sides."""
    width = config.hidden_size
    units = [getattr(config, name) for name in _INTERMEDIATE if getattr(config, name, None)]
    depth = max(getattr(config, name) for name in _LAYERS if getattr(config, name, None))
    return Shape(depth, width, config.num_attention_heads, max(units, default=4 * width))


def own_head_width(config: PreTrainedConfig) -> int | None:
    """The width of a head where `config` has a field for it, so that it need not be hidden size over heads."""
    return getattr(config, "head_dim", None)


def head_width(config: PreTrainedConfig) -> int:
    return own_head_width(config) or config.hidden_size // config.num_attention_heads


def shrunk(config: PreTrainedConfig, shape: Shape) -> PreTrainedConfig:
    """A copy of `config` with the sizes of `shape`; all else (labels, special tokens, activations, …) as it was.

    Raises:
        ValueError: `shape.hidden_size` cannot be divided into `shape.heads` heads.
    """
    new = copy.deepcopy(config)
    new.__dict__.pop("quantization_config", None)
    if own_head_width(config) is None and shape.hidden_size % shape.heads:
        raise ValueError(f"`hidden_size` {shape.hidden_size} cannot be divided into `heads` {shape.heads}")
    total = config.num_hidden_layers
    for names, size in ((_LAYERS, shape.layers), (_HEADS, shape.heads), (_INTERMEDIATE, shape.intermediate_size)):
        for name in names:
            if hasattr(config, name):
                setattr(new, name, size)
    new.hidden_size = shape.hidden_size
    for name in _PER_LAYER:
        if getattr(config, name, None) is not None:
            setattr(new, name, [getattr(config, name)[i] for i in spaced(total, shape.layers)])
    if getattr(config, "num_key_value_heads", None):
        new.num_key_value_heads = _key_value_heads(config, shape.heads)[0]
    return new


def _key_value_heads(config: PreTrainedConfig, heads: int) -> tuple[int, bool]:
    """How many key-value heads `heads` queries get, and whether each serves no more queries than now."""
    total = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    most = config.num_attention_heads // total
    divisors = [k for k in range(1, min(heads, total) + 1) if heads % k == 0]
    return next(((k, True) for k in divisors if heads // k <= most), (divisors[-1], False))


def choose(
    make: type[PreTrainedModel],
    config: PreTrainedConfig,
    wanted: Mapping[str, int | None],
    rank: int | None,
    budget: int,
) -> Shape:
    """The first shape within `budget`, of those that agree with `wanted`; see `build_student` for their order.

    Raises:
        ValueError: there is none. Says what the smallest has, and where, and what would fit.
    """
    shape = None
    for shape in _candidates(config, wanted):
        count, _ = counts(make, shrunk(config, shape), rank)
        if count <= budget:
            return shape
    assert shape is not None  # there is always one candidate
    count, words = counts(make, shrunk(config, shape), rank)
    raise ValueError(
        f"`max_parameters` is {budget:,}, and the smallest student of these sizes, {_told(shape)}, has {count:,}: "
        f"{words:,} in word embeddings ({config.vocab_size:,} rows), {count - words:,} elsewhere. "
        f"{_advice(make, config, wanted, shape, rank, budget)}"
    )


def counts(make: type[PreTrainedModel], config: PreTrainedConfig, rank: int | None) -> tuple[int, int]:
    """Parameters of the model that `config` describes, each counted once, and those of its word embeddings."""
    with torch.device("meta"):
        model = make(config)
    model.tie_weights()
    if rank is not None:
        factorize_embeddings(model, rank)
    unique = {id(p): p.numel() for p in model.parameters()}
    return sum(unique.values()), sum(p.numel() for p in model.get_input_embeddings().parameters())


def _candidates(config: PreTrainedConfig, wanted: Mapping[str, int | None]) -> Iterator[Shape]:
    full, own = shape_of(config), own_head_width(config)
    width = head_width(config)
    depth = -(-full.layers // 2)
    depths: list[int] = []
    while not depths or depths[-1] > 1:
        depths.append(depth)
        depth = -(-depth // 2)
    for layers in [wanted["layers"]] if wanted["layers"] else depths:
        for heads in _head_counts(config, full, wanted):
            ours = full.hidden_size * heads // full.heads if own else width * heads
            hidden = wanted["hidden_size"] or ours
            units = wanted["intermediate_size"] or max(1, full.intermediate_size * hidden // full.hidden_size)
            yield Shape(layers, hidden, heads, units)


def _head_counts(config: PreTrainedConfig, full: Shape, wanted: Mapping[str, int | None]) -> list[int]:
    heads, hidden = wanted["heads"], wanted["hidden_size"]
    if heads:
        return [heads]
    if hidden is None:
        return [h for h in range(full.heads, 0, -1) if h == 1 or _key_value_heads(config, h)[1]]
    if own_head_width(config):
        return [max(1, round(full.heads * hidden / full.hidden_size))]
    return [next(h for h in range(max(1, hidden // head_width(config)), 0, -1) if hidden % h == 0)]


def _told(shape: Shape) -> str:
    return ", ".join(f"{name}={size}" for name, size in shape._asdict().items())


def _advice(
    make: type[PreTrainedModel],
    config: PreTrainedConfig,
    wanted: Mapping[str, int | None],
    shape: Shape,
    rank: int | None,
    budget: int,
) -> str:
    """Changes to `shape`, one at a time, that would fit."""
    found = []
    for layers in range(shape.layers - 1, 0, -1):
        if counts(make, shrunk(config, shape._replace(layers=layers)), rank)[0] <= budget:
            found.append(f"layers={layers}")
            break
    if rank is None:
        for smaller in (128, 64, 32):
            if smaller <= shape.hidden_size and counts(make, shrunk(config, shape), smaller)[0] <= budget:
                found.append(f"embedding_rank={smaller}")
                break
    if any(wanted.values()):
        for other in _candidates(config, dict.fromkeys(wanted)):
            if counts(make, shrunk(config, other), rank)[0] <= budget:
                found.append(_told(other))
                break
    return f"What would fit: {'; or '.join(found)}." if found else "Nothing of this kind fits: raise `max_parameters`."
