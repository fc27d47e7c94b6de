if __name__ != "tithe.models":
    raise ImportError("import `tithe.models`, not `models`: the bare name would load a second copy of every class")

from .answering import generate_answers
from .bm25 import BM25Retriever
from .classification import freeze, parameter_groups, set_head_dropout
from .dense_retrieval import DenseRetriever
from .extras import import_extra, require_extra
from .factorized import (
    FactorizedEmbedding,
    FactorizedHead,
    embedding_energy,
    factorize_embeddings,
    merge_embeddings,
)
from .fingerprints import model_fingerprint, text_fingerprint, tokenizer_fingerprint
from .generation import generate_predictions
from .hybrid import HybridRetriever
from .index_folders import indexed
from .language_models import longest_input
from .language_scores import LANGUAGE_SIGNALS, conditional_scores, read_language_scores
from .loading import loaded_whole, one_line_errors
from .lora_prompt import add_lora_and_prompt, guard_4bit, load_lora_and_prompt, merge, prompt_weights
from .memory_errors import ran_out_of_memory
from .passes import computing_in, evaluating, rng_neutral
from .probe import LinearProbe, bagged_probabilities, out_of_fold_el2n, unit_rows
from .prompt_exports import export_peft, export_plain
from .prompts import FittedPrompt, chat_prompts, encode_prompts, fit_passages
from .reranking import Reranked
from .retrieval import Hits, Passage, Retriever, as_passages, check_search
from .row_arrays import take_rows
from .sentence_encoder import SentenceEncoder
from .signals import SIGNALS, read_shard, read_signals
from .soft_prompt import SoftPrompt, attach_soft_prompt, detach_soft_prompt, input_positions, virtual_tokens_of
from .structure import backbone, embedding_modules, head_parameters, plain_model, transformer_layers
from .student import build_student


__all__ = [
    "LANGUAGE_SIGNALS",
    "SIGNALS",
    "BM25Retriever",
    "DenseRetriever",
    "FactorizedEmbedding",
    "FactorizedHead",
    "FittedPrompt",
    "Hits",
    "HybridRetriever",
    "LinearProbe",
    "Passage",
    "Reranked",
    "Retriever",
    "SentenceEncoder",
    "SoftPrompt",
    "add_lora_and_prompt",
    "as_passages",
    "attach_soft_prompt",
    "backbone",
    "bagged_probabilities",
    "build_student",
    "chat_prompts",
    "check_search",
    "computing_in",
    "conditional_scores",
    "detach_soft_prompt",
    "embedding_energy",
    "embedding_modules",
    "encode_prompts",
    "evaluating",
    "export_peft",
    "export_plain",
    "factorize_embeddings",
    "fit_passages",
    "freeze",
    "generate_answers",
    "generate_predictions",
    "guard_4bit",
    "head_parameters",
    "import_extra",
    "indexed",
    "input_positions",
    "load_lora_and_prompt",
    "loaded_whole",
    "longest_input",
    "merge",
    "merge_embeddings",
    "model_fingerprint",
    "one_line_errors",
    "out_of_fold_el2n",
    "parameter_groups",
    "plain_model",
    "prompt_weights",
    "ran_out_of_memory",
    "read_language_scores",
    "read_shard",
    "read_signals",
    "require_extra",
    "rng_neutral",
    "set_head_dropout",
    "take_rows",
    "text_fingerprint",
    "tokenizer_fingerprint",
    "transformer_layers",
    "unit_rows",
    "virtual_tokens_of",
]
