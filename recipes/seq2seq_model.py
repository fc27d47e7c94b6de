"""The base of a prompt-tuning recipe: an encoder-decoder loaded from anywhere, or a small one made of nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from tithe.recipes.byte_tokenizer import train_byte_tokenizer
from tithe.recipes.loading import QuantisedArguments, load_quantisable


DEFAULT_SEQ2SEQ_MODEL = "google/flan-t5-small"
SMALL = "small"
VOCABULARY, WIDTH, LAYERS, LONGEST = 1000, 96, 2, 512


@dataclass
class Seq2SeqModelArguments(QuantisedArguments):
    """Which base is adapted, and in what precision it is held."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": f"Hub id or folder of an encoder-decoder. `{SMALL}` makes a T5 of 0.6M parameters and a tokenizer "
            "from the training texts, and first trains all of it to put dropped words back into the outputs. Default: "
            f"`{SMALL}` on the embedded corpus, else `{DEFAULT_SEQ2SEQ_MODEL}`."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the hub model."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantised and self.model_name_or_path == SMALL:
            raise ValueError(f"the `{SMALL}` base is trained first, which a quantised one cannot be")


def load_base(args: Seq2SeqModelArguments, source: str | Path, cpu: bool) -> PreTrainedModel:
    """The base at `source`, in the precision that `args` say; a `ValueError`, in one line, where it cannot be had."""
    return load_quantisable(AutoModelForSeq2SeqLM, args, source, args.model_revision, cpu, "an encoder-decoder")


def build_small_base(folder: Path, texts: Sequence[str], seed: int) -> None:
    """Write a byte-level tokenizer trained on `texts` and a T5 of 2 + 2 layers × 96 with random weights."""
    tokenizer = train_byte_tokenizer(texts, VOCABULARY, LONGEST, ends=True)
    tokenizer.save_pretrained(folder)
    set_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=WIDTH // 4,
        d_ff=3 * WIDTH,
        num_layers=LAYERS,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    T5ForConditionalGeneration(config).save_pretrained(folder)


def with_words_dropped(texts: Sequence[str], seed: int) -> Dataset:
    """Rows `source` → `target` for a base of random weights: the source lacks from none to half of the words.

    Half of the sources lack none. From those a small model soon learns to copy what it reads, without which it writes
    the same few common words whatever it reads.
    """

    def rows() -> Iterator[dict[str, str]]:
        rng = np.random.default_rng(seed)
        for text in texts:
            words = text.split()
            kept = rng.random(len(words)) >= rng.random() - 0.5
            yield {"source": " ".join(w for w, keep in zip(words, kept, strict=True) if keep), "target": text}

    return Dataset.from_list(list(rows()))


def tokenised(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_input: int, max_output: int) -> Dataset:
    """`rows` with `input_ids`, `attention_mask` and `labels` beside `source` and `target`."""

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        found = tokenizer(batch["source"], truncation=True, max_length=max_input)
        labels = tokenizer(text_target=batch["target"], truncation=True, max_length=max_output)
        return {name: found[name] for name in ("input_ids", "attention_mask")} | {"labels": labels["input_ids"]}

    return rows.map(encode, batched=True, desc="Tokenising")
