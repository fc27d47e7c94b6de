"""What makes a pass over a pool leave no trace in the training around it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from .structure import plain_model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module; each returns to the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def rng_neutral() -> Iterator[None]:
    """Leave every generator as it was: dropout in training must not depend on whether a pool was read."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Floating-point weights in `dtype`, made once; afterwards the model has its own parameters again.

    Cheaper than autocast, which leaves what flows between layers in float32. Buffers (rotary frequencies) keep their
    precision, as `from_pretrained(dtype=…)` leaves them. A quantised model, and any with `dtype` None, stays as it is.
    """
    own: list[tuple[nn.Module, str, nn.Parameter]] = []
    if dtype is not None and not getattr(plain_model(model), "is_quantized", False):
        named = ((module, name, p) for module in model.modules() for name, p in module.named_parameters(recurse=False))
        own = [(module, name, p) for module, name, p in named if p.is_floating_point() and p.dtype != dtype]
    cast: dict[int, nn.Parameter] = {}  # tied weights once
    try:
        for module, name, p in own:
            if id(p) not in cast:
                cast[id(p)] = nn.Parameter(p.detach().to(dtype), requires_grad=False)
            setattr(module, name, cast[id(p)])
        yield
    finally:
        for module, name, p in own:
            setattr(module, name, p)
