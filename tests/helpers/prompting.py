"""A tiny T5, a tokenizer, and rows of a task that it can learn: the words of the input, backwards."""

import numpy as np
from datasets import Dataset
from transformers import T5Config, T5ForConditionalGeneration, set_seed

from tithe.recipes.small_model import train_tokenizer


WORDS = "one two three four five six seven eight nine ten".split()
SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


def make_tokenizer():
    return train_tokenizer([" ".join(WORDS)])


def make_base(dropout=0.1, seed=0, **sizes):
    tokenizer = make_tokenizer()
    set_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        dropout_rate=dropout,
        **SIZES | sizes,
    )
    return T5ForConditionalGeneration(config)


def make_rows(count, seed=0):
    """Columns `input_ids`, `attention_mask`, `labels`."""
    rng, tokenizer = np.random.default_rng(seed), make_tokenizer()
    inputs = [[str(word) for word in rng.choice(WORDS, rng.integers(2, 7))] for _ in range(count)]
    encoded = tokenizer([" ".join(words) for words in inputs])
    labels = tokenizer([" ".join(reversed(words)) for words in inputs])["input_ids"]
    return Dataset.from_dict(
        {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
    )
