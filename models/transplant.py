"""A student's first weights out of its teacher's: layers picked, width projected, heads and units selected."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .shapes import spaced


# Names under which architectures keep the matrices of a layer. Group 1 is the block they belong to, the same for the
# matrices that read the residual stream and the one that writes back to it.
_ATTENTION_IN = re.compile(
    r"^(.*(?:attention|attn))\.(?:self\.)?(?:query|key|value|[qkv]_proj|[qkv]_lin|[qkv]|Wqkv|c_attn)$", re.I
)
_ATTENTION_OUT = re.compile(r"^(.*(?:attention|attn))\.(?:output\.dense|o_proj|out_proj|out_lin|o|Wo|c_proj)$", re.I)
_FEED_FORWARD_IN = re.compile(r"^(.*)\.(?:intermediate\.dense|lin1|fc1|wi|wi_0|wi_1|gate_proj|up_proj|c_fc)$", re.I)
_FEED_FORWARD_OUT = re.compile(r"^(.*)\.(?:output\.dense|lin2|fc2|wo|down_proj|c_proj)$", re.I)
_RELATIVE_BIAS = re.compile(r"^(.*(?:attention|attn))\.relative_attention_bias$", re.I)


class Heads(NamedTuple):
    """How attention is divided: query heads, key-value heads, and the width of one."""

    query: int
    key_value: int
    width: int


def transplant(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    heads: tuple[Heads, Heads],
    samples: Iterable[Any] | None = None,
) -> None:
    """Fill `student` from `teacher`, a wider or deeper model of the same class; see `build_student`.

    Args:
        teacher: where the weights come from.
        student: changed in place.
        heads: the teacher's and the student's.
        samples: batches of model inputs whose hidden states choose the directions that are kept.

    Raises:
        ValueError: a parameter of the student has no counterpart, or its shape changes in a way that is not known.
    """
    width = student.config.hidden_size
    modules = dict(teacher.named_modules(remove_duplicate=False))
    units = _Units(modules, heads, _stream(teacher, width, samples))
    source = dict(teacher.named_parameters(remove_duplicate=False)) | dict(teacher.named_buffers())
    targets = dict(student.named_parameters()) | dict(student.named_buffers())
    names = _pairing(teacher, student)
    with torch.no_grad():
        for name, target in targets.items():
            origin = names(name)
            if origin not in source:
                raise ValueError(f"`teacher` has no parameter `{origin}` to make the student's `{name}` from")
            owner, _, leaf = origin.rpartition(".")
            value = source[origin].detach()
            if value.shape != target.shape:
                value = units.mapped(owner, leaf, value, target.shape)
            if value.shape != target.shape:
                raise ValueError(
                    f"`teacher` has `{origin}` of shape {tuple(source[origin].shape)}, a kind of module whose width "
                    f"cannot be reduced to {tuple(target.shape)}: keep that size, or use `initialize='random'`"
                )
            target.copy_(value)


def _pairing(teacher: nn.Module, student: nn.Module) -> Any:
    """From names in the student to names in the teacher: the indices of layers are stretched, the rest stays."""
    lengths = {n: len(m) for n, m in teacher.named_modules() if isinstance(m, nn.ModuleList)}
    picks = {
        n: spaced(lengths[n], len(m))
        for n, m in student.named_modules()
        if isinstance(m, nn.ModuleList) and n in lengths
    }

    def origin(name: str) -> str:
        parts, result = name.split("."), list[str]()
        for i, part in enumerate(parts):
            result.append(str(picks[".".join(parts[:i])][int(part)]) if ".".join(parts[:i]) in picks else part)
        return ".".join(result)

    return origin


class Stream(NamedTuple):
    """How a narrower residual stream stands for the teacher's.

    Attributes:
        kept: indices [d_s] of the teacher's coordinates that the student has, in order.
        read: [d_t, d_s]; the teacher's state is estimated as `read` @ the student's.
        gain: factor on norms: a norm gives every vector length √width, so that fewer coordinates come out longer or
            shorter than the same coordinates in the teacher.
    """

    kept: Tensor
    read: Tensor
    gain: float


def _stream(teacher: PreTrainedModel, width: int, samples: Iterable[Any] | None) -> Stream | None:
    """The coordinates that tell most, and the regression of all of them on these; None where the width stays."""
    table = teacher.get_input_embeddings().get_parameter("weight")
    full = table.shape[1]
    if full == width:
        return None
    states = table.detach().double() if samples is None else _hidden_states(teacher, samples)
    gram = states.T @ states
    kept = gram.diagonal().topk(width).indices.sort().values
    share = (gram.diagonal()[kept].sum() / gram.trace()).item()
    read = torch.zeros(full, width).to(gram)
    if samples is not None:
        ridge = 0.1 * gram.trace() / full * torch.eye(width).to(gram)
        read = torch.linalg.solve(gram[kept][:, kept] + ridge, gram[kept]).T.contiguous()
    read[kept] = torch.eye(width).to(gram)
    return Stream(kept, read, math.sqrt(share * full / width))


def _hidden_states(teacher: PreTrainedModel, samples: Iterable[Any]) -> Tensor:
    """Hidden states of every layer at unmasked positions, each scaled to unit mean square: [N, d] in float64."""
    rows: list[Tensor] = []
    training = teacher.training
    teacher.eval()
    device = teacher.get_input_embeddings().get_parameter("weight").device
    for batch in samples:
        inputs = {k: v.to(device) for k, v in dict(batch).items() if isinstance(v, Tensor) and k != "labels"}
        with torch.no_grad():
            outputs = teacher(**inputs, output_hidden_states=True)
        sides = [("encoder_hidden_states", "attention_mask"), ("decoder_hidden_states", "decoder_attention_mask")]
        for key, mask in sides if teacher.config.is_encoder_decoder else [("hidden_states", "attention_mask")]:
            for states in outputs[key]:
                seen = states[inputs[mask].bool()] if mask in inputs else states.flatten(0, 1)
                seen = seen.double()
                rows.append(seen / seen.pow(2).mean().sqrt().clamp(min=1e-12))
    teacher.train(training)
    if not rows:
        raise ValueError("`samples` must hold at least one batch of model inputs, got none")
    return torch.cat(rows)


class _Units:
    """What of the teacher's heads and feed-forward units is kept, and the map of each tensor onto it."""

    def __init__(self, modules: Mapping[str, nn.Module], heads: tuple[Heads, Heads], stream: Stream | None) -> None:
        self.modules, (self.teacher, self.student), self.stream = modules, heads, stream
        self.shared = any(_RELATIVE_BIAS.match(name) for name in modules)
        self.kept: dict[str, Tensor] = {}

    def mapped(self, owner: str, leaf: str, value: Tensor, shape: torch.Size) -> Tensor:
        """`value` of module `owner`, brought to `shape` where the roles of its axes are known."""
        module = self.modules[owner]
        outputs, inputs = (1, 0) if isinstance(module, Conv1D) and leaf == "weight" else (0, 1)
        attention_in, attention_out = _ATTENTION_IN.match(owner), _ATTENTION_OUT.match(owner)
        unit_in, unit_out = self._feed_forward(owner)
        if relative := _RELATIVE_BIAS.match(owner):
            return value.index_select(1, self._heads(relative[1])[0])
        for axis in range(value.dim()):
            if value.shape[axis] == shape[axis]:
                continue
            side = "out" if axis == outputs or value.dim() == 1 else "in"
            if attention_in and side == "out":
                value = value.index_select(axis, self._attention_rows(attention_in[1], owner, value.shape[axis]))
            elif attention_out and side == "in":
                value = value.index_select(axis, self._channels(self._heads(attention_out[1])[0]))
            elif unit_in and side == "out":
                value = value.index_select(axis, self._units(unit_in, value.shape[axis], shape[axis]))
            elif unit_out and side == "in":
                value = value.index_select(axis, self._units(unit_out, value.shape[axis], shape[axis]))
            else:
                value = self._narrowed(value, axis, reads=side == "in" and not isinstance(module, nn.Embedding))
        is_norm = leaf == "weight" and value.dim() == 1
        return value * self.stream.gain if self.stream and is_norm else value

    def _narrowed(self, value: Tensor, axis: int, *, reads: bool) -> Tensor:
        if self.stream is None or value.shape[axis] != len(self.stream.read):
            return value
        if not reads:
            return value.index_select(axis, self.stream.kept)
        return (value.to(self.stream.read).movedim(axis, -1) @ self.stream.read).movedim(-1, axis).to(value)

    def _feed_forward(self, owner: str) -> tuple[str | None, str | None]:
        if _ATTENTION_IN.match(owner) or _ATTENTION_OUT.match(owner):
            return None, None
        reads, writes = _FEED_FORWARD_IN.match(owner), _FEED_FORWARD_OUT.match(owner)
        return reads[1] if reads else None, writes[1] if writes else None

    def _matrix(self, name: str) -> Tensor:
        """The weight of `name` as [outputs, inputs], in float64."""
        weight = self.modules[name].get_parameter("weight").detach().double()
        return weight.T if isinstance(self.modules[name], Conv1D) else weight

    def _units(self, block: str, size: int, wanted: int) -> Tensor:
        """Indices of the units with the greatest product of norms in and out; of both halves where two are fused."""
        reads = [n for n in self.modules if self._feed_forward(n)[0] == block]
        (write,) = [n for n in self.modules if self._feed_forward(n)[1] == block]
        importance = self._matrix(write).norm(dim=0)
        count = len(importance)
        for name in reads:
            for half in self._matrix(name).split(count):
                importance = importance * half.norm(dim=1)
        parts = size // count
        kept = importance.topk(wanted // parts).indices.sort().values
        return torch.cat([kept + part * count for part in range(parts)])

    def _heads(self, block: str) -> tuple[Tensor, Tensor]:
        """Indices of the query heads and of the key-value heads kept in the attention `block`."""
        group, kept_group = self.teacher.query // self.teacher.key_value, self.student.query // self.student.key_value
        # A position bias made in the first layer and used in all ties the heads of a stack to each other by index.
        pattern = re.escape(block) if not self.shared else re.sub(r"(?<=\\\.)\d+.*", ".*", re.escape(block), count=1)
        if pattern not in self.kept:
            self.kept[pattern] = self._importance(pattern).view(self.teacher.key_value, group)
        importance = self.kept[pattern]
        groups = importance.sum(1).topk(self.student.key_value).indices.sort().values
        inside = importance[groups].topk(kept_group, dim=1).indices.sort(dim=1).values
        return (groups[:, None] * group + inside).flatten(), groups

    def _importance(self, pattern: str) -> Tensor:
        writes = [n for n in self.modules if (m := _ATTENTION_OUT.match(n)) and re.fullmatch(pattern, m[1])]
        squared = sum(self._matrix(n).pow(2).sum(0) for n in writes)
        return torch.as_tensor(squared).view(self.teacher.query, self.teacher.width).sum(1)

    def _channels(self, kept: Tensor) -> Tensor:
        return (kept[:, None] * self.teacher.width + torch.arange(self.teacher.width).to(kept)).flatten()

    def _attention_rows(self, block: str, owner: str, size: int) -> Tensor:
        query, key_value = self._heads(block)
        queries, keys = self.teacher.query * self.teacher.width, self.teacher.key_value * self.teacher.width
        if size == queries + 2 * keys:
            rows = self._channels(key_value)
            return torch.cat([self._channels(query), rows + queries, rows + queries + keys])
        leaf = owner.rpartition(".")[2]
        return self._channels(query if leaf.lower().startswith("q") else key_value)
