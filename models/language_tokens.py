"""Texts and answers as token sequences, with the span of each that a language model is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from .language_models import Kind


Ids = NDArray[np.int32]

NONE = -1
"""In place of a sequence's number: there is no token with a context, so no likelihood."""

_TEXTS_AT_A_TIME = 4096
_EMPTY = np.empty(0, dtype=np.int32)


@dataclass
class Sequences:
    """Sequences to score, each one once: equal texts share a number, and so a score.

    `ids[i][first[i]:stop[i]]` are the tokens that count; what stands before (and, for a masked model, behind) is their
    context, `sources[i]` what a seq2seq model's encoder reads.
    """

    ids: list[Ids] = field(default_factory=list)
    sources: list[Ids] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    _numbers: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def add(self, ids: Ids, first: int, stop: int, source: Ids = _EMPTY) -> int:
        """The sequence's number."""
        if first >= stop:
            return NONE
        number = self._numbers.setdefault((ids.tobytes(), first, stop, source.tobytes()), len(self.ids))
        if number == len(self.ids):
            self.ids.append(ids)
            self.sources.append(source)
            self.first.append(first)
            self.stop.append(stop)
        return number


@dataclass(frozen=True)
class _Encoded:
    """The texts' own tokens, where each ends in its text, and the special tokens the tokenizer puts around them."""

    ids: list[Ids]
    ends: list[Ids]
    before: Ids
    after: Ids

    def around(self, ids: Ids) -> Ids:
        return np.concatenate([self.before, ids, self.after])

    def room(self, limit: int) -> int:
        room = limit - len(self.before) - len(self.after)
        if room < 2:
            raise ValueError(f"`max_length` {limit} leaves no room for two tokens beside the special ones")
        return room


class Tokens:
    """Makes `Sequences` for one kind of model.

    Args:
        kind: of the language model.
        tokenizer: its tokenizer.
        limit: the most tokens a sequence may have; of a seq2seq model's, source and target each.
        empty_source: what the encoder of a seq2seq model reads where the tokenizer makes nothing of an empty text.
    """

    def __init__(self, kind: Kind, tokenizer: PreTrainedTokenizerBase, limit: int, empty_source: int = 0) -> None:
        self.kind, self.tokenizer, self.limit = kind, tokenizer, limit
        self._empty_source = np.array([empty_source], dtype=np.int32)
        self.sequences = Sequences()

    def texts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Per text the number of the sequence in which all its tokens count."""
        encoded = self._encode(texts)
        room = encoded.room(self.limit)
        return np.array([self._whole(encoded, ids[:room]) for ids in encoded.ids], dtype=np.int64)

    def targets(self, sources: Sequence[str], answers: Sequence[str]) -> NDArray[np.int64]:
        """Per row the number of the seq2seq sequence in which the answer's tokens count, given the source."""
        source, target = self._encode(sources), self._encode(answers, target=True)
        room, target_room = source.room(self.limit), target.room(self.limit)
        numbers = np.empty(len(answers), dtype=np.int64)
        for i, (given, ids) in enumerate(zip(source.ids, target.ids, strict=True)):
            _refuse_empty(i, ids)
            read = source.around(given[:room])
            numbers[i] = self._whole(target, ids[:target_room], read if len(read) else self._empty_source)
        return numbers

    def answers(
        self, prompts: Sequence[str], answers: Sequence[str], separator: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per row the sequences in which the answer's tokens count: behind the prompt, and alone."""
        if self.kind == "seq2seq":
            return self.targets(prompts, answers), self.targets([""] * len(answers), answers)
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"`ifd` finds the answer by token offsets, which {type(self.tokenizer).__name__} does not give: use a "
                "fast tokenizer"
            )
        starts = [len(prompt) + len(separator) for prompt in prompts]
        joined = self._encode([p + separator + a for p, a in zip(prompts, answers, strict=True)])
        numbers = np.empty((2, len(answers)), dtype=np.int64)
        for i, (ids, ends, start) in enumerate(zip(joined.ids, joined.ends, starts, strict=True)):
            first = int((ends <= start).sum())
            _refuse_empty(i, ids[first:])
            numbers[:, i] = self._with_and_without(joined, ids[:first], ids[first:])
        return numbers[0], numbers[1]

    def _with_and_without(self, encoded: _Encoded, prompt: Ids, answer: Ids) -> tuple[int, int]:
        room = encoded.room(self.limit)
        answer = answer[: max(room - len(prompt), room // 2)]
        prompt = prompt[max(0, len(prompt) + len(answer) - room) :]
        # Both losses are over the same tokens: one that has no context without the prompt counts in neither.
        lone = self.kind == "causal" and not len(encoded.before) and len(answer) > 1
        start = len(encoded.before) + len(prompt)
        first, stop = start + lone, start + len(answer)
        ids = encoded.around(np.concatenate([prompt, answer]))
        return self.sequences.add(ids, max(first, self._earliest), stop), self._whole(encoded, answer)

    def _whole(self, encoded: _Encoded, ids: Ids, source: Ids = _EMPTY) -> int:
        start = len(encoded.before)
        return self.sequences.add(encoded.around(ids), max(start, self._earliest), start + len(ids), source)

    @property
    def _earliest(self) -> int:
        return 1 if self.kind == "causal" else 0

    def _encode(self, texts: Sequence[str], target: bool = False) -> _Encoded:
        ids: list[Ids] = []
        ends: list[Ids] = []
        before = after = _EMPTY
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            rows = self._tokenize(list(texts[start : start + _TEXTS_AT_A_TIME]), target)
            for i, (row, special) in enumerate(zip(rows["input_ids"], rows["special_tokens_mask"], strict=True)):
                tokens, own = np.array(row, dtype=np.int32), np.flatnonzero(np.equal(special, 0))
                left, right = (own[0], own[-1] + 1) if len(own) else (len(tokens), len(tokens))
                ids.append(tokens[left:right])
                if "offset_mapping" in rows:
                    ends.append(np.array([end for _, end in rows["offset_mapping"][i][left:right]], dtype=np.int32))
                if len(own) or not len(before):
                    before, after = tokens[:left], tokens[right:]
        if self.kind == "causal":
            bos = self.tokenizer.bos_token_id
            before, after = (_EMPTY if bos is None else np.array([bos], dtype=np.int32)), _EMPTY
        return _Encoded(ids, ends, before, after)

    def _tokenize(self, texts: list[str], target: bool) -> Any:
        return self.tokenizer(
            **{"text_target" if target else "text": texts},
            add_special_tokens=self.kind != "causal",
            return_special_tokens_mask=True,
            return_attention_mask=False,
            return_offsets_mapping=self.tokenizer.is_fast,
            verbose=False,
        )


def _refuse_empty(row: int, answer: Ids) -> None:
    if not len(answer):
        raise ValueError(f"the answer of row {row} has no token: leave rows without an answer out")
