"""Iterations that each begin from the same weights, with a learning rate schedule of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ..evaluation import atomic_path


WEIGHTS_NAME = "initial_weights.safetensors"


def save_initial(model: nn.Module, folder: Path) -> None:
    """Write what training will change of `model` into `folder`, atomically."""
    with atomic_path(folder / WEIGHTS_NAME) as path:
        save_file({name: value.cpu().contiguous().clone() for name, value in _changing(model).items()}, path)


def check_initial(folder: Path) -> None:
    """Raise a `ValueError` if `folder` has no initial weights."""
    if not (folder / WEIGHTS_NAME).is_file():
        raise ValueError(f"{folder} has no {WEIGHTS_NAME}, from which each iteration starts: start the run anew")


def start_over(model: nn.Module, optimizer: Any, folder: Path) -> None:
    """Put `model` back to the weights that `save_initial` wrote, and let `optimizer` forget all steps."""
    kept = load_file(folder / WEIGHTS_NAME)
    for name, value in _changing(model).items():
        value.copy_(kept[name])
    optimizer.state.clear()


def _changing(model: nn.Module) -> dict[str, torch.Tensor]:
    """By name, tied weights once."""
    found = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    return found | {name: buffer.data for name, buffer in model.named_buffers()}


def begin_anew_every(schedule: Any, steps: int) -> Any:
    """`schedule`, made for `steps` steps, to begin anew after each of such stretches.

    Raises:
        ValueError: it does not follow from the step alone.
    """
    if not isinstance(schedule, LambdaLR):
        raise ValueError(
            f"`lr_scheduler_type` {type(schedule).__name__} does not follow from the step alone, so no iteration can "
            "begin it anew: choose linear, cosine or constant, or `iteration_start` warm"
        )
    schedule.lr_lambdas = [_every(steps, function) for function in schedule.lr_lambdas]
    return schedule


def _every(steps: int, function: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: function(step % steps)
