if __name__ != "tithe.models":
    raise ImportError("import `tithe.models`, not `models`: the bare name would load a second copy of every class")

from .classification import freeze, parameter_groups, set_head_dropout
from .factorized import (
    FactorizedEmbedding,
    FactorizedHead,
    embedding_energy,
    factorize_embeddings,
    merge_embeddings,
)
from .language_scores import LANGUAGE_SIGNALS, conditional_scores, read_language_scores
from .passes import evaluating, rng_neutral
from .probe import LinearProbe, bagged_probabilities, out_of_fold_el2n, unit_rows
from .signals import SIGNALS, read_signals, take_rows
from .structure import backbone, embedding_modules, head_parameters, plain_model, transformer_layers
from .student import build_student


__all__ = [
    "LANGUAGE_SIGNALS",
    "SIGNALS",
    "FactorizedEmbedding",
    "FactorizedHead",
    "LinearProbe",
    "backbone",
    "bagged_probabilities",
    "build_student",
    "conditional_scores",
    "embedding_energy",
    "embedding_modules",
    "evaluating",
    "factorize_embeddings",
    "freeze",
    "head_parameters",
    "merge_embeddings",
    "out_of_fold_el2n",
    "parameter_groups",
    "plain_model",
    "read_language_scores",
    "read_signals",
    "rng_neutral",
    "set_head_dropout",
    "take_rows",
    "transformer_layers",
    "unit_rows",
]
