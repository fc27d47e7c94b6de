"""The model of a question-answering recipe: a causal one loaded from anywhere, or a small one made of nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tithe.recipes.language_model import build_small_language_model
from tithe.recipes.quantisation import QuantisedArguments, loading_options


DEFAULT_QA_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMALL = "small"
VOCABULARY, WIDTH, LAYERS = 1000, 96, 2
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class QAModelArguments(QuantisedArguments):
    """Which model answers, and how it is held and computed."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": f"Hub id or folder of a causal language model. `{SMALL}` makes a Llama of 0.4M parameters and a "
            "tokenizer from the passages, and first trains all of it to repeat passages. Default: "
            f"`{SMALL}` on the embedded corpus, else `{DEFAULT_QA_MODEL}`."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the hub model."})
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "`eager`, `sdpa`, `flash_attention_2`, … Default: what Transformers chooses."},
    )
    answer_dtype: str = field(
        default="bfloat16",
        metadata={"help": "Type in which answers are computed; `auto` is that of the weights. 8 and 4 bits stay."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantised and self.model_name_or_path == SMALL:
            raise ValueError(f"the `{SMALL}` model is trained first, which a quantised one cannot be")
        if self.answer_dtype not in DTYPES:
            raise ValueError(f"`answer_dtype` must be one of {', '.join(DTYPES)}; got {self.answer_dtype!r}")

    @property
    def computed_in(self) -> torch.dtype | None:
        """`answer_dtype` as torch has it; None is that of the weights."""
        return None if self.answer_dtype == "auto" else getattr(torch, self.answer_dtype)


def load_answerer(args: QAModelArguments, source: str | Path, cpu: bool) -> PreTrainedModel:
    """The causal model at `source`, held as `args` say; a `ValueError`, in one line, where it cannot be had."""
    options: dict[str, Any] = {"revision": args.model_revision, **loading_options(args, cpu)}
    if args.attn_implementation is not None:
        options["attn_implementation"] = args.attn_implementation
    try:
        return AutoModelForCausalLM.from_pretrained(str(source), **options)
    except (ImportError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = ': pip install "tithe[quantization]"' if args.quantised and isinstance(error, ImportError) else ""
        raise ValueError(
            f"`model_name_or_path` {source} could not be loaded as a causal language model: {reason}{hint}"
        ) from error


def load_answer_tokenizer(source: str | Path, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer at `source`, which can pad; a `ValueError`, in one line, where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"`model_name_or_path` {source} has no tokenizer that could be loaded: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {source} has no end-of-sequence token, which ends an answer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build_small_answerer(folder: Path, texts: Sequence[str], seed: int) -> None:
    """Write a byte-level tokenizer trained on `texts` and a Llama of 2 layers × 96."""
    build_small_language_model(folder, texts, seed, vocabulary=VOCABULARY, width=WIDTH, layers=LAYERS)
