"""The text that a causal model is to go on with, and its tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase


Message = Mapping[str, str]


def chat_prompts(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[str | Sequence[Message]], system: str | None = None
) -> list[str]:
    """A prompt for each item of `messages`: in the tokenizer's chat template, and where it has none, as plain text.

    A template that lets the model think before it answers (Qwen3) is asked for the answer alone. The texts hold the
    template's special tokens: `encode_prompts` and `generate_answers` do not put the first ones there again.

    Args:
        tokenizer: of the model.
        messages: each a question, or a dialogue of `{"role": …, "content": …}` whose last turn is the user's.
        system: what stands before every item that is a question.

    Raises:
        ValueError: a dialogue has no turns, or its last is not the user's.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> chat_prompts(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())), ["Who?"], system="Be brief.")
    ['Be brief.\\n\\nQuestion: Who?\\nAnswer:']
    """
    dialogues = []
    for number, item in enumerate(messages):
        first = [] if system is None else [{"role": "system", "content": system}]
        turns = [*first, {"role": "user", "content": item}] if isinstance(item, str) else [dict(turn) for turn in item]
        if not turns or turns[-1]["role"] != "user":
            raise ValueError(f"`messages` {number} must end with a turn of the user, which the model is to answer")
        dialogues.append(turns)
    if not tokenizer.chat_template:
        return ["".join(map(_plain_turn, turns)) for turns in dialogues]
    options: Any = {"add_generation_prompt": True, "tokenize": False, "enable_thinking": False}
    return [str(tokenizer.apply_chat_template(turns, **options)) for turns in dialogues]


def _plain_turn(turn: Message) -> str:
    forms = {"user": "Question: {}\nAnswer:", "assistant": " {}\n\n"}
    return forms.get(turn["role"], "{}\n\n").format(turn["content"])


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt, behind the special ones with which the tokenizer begins a text.

    Where a prompt begins with these itself, as chat templates do, they are not put there twice. What the tokenizer
    puts behind a text is left off: the model is to go on.
    """
    if not len(prompts):
        return []
    before = _special_before(tokenizer)
    own = tokenizer(list(prompts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return [ids if ids[: len(before)] == before else before + ids for ids in own]


def _special_before(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    some = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    starts = range(len(whole) - len(some) + 1)
    return whole[: next(start for start in starts if whole[start : start + len(some)] == some)]


class FittedPrompt(NamedTuple):
    """A prompt, and how many of its passages are in it and how many were dropped."""

    prompt: str
    kept: int
    dropped: int


def fit_passages(
    tokenizer: PreTrainedTokenizerBase, build: Callable[[Sequence[Any]], str], passages: Sequence[Any], room: int
) -> FittedPrompt:
    """The prompt that `build` makes of the most passages, from the first on, with which it has at most `room` tokens.

    Passages stay whole; the last ones, which a retriever holds for the least relevant, go first.

    Raises:
        ValueError: the prompt without any passage is longer than `room`.
    """
    tokens = 0
    for kept in range(len(passages), -1, -1):
        prompt = build(passages[:kept])
        tokens = len(encode_prompts(tokenizer, [prompt])[0])
        if tokens <= room:
            return FittedPrompt(prompt, kept, len(passages) - kept)
    raise ValueError(f"the prompt has {tokens} tokens without any passage; there is room for {room}")
