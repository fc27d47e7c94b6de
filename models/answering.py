"""Answers of a small causal model to many prompts: every one once, whatever interrupts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.modeling_utils import unwrap_model

from .answer_log import SharedLog, answer_keys, occurrences
from .decoding import DecodeLoop, Row, room_in_memory
from .kv_rows import CachedPasses
from .language_models import language_model_kind, longest_input
from .passes import computing_in, evaluating
from .prompts import encode_prompts
from .soft_prompt import virtual_tokens_of
from .structure import plain_model
from .token_choice import Sampling, StopRule


_LEAST_SHARED = 8
"""Fewer common tokens are not worth a pass of their own."""


def generate_answers(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    path: str | Path | None = None,
    *,
    prefix: str = "",
    max_new_tokens: int = 32,
    stop: Sequence[str] = ("\n",),
    batch_size: int | None = None,
    max_length: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    dtype: str | torch.dtype | None = "bfloat16",
    name: str = "",
    progress: bool = True,
) -> list[str]:
    """The answers of a causal language model to `prompts`, in their order.

    An answer ends before the end-of-sequence token (the model's or the tokenizer's) or the first of the `stop`
    strings; blanks around it are cut. Rows that are done leave the batch and others take their places; the tokens with
    which all prompts begin are read once. In float32 (`dtype=None` for a model that has it) the text is that of
    `model.generate` for each prompt alone, whatever the batch; bfloat16 rounds, and a few rows may differ.

    With a `path`, each answer is appended as soon as it is there, as one JSON object a line: `key`, `name`, `prompt`,
    `answer`, `prompt_tokens`, `generated_tokens` (what ended it included), `stopped` ("eos", "stop" or "length").
    Called again, what the file has is not generated again. A key is a hash of `name`, the settings and the prompt, so
    that one file may hold several models and settings. Equal prompts are answered once, unless answers are sampled.

    Of several processes (`accelerate launch`, `torchrun`), which must all call it with the same arguments and each
    have the whole model, each answers its share; all return all answers. Beside `path`, each has a shard while it
    works; a run that was killed goes on with any number of processes.

    Args:
        model: on any device; left in its mode and with its own weights. With LoRA or without.
        tokenizer: its own; it needs no padding token.
        prompts: what the model is to go on with; see `chat_prompts` for instruct models.
        path: a JSON Lines file.
        prefix: text before every prompt, such as instructions and examples.
        max_new_tokens: the most tokens of an answer.
        stop: strings that end an answer.
        batch_size: the most prompts at a time; by default as many as memory has room for. When it runs out, half.
        max_length: the most tokens of prompt and answer together, where the model's window is wider.
        temperature, top_p, top_k: of sampling, as in `model.generate`; a temperature of 0 takes the likeliest token.
        seed: of what is sampled; each prompt has random numbers of its own.
        dtype: to compute in; None: as the model is. A quantised model stays as it is.
        name: of the model and its weights, where `path` may have answers of others; by default where it came from.
        progress: whether to show a progress bar.

    Raises:
        TypeError: `prompts` is a single text.
        ValueError: the model is no causal one, or has a soft prompt; a prompt is empty, or too long for the model's
            window; a setting is out of its range; or the file has lines that are no answers, other than the last.
    """
    inner = _checked(model, prompts, batch_size)
    sampling = Sampling(temperature, top_p, top_k, seed)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    rule = StopRule(tokenizer, max_new_tokens, stop, _ends(inner, tokenizer))
    computed = None if dtype is None or getattr(inner, "is_quantized", False) else _floating(dtype)
    settings = {"name": name or inner.name_or_path, "max_new_tokens": max_new_tokens, "stop": stop}
    settings |= {"dtype": computed or inner.dtype}
    if not sampling.greedy:
        settings |= {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    texts = [prefix + prompt for prompt in prompts]
    tokens = encode_prompts(tokenizer, texts)
    _check_lengths(tokens, max_new_tokens, longest_input(inner, tokenizer, max_length))
    numbers = [0] * len(texts) if sampling.greedy else occurrences(texts)
    keys = answer_keys(texts, settings, numbers)
    log = SharedLog(None if path is None else Path(path), keys)
    missing = {key: place for place, key in reversed(list(enumerate(keys))) if key not in log.done}
    order = sorted(missing.values(), key=lambda place: (-len(tokens[place]), place))
    start = _common_start([tokens[place] for place in order])
    with evaluating(model), torch.no_grad(), computing_in(inner, computed):
        passes = CachedPasses(inner, start, tokenizer.pad_token_id or 0)
        rows = [
            Row(place, tokens[place][passes.prefix :], sampling.uniforms(texts[place], numbers[place], max_new_tokens))
            for place in order[log.process :: log.processes]
        ]
        room = (batch_size, float("inf")) if batch_size else room_in_memory(inner)
        with tqdm(desc="Answering", total=len(rows), disable=not progress or log.process > 0) as bar:
            for done in DecodeLoop(passes, sampling, rule, *room).run(rows):
                log.append(
                    {
                        "key": keys[row.number],
                        "name": settings["name"],
                        "prompt": texts[row.number],
                        "answer": rule.text(row.generated),
                        "prompt_tokens": len(tokens[row.number]),
                        "generated_tokens": len(row.generated),
                        "stopped": row.stopped,
                    }
                    for row in done
                )
                bar.update(len(done))
    log.finish()
    return [log.done[key]["answer"] for key in keys]


def _checked(model: nn.Module, prompts: Sequence[str], batch_size: int | None) -> Any:
    """The causal model inside of `model`."""
    if isinstance(prompts, str):
        raise TypeError("`prompts` must be a sequence of texts, got one text: put it in a list")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    inner: Any = plain_model(model)
    if language_model_kind(inner) != "causal":
        raise ValueError(
            f"{type(inner).__name__} is no causal (decoder-only) language model: for an encoder-decoder use "
            "`generate_predictions`"
        )
    outer = unwrap_model(model)
    learned = isinstance(outer, PeftModel) and outer.active_peft_config.is_prompt_learning
    if learned or virtual_tokens_of(inner):
        raise ValueError("a model with a soft prompt is not answered with here: use `generate_predictions`")
    return inner


def _ends(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The end-of-sequence tokens: those of the model's generation config, and the tokenizer's."""
    found = getattr(model.generation_config, "eos_token_id", None)
    ids = found if isinstance(found, list) else [found]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


def _floating(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"`dtype` must be a floating-point type, such as 'bfloat16', or None; got {dtype!r}")
    return found


def _check_lengths(tokens: Sequence[Sequence[int]], max_new_tokens: int, window: int) -> None:
    empty = [place for place, ids in enumerate(tokens) if not ids]
    if empty:
        raise ValueError(f"prompt {empty[0]} has no token, and the tokenizer begins texts with none")
    room = window - max_new_tokens
    longer = [place for place, ids in enumerate(tokens) if len(ids) > room]
    if longer:
        longest = max(longer, key=lambda place: len(tokens[place]))
        raise ValueError(
            f"{len(longer)} of {len(tokens)} prompts are longer than {room} tokens, which a window of {window} leaves "
            f"beside {max_new_tokens} new ones; the longest, prompt {longest}, has {len(tokens[longest])}: leave "
            "passages out with `fit_passages`"
        )


def _common_start(tokens: Sequence[list[int]]) -> list[int]:
    """The tokens that all begin with and none ends with; none where they are too few to be worth a pass."""
    if len(tokens) < 2:
        return []
    first, last = min(tokens), max(tokens)  # all others lie between them
    most = min(map(len, tokens)) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return first[:shared] if shared >= _LEAST_SHARED else []
