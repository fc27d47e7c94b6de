"""Texts from a generating model, for many inputs: batched by length, and kept as they come."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from .answer_log import answer_keys, append_log, mend_log, occurrences, read_log
from .passes import evaluating, rng_neutral
from .structure import plain_model


def generate_predictions(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    path: str | Path | None = None,
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    seed: int = 0,
    progress: bool = True,
    append: bool = True,
    **generation: Any,
) -> list[str]:
    """The texts that `model` generates for `inputs`, in their order.

    Inputs of like length share a batch. With a `path`, each text is appended to it as soon as it is there, one JSON
    object a line (`key`, `row`, `input`, `prediction`); called again, what the file has is not generated again. A key
    is a hash of the input and of all that the text depends on besides the weights, so that one file may hold several
    settings; of another model's texts keep another file. Sampling is seeded batch by batch: a call that was
    interrupted leads to the same texts as one that was not.

    Args:
        model: an encoder-decoder or causal model, with a soft prompt or without, on any device; left in its mode.
        tokenizer: its own. For a causal model inputs are padded on the left, whatever its `padding_side`.
        path: a JSON Lines file.
        batch_size: inputs a batch.
        max_length: longest input in tokens; what is longer is cut.
        seed: of what is sampled.
        progress: whether to show a progress bar.
        append: whether to write to `path`, or only to read what is there: of several processes that all generate, one.
        generation: as `model.generate` takes it: `max_new_tokens`, `num_beams`, `do_sample`, `temperature`, …

    Raises:
        ValueError: the tokenizer has no padding token, or the file has lines that are no JSON, other than the last.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("`tokenizer` has no padding token: set `tokenizer.pad_token`, such as to `eos_token`")
    config: Any = plain_model(model).config
    side = tokenizer.padding_side if config.is_encoder_decoder else "left"
    settings = {"max_length": max_length, **generation}
    if generation.get("do_sample"):
        settings |= {"batch_size": batch_size, "seed": seed}
    # Equal inputs are told apart by their number: sampling may give each another text.
    keys = answer_keys(inputs, settings, occurrences(inputs))
    log = None if path is None else Path(path)
    done = {} if log is None else {key: entry["prediction"] for key, entry in read_log(log, "prediction").items()}
    if log is not None and append:
        mend_log(log)
    cut = {"truncation": max_length is not None, "max_length": max_length}
    encoded = tokenizer(list(inputs), **cut)["input_ids"] if len(inputs) else []
    order = np.argsort([-len(ids) for ids in encoded], kind="stable").tolist()  # first what needs the most memory
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    wanted = [batch for batch in batches if any(keys[row] not in done for row in batch)]
    with evaluating(model), torch.no_grad():
        for batch in tqdm(wanted, "Generating", disable=not progress):
            ids = [encoded[row] for row in batch]
            padded = tokenizer.pad({"input_ids": ids}, padding_side=side, return_tensors="pt")
            texts = _generate(model, tokenizer, padded, (seed, min(batch)), generation)
            entries = [
                {"key": keys[row], "row": row, "input": inputs[row], "prediction": text}
                for row, text in zip(batch, texts, strict=True)
                if keys[row] not in done
            ]
            done |= {entry["key"]: entry["prediction"] for entry in entries}
            if log is not None and append:
                append_log(log, entries)
    return [done[key] for key in keys]


def _generate(
    model: Any, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, Any], seed: tuple[int, int], generation: Any
) -> list[str]:
    device = plain_model(model).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    with rng_neutral():
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        ids = model.generate(**inputs, **generation)
    config: Any = plain_model(model).config
    if not config.is_encoder_decoder:
        ids = ids[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
