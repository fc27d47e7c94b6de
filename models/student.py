"""A small model of a teacher's kind: a config shrunk to a budget of parameters, first weights from the teacher."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .factorized import FactorizedEmbedding, factorize_embeddings, merge_embeddings
from .shapes import Shape, choose, head_width, model_class, shape_of, shrunk
from .structure import plain_model
from .transplant import Heads, transplant


def build_student(
    teacher: PreTrainedModel | nn.Module | PreTrainedConfig,
    *,
    layers: int | None = None,
    hidden_size: int | None = None,
    heads: int | None = None,
    intermediate_size: int | None = None,
    embedding_rank: int | None = None,
    max_parameters: int = 20_000_000,
    initialize: Literal["random", "teacher"] = "random",
    samples: Iterable[Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """A student of the teacher's class, task, labels and vocabulary with at most `max_parameters` parameters.

    **Shape.** Sizes that are not given are chosen: half the layers (rounded up), heads of the teacher's width, as many
    as fit into the budget, `hidden_size` and `intermediate_size` in the teacher's proportion to the heads. If a single
    head is too many, the layers are halved again. In encoder-decoder models `layers`, `heads` and `intermediate_size`
    hold for both sides. The width of a head stays the teacher's where the config has a field for it or `heads` is left
    to us; grouped queries keep their number per key-value head where `heads` allows.

    **`initialize="teacher"`.** Layers evenly spaced over the teacher's, the first and the last among them. With equal
    sizes weights are copied, so a student of all layers is the teacher, and one of fewer is the teacher without the
    others. Where the student is narrower, its residual stream is the part of the teacher's coordinates with the most
    energy in the hidden states on `samples`, or without them in the word embeddings. With `samples`, matrices that
    read the stream also take in what a ridge regression tells of the dropped coordinates from the kept ones. Norms
    keep their weights, times the factor that makes up for the shorter vectors. Heads are kept whole, those whose
    output matrices have the greatest norm; feed-forward units, by the product of their norms in and out.
    Coordinates, not principal components: rotating the stream would need a dense matrix in every norm, and what a
    diagonal one can hold of it scored far worse on a trained BERT. No exact map to a narrower model exists:
    distillation has to close the gap, and depth is the cheaper thing to cut.

    Args:
        teacher: a Transformers model, perhaps wrapped or factorised, or a config that names its class in
            `architectures`. It is not changed.
        layers: number of layers.
        hidden_size: width of the residual stream.
        heads: attention heads.
        intermediate_size: width of the feed-forward blocks.
        embedding_rank: factorise the student's word embeddings by `factorize_embeddings` with this rank.
        max_parameters: the budget, all parameters counted once.
        initialize: `"random"`, or `"teacher"`.
        samples: batches of model inputs (`input_ids`, `attention_mask`, …) to choose coordinates by, some ten tokens
            for each coordinate. Only read if weights are taken from the teacher and the student is narrower.
        seed: of the random initialisation; the global generators are left as they were.

    Returns:
        The student, in float32 or the teacher's dtype, in training mode, on the CPU for a config or else the
        teacher's device.

    Raises:
        ValueError: the shape exceeds the budget or is impossible; or weights cannot be taken from this teacher.
        TypeError: `teacher` is neither a Transformers model nor a config.

    Example:
        >>> from transformers import BertConfig
        >>> base = BertConfig(vocab_size=28_996, num_labels=9, architectures=["BertForTokenClassification"])
        >>> shape = {"layers": 6, "hidden_size": 384, "heads": 6, "intermediate_size": 1024}
        >>> build_student(base, **shape).num_parameters()
        19620489
    """
    if initialize not in ("random", "teacher"):
        raise ValueError(f"`initialize` must be 'random' or 'teacher', got {initialize!r}")
    wanted = {"layers": layers, "hidden_size": hidden_size, "heads": heads, "intermediate_size": intermediate_size}
    for name, size in {**wanted, "embedding_rank": embedding_rank, "max_parameters": max_parameters}.items():
        if size is not None and size < 1:
            raise ValueError(f"`{name}` must be at least 1, got {size}")
    source = None if isinstance(teacher, PreTrainedConfig) else plain_model(teacher)
    config = teacher if isinstance(teacher, PreTrainedConfig) else plain_model(teacher).config
    make = model_class(config) if source is None else type(source)
    shape = choose(make, config, wanted, embedding_rank, max_parameters)
    target = shrunk(config, shape)
    if initialize == "teacher":
        _check_transplant(source, config, target, shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student: PreTrainedModel = make(target)
    if source is not None:
        nn.Module.to(student, device=source.device, dtype=source.dtype)
        if initialize == "teacher":
            factorized = isinstance(source.get_input_embeddings(), FactorizedEmbedding)
            whole = plain_model(merge_embeddings(copy.deepcopy(source))) if factorized else source
            transplant(whole, student, (_heads(config), _heads(target)), samples)
    if embedding_rank is not None:
        factorize_embeddings(student, embedding_rank)
    return student.train()


def _heads(config: PreTrainedConfig) -> Heads:
    query = config.num_attention_heads
    return Heads(query, getattr(config, "num_key_value_heads", None) or query, head_width(config))


def _check_transplant(
    source: PreTrainedModel | None, config: PreTrainedConfig, target: PreTrainedConfig, shape: Shape
) -> None:
    if source is None:
        raise ValueError("`initialize='teacher'` needs a model with weights as `teacher`, got a config")
    for name, size, most in zip(Shape._fields, shape, shape_of(config), strict=True):
        if size > most:
            raise ValueError(f"`{name}` of a student made from its teacher's weights is at most {most}, got {size}")
    theirs, ours = _heads(config), _heads(target)
    if theirs.width != ours.width:
        raise ValueError(
            "`heads` of a student made from its teacher's weights are kept whole, so they must have the teacher's "
            f"width {theirs.width}; got {ours.query} of width {ours.width}: `hidden_size` sets it, or `heads`"
        )
    if ours.query // ours.key_value > theirs.query // theirs.key_value:
        raise ValueError(
            f"`heads` must give at most {theirs.query // theirs.key_value} queries to each key-value head, as in the "
            f"teacher; got {ours.query} on {ours.key_value}"
        )
