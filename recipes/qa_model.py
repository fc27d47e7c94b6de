"""The model of a question-answering recipe: a causal one loaded from anywhere, or a small one made of nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tithe.recipes.language_model import build_small_language_model
from tithe.recipes.loading import QuantisedArguments, load_quantisable


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
            "help": f"Hub id or folder of a causal language model. `{SMALL}` makes a Llama of 0.3M parameters and a "
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


def load_answerer(
    args: QAModelArguments, source: str | Path, cpu: bool, argument: str = "model_name_or_path"
) -> PreTrainedModel:
    """The causal model at `source`, held as `args` say; a `ValueError` that names `argument` where there is none."""
    options = {} if args.attn_implementation is None else {"attn_implementation": args.attn_implementation}
    kind = "a causal language model"
    return load_quantisable(AutoModelForCausalLM, args, source, args.model_revision, cpu, kind, argument, **options)


def build_small_answerer(folder: Path, texts: Sequence[str], seed: int) -> None:
    """Write a byte-level tokenizer trained on `texts` and a Llama of 2 layers × 96."""
    build_small_language_model(folder, texts, seed, vocabulary=VOCABULARY, width=WIDTH, layers=LAYERS)
