if __name__ != "tithe.models":
    raise ImportError("import `tithe.models`, not `models`: the bare name would load a second copy of every class")

from .classification import freeze, parameter_groups, set_head_dropout
from .signals import SIGNALS, read_signals, take_rows
from .structure import backbone, embedding_modules, head_parameters, plain_model, transformer_layers


__all__ = [
    "SIGNALS",
    "backbone",
    "embedding_modules",
    "freeze",
    "head_parameters",
    "parameter_groups",
    "plain_model",
    "read_signals",
    "set_head_dropout",
    "take_rows",
    "transformer_layers",
]
