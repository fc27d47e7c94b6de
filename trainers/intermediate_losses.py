"""Losses between the inner states of student and teacher: which layer follows which, and through what projection."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..evaluation import atomic_path
from ..models import plain_model
from .distillation_losses import attention_loss, hidden_state_loss


PROJECTIONS_NAME = "distillation_projections.safetensors"
_ATTRIBUTE = "distillation_projections"


def resolve_layer_map(layer_map: Any, student_layers: int, teacher_layers: int) -> dict[int, int]:
    """Student layer → teacher layer, both counted from 1; 0 is what the embeddings give. Default: evenly spaced.

    Raises:
        ValueError: it is no such mapping, or names a layer that is not there.
    """
    if layer_map is None:
        return {i: round(i * teacher_layers / student_layers) for i in range(student_layers + 1)}
    try:
        mapping = json.loads(layer_map) if isinstance(layer_map, str) else layer_map
        found = {int(ours): int(theirs) for ours, theirs in dict(mapping).items()}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`layer_map` must map student to teacher layers, as {{1: 2, 2: 4}}; got {layer_map}"
        ) from error
    for ours, theirs in found.items():
        if not (0 <= ours <= student_layers and 0 <= theirs <= teacher_layers):
            raise ValueError(
                f"`layer_map` has {ours}: {theirs}, but the student has layers 0 to {student_layers}, the teacher 0 "
                f"to {teacher_layers} (0: the embeddings)"
            )
    if not found:
        raise ValueError("`layer_map` is empty")
    return found


class IntermediateLosses:
    """Hidden-state and attention losses of a student against one teacher with the same tokens.

    Where the widths differ, a linear projection of the student's states per mapped layer is trained beside it. The
    projections hang on the student, so that any optimizer and any layout finds them, and hide from its state dict, so
    that no saved model has them; checkpoints of training hold them in a file of their own. They work inside its
    forward pass, since DDP allows no parameter to be used behind its back, and append what they give to its hidden
    states.

    Args:
        hidden_weight: of the mean squared error between hidden states (Romero et al., 1412.6550; Jiao et al.,
            1909.10351).
        attention_weight: of that between attention probabilities (1909.10351).

    Raises:
        ValueError: the layer map does not fit, or attention maps of differently many heads cannot be had.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, layer_map: Any, hidden_weight: float, attention_weight: float
    ) -> None:
        ours, theirs = (plain_model(m).config.get_text_config() for m in (student, teacher))
        self.layers = resolve_layer_map(layer_map, ours.num_hidden_layers, theirs.num_hidden_layers)
        self.hidden_weight, self.attention_weight = hidden_weight, attention_weight
        if attention_weight and not any(ours and theirs for ours, theirs in self.layers.items()):
            raise ValueError("`layer_map` maps the embeddings alone, which have no attention")
        self._student = plain_model(student)
        if attention_weight:
            for model in (self._student, plain_model(teacher)):
                model.set_attn_implementation("eager")  # the others do not give their probabilities
        if hidden_weight and ours.hidden_size != theirs.hidden_size:
            made = {str(i): nn.Linear(ours.hidden_size, theirs.hidden_size, bias=False) for i in sorted(self.layers)}
            projections = nn.ModuleDict(made)
            for layer in projections.values():
                nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
            _hide(projections)
            parameter = next(self._student.parameters())
            self._student.add_module(_ATTRIBUTE, projections.to(parameter.device, parameter.dtype))
            self._hook = self._student.register_forward_hook(self._project)

    @property
    def options(self) -> dict[str, bool]:
        """What both models must be asked for."""
        return {
            "output_hidden_states": bool(self.hidden_weight),
            "output_attentions": bool(self.attention_weight),
        }

    @property
    def projections(self) -> Any:
        """Student layer → projection, an `nn.ModuleDict`, where there are any, else None."""
        return getattr(self._student, _ATTRIBUTE, None)

    def _project(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        states = outputs["hidden_states"] if "hidden_states" in outputs else None
        if states is not None:
            outputs["hidden_states"] = (*states, *(self.projections[str(i)](states[i]) for i in self.layers))

    def __call__(self, student: Any, teacher: Any, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden-state and attention loss, each summed over the tokens of `mask` and averaged over the layers."""
        hidden = attention = torch.zeros((), device=mask.device)
        if self.hidden_weight:
            terms = []
            states = [student.hidden_states[ours] for ours in self.layers]
            if self.projections is not None:
                states = student.hidden_states[-len(self.layers) :]
            for state, theirs in zip(states, self.layers.values(), strict=True):
                terms.append(hidden_state_loss(state, teacher.hidden_states[theirs], mask))
            hidden = torch.stack(terms).mean()
        if self.attention_weight:
            pairs = [(ours - 1, theirs - 1) for ours, theirs in self.layers.items() if ours and theirs]
            terms = [attention_loss(student.attentions[a], teacher.attentions[b], mask) for a, b in pairs]
            attention = torch.stack(terms).mean()
        return hidden, attention

    def save(self, folder: Path) -> None:
        """Write the projections into a checkpoint."""
        if self.projections is not None:
            with atomic_path(folder / PROJECTIONS_NAME) as path:
                save_file({name: layer.weight.detach().cpu() for name, layer in self.projections.items()}, path)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        if self.projections is None:
            return
        if not (folder / PROJECTIONS_NAME).is_file():
            raise ValueError(
                f"checkpoint {folder} has no {PROJECTIONS_NAME}: it is of a run without these projections"
            )
        for name, weight in load_file(folder / PROJECTIONS_NAME).items():
            self.projections[name].weight.data.copy_(weight)

    def remove(self) -> None:
        """Take the projections off the student."""
        if self.projections is not None:
            self._hook.remove()
            delattr(self._student, _ATTRIBUTE)


def _hide(projections: nn.ModuleDict) -> None:
    """Keep `projections` out of every state dict, and do not miss them when one is loaded."""

    def leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]

    def do_not_miss(module: nn.Module, incompatible: Any) -> None:
        incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if _ATTRIBUTE not in name]

    projections.register_state_dict_post_hook(leave_out)
    projections.register_load_state_dict_post_hook(do_not_miss)
