"""The models of a language-model recipe: loaded from anywhere, or a small one made of nothing, and their score."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    EvalPrediction,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from tithe.models import loaded_whole, one_line_errors
from tithe.recipes.byte_tokenizer import train_byte_tokenizer
from tithe.recipes.caching import built_once
from tithe.recipes.loading import load_tokenizer


DEFAULT_LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M"
SMALL = "small"
VOCABULARY, WIDTH, LAYERS, LONGEST = 8000, 128, 4, 512


@dataclass
class LanguageModelArguments:
    """Which model becomes the teacher."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": f"Hub id or folder of the teacher before it is fine-tuned. `{SMALL}` builds a Llama of 1.8M "
            "parameters and a tokenizer from the training texts; as it starts from nothing, it wants a "
            f"`teacher_learning_rate` of about 2e-3. Default: `{SMALL}` on the embedded corpus, else "
            f"`{DEFAULT_LANGUAGE_MODEL}`."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the hub model."})


def load_language_model(
    source: str, revision: str | None, folder: Path, texts: Dataset, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer; a small one is built in `folder` once from `texts`.

    Raises `ValueError`, in one line, where none can be had.
    """
    if source == SMALL:
        source = str(built_once(folder, lambda to: build_small_language_model(to, texts["text"], seed)))
    return open_language_model(source, revision, "model_name_or_path")


def open_language_model(
    source: str, revision: str | None, argument: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal language model at `source` and its tokenizer, which can pad; `argument` is what errors call it."""
    with loaded_whole(), one_line_errors(f"`{argument}` {source} could not be loaded as a causal language model"):
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision)
    return model, load_tokenizer(source, revision, argument=argument, ending="a text")


def build_small_language_model(
    folder: Path,
    texts: Sequence[str],
    seed: int,
    *,
    vocabulary: int = VOCABULARY,
    width: int = WIDTH,
    layers: int = LAYERS,
) -> None:
    """Write a byte-level tokenizer trained on `texts` and a Llama of `layers` × `width` with tied embeddings."""
    tokenizer = train_byte_tokenizer(texts, vocabulary, LONGEST)
    tokenizer.save_pretrained(folder)
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def token_sums(logits: Any, labels: Tensor) -> Tensor:
    """(rows, 3): of each row the summed negative log-likelihood, the tokens guessed right, and the tokens scored.

    For `preprocess_logits_for_metrics`: the logits, (rows, tokens, vocabulary), need not be kept.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    targets = labels[:, 1:].to(logits.device)
    sums = []
    for row, wanted in zip(logits[:, :-1], targets, strict=True):  # a row at a time: its float32 logits are large
        active = wanted != -100
        row, wanted = row[active].float(), wanted[active]
        loss = torch.nn.functional.cross_entropy(row, wanted, reduction="sum")
        sums.append(torch.stack([loss, (row.argmax(-1) == wanted).sum(), active.sum()]))
    return torch.stack(sums)


def language_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """`perplexity`, exp of the mean loss over all scored tokens, and `token_accuracy`, from rows of `token_sums`.

    Each token counts the same, however they lie in blocks and batches; the first of a block has no context and does
    not count.

    >>> import numpy as np
    >>> found = language_metrics(EvalPrediction(np.array([[2 * np.log(8), 1, 2], [np.log(8), 0, 1]]), None))
    >>> {name: round(value, 4) for name, value in found.items()}
    {'perplexity': 8.0, 'token_accuracy': 0.3333}
    """
    loss, right, tokens = np.asarray(prediction.predictions, dtype=np.float64).sum(axis=0)
    return {"perplexity": float(np.exp(loss / tokens)), "token_accuracy": float(right / tokens)}
