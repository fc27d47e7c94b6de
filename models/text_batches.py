"""Texts through a Transformers model that only reads: batches by length, without gradient, in float32 or bfloat16."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .loading import one_line_errors
from .passes import evaluating, rng_neutral
from .structure import plain_model


_TEXTS_AT_A_TIME = 2**15  # tokenised and sorted together


def load_with_tokenizer(model: Any, tokenizer: Any, auto: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model and its tokenizer: as they are, or by `auto.from_pretrained` from a folder's path or a hub name.

    What is loaded here goes to the GPU where there is one.

    Raises:
        ValueError: nothing can be loaded under that name, or a model object comes without a tokenizer.
    """
    if not isinstance(model, str | Path):
        if tokenizer is None:
            raise ValueError("a model that is given as an object needs its `tokenizer`")
        return model, tokenizer
    with one_line_errors(f"`model` {model} could not be loaded"):
        loaded = auto.from_pretrained(str(model))
        tokenizer = AutoTokenizer.from_pretrained(str(model)) if tokenizer is None else tokenizer
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def check_length(model: Any, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Raises `ValueError` if model or tokenizer take fewer tokens than `max_length`, or there is no padding token."""
    positions = getattr(plain_model(model).config, "max_position_embeddings", None) or max_length
    most = min(positions, tokenizer.model_max_length)
    if not 1 <= max_length <= most:
        raise ValueError(f"`max_length` must be from 1 to the model's {most} tokens, got {max_length}")
    if tokenizer.pad_token_id is None:
        raise ValueError("`tokenizer` has no padding token: set `tokenizer.pad_token`, such as to `eos_token`")


def repeated(values: Sequence[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows with values that no earlier row has; and for every row the first that has its value.

    What is equal must score the same, which it may not in batches that are padded to other lengths.

    >>> [rows.tolist() for rows in repeated(["a", "b", "a"])]
    [[0, 1], [0, 1, 0]]
    """
    seen: dict[Hashable, int] = {}
    first = np.array([seen.setdefault(value, row) for row, value in enumerate(values)], np.int64)
    return np.array(list(seen.values()), np.int64), first


def read_texts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    batch_size: int,
    bf16: bool,
    progress: str | None = None,
) -> Iterator[tuple[NDArray[np.int64], Any, Mapping[str, Any]]]:
    """What `model` makes of each of `texts`, or of each with its text in `pairs`: rows, outputs and inputs of a batch.

    Texts of like length share a batch, the longest come first. Padding is on the right.

    Args:
        max_length: tokens, of a pair together; what is longer is cut.
        bf16: whether to compute in bfloat16 (autocast).
        progress: what to write before a progress bar; None for none.
    """
    bar = tqdm(total=len(texts), desc=progress, disable=progress is None)
    device = plain_model(model).device
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        part = slice(start, start + _TEXTS_AT_A_TIME)
        second = None if pairs is None else list(pairs[part])
        encoded = tokenizer(list(texts[part]), second, truncation=True, max_length=max_length)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            columns = {name: [values[row] for row in rows] for name, values in encoded.items()}
            inputs = tokenizer.pad(columns, padding_side="right", return_tensors="pt").to(device)
            with rng_neutral(), evaluating(model), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, bf16):
                outputs = model(**inputs)
            yield rows + start, outputs, inputs
            bar.update(len(rows))
    bar.close()
