"""Prompts of questions: with no context, with the passages that hold the answer, with those that a retriever found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from tithe.models import Passage, chat_prompts, encode_prompts, fit_passages
from tithe.recipes.qa_data import Question


MODES = ("no_context", "oracle_context", "retriever_context")
NO_CONTEXT, ORACLE, RETRIEVER = MODES


@dataclass(frozen=True)
class Prompts:
    """The prompts of some questions, and how many passages were left out of how many of them for want of room."""

    texts: list[str]
    dropped: int
    shortened: int


@dataclass(frozen=True)
class PromptMaker:
    """Makes prompts of questions and passages.

    Args:
        tokenizer: of the model.
        instruction: what stands before all else, if anything.
        chat: whether to use the tokenizer's chat template; None: where it has one.
        room: tokens of a prompt, at most.
    """

    tokenizer: PreTrainedTokenizerBase
    instruction: str | None
    chat: bool | None
    room: int

    def make(self, question: str, passages: Sequence[Passage]) -> str:
        """The prompt of a question behind `passages`."""
        parts = [passage.searchable for passage in passages]
        if self._templated:
            body = "\n\n".join([*([self.instruction] if self.instruction else []), *parts, f"Question: {question}"])
            return chat_prompts(self.tokenizer, [body])[0]
        head = [self.instruction] if self.instruction else []
        return "\n".join([*head, *parts, f"Question: {question}", "Answer:"])

    def make_all(self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]) -> Prompts:
        """The prompts of all questions; passages that do not fit are left out whole, the last first.

        Raises:
            ValueError: a question does not fit without any passage.
        """
        fitted = []
        for question, given in zip(questions, passages, strict=True):
            try:
                fitted.append(fit_passages(self.tokenizer, partial(self.make, question.text), given, self.room))
            except ValueError as error:
                raise ValueError(f"question {question.text[:60]!r}: {error}; raise `max_prompt_length`") from error
        return Prompts(
            [one.prompt for one in fitted],
            dropped=sum(one.dropped for one in fitted),
            shortened=sum(one.dropped > 0 for one in fitted),
        )

    def row(self, prompt: str, answer: str) -> dict[str, Any]:
        """What a causal model is trained on: the prompt's tokens, which do not count, the answer's, and the end."""
        before = encode_prompts(self.tokenizer, [prompt])[0]
        after = self.tokenizer(self._joined(prompt, answer), add_special_tokens=False)["input_ids"]
        after = [*after, self.tokenizer.eos_token_id]
        ids = before + after
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(before) + after}

    @property
    def _templated(self) -> bool:
        return bool(self.tokenizer.chat_template) if self.chat is None else self.chat

    @staticmethod
    def _joined(prompt: str, answer: str) -> str:
        return answer if prompt[-1:].isspace() else f" {answer}"
