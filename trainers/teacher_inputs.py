"""The inputs of a teacher that does not read the student's tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase


_BATCH = 1000


class OwnInputs:
    """Every row as the teacher's tokenizer reads it, made once from the texts or words.

    Args:
        tokenizer: the teacher's.
        rows: its `input_ids` and the like, per row; in multiple choice a list of each, one for a choice.
        max_length: what the rows were cut to.
        positions: in token classification per row and student token the teacher's token for it, or -1.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[dict[str, Any]],
        max_length: int,
        positions: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self.tokenizer, self.rows, self.max_length, self.positions = tokenizer, rows, max_length, positions

    @classmethod
    def of_texts(
        cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
    ) -> "OwnInputs":
        """For sequence classification."""
        rows: list[dict[str, list[int]]] = []
        for start in range(0, len(texts), _BATCH):
            stop = start + _BATCH
            second = None if pairs is None else list(pairs[start:stop])
            rows += _split(tokenizer(list(texts[start:stop]), second, truncation=True, max_length=max_length))
        return cls(tokenizer, rows, max_length)

    @classmethod
    def of_choices(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        choices: Sequence[Sequence[str]],
        max_length: int,
    ) -> "OwnInputs":
        """For multiple choice: each row's text paired with each of its choices; a text too long is cut."""
        rows: list[dict[str, Any]] = []
        for text, those in zip(texts, choices, strict=True):
            paired = tokenizer([text] * len(those), list(those), truncation="only_first", max_length=max_length)
            rows.append(dict(paired))
        return cls(tokenizer, rows, max_length)

    @classmethod
    def of_words(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        words: Sequence[Sequence[str]],
        student_tokenizer: PreTrainedTokenizerBase,
        student_ids: Sequence[Sequence[int]],
        max_length: int,
    ) -> "OwnInputs":
        """For token classification: the j-th token of a word learns from the teacher's j-th of it, or its last.

        Raises:
            ValueError: a tokenizer is a slow one, `student_ids` are not what the student's makes of the words, or the
                teacher's cuts words off that the student reads.
        """
        for name, used in (("teacher", tokenizer), ("student", student_tokenizer)):
            if not used.is_fast:
                raise ValueError(
                    f"the {name}'s tokenizer must be a fast one: others do not say which word a token is of"
                )
        rows: list[dict[str, list[int]]] = []
        positions: list[NDArray[np.int64]] = []
        special = frozenset(student_tokenizer.all_special_ids)
        for start in range(0, len(words), _BATCH):
            part = [list(row) for row in words[start : start + _BATCH]]
            theirs = tokenizer(part, is_split_into_words=True, truncation=True, max_length=max_length)
            ours = student_tokenizer(part, is_split_into_words=True)
            rows += _split(theirs)
            for i in range(len(part)):
                ids = list(student_ids[start + i])
                positions.append(_positions(ours, theirs, i, ids, special, start + i, max_length))
        return cls(tokenizer, rows, max_length, positions)

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """The padded batch of these rows of the data set."""
        taken = [self.rows[i] for i in rows]
        if not isinstance(taken[0]["input_ids"][0], list):
            return dict(self.tokenizer.pad(taken, return_tensors="pt"))
        flat = [{k: v[n] for k, v in row.items()} for row in taken for n in range(len(row["input_ids"]))]
        padded = self.tokenizer.pad(flat, return_tensors="pt")
        return {name: values.unflatten(0, (len(taken), -1)) for name, values in padded.items()}

    def pick(self, logits: Tensor, rows: NDArray[np.int64], active: Tensor) -> Tensor:
        """Of the teacher's logits those that belong to the student's active items, (n, classes)."""
        if self.positions is None:
            return logits[active]
        chosen = []
        for place, row in enumerate(rows):
            tokens = active[place].nonzero().flatten().cpu().numpy()
            chosen.append(logits[place, torch.as_tensor(self.positions[row][tokens], device=logits.device)])
        return torch.cat(chosen)


def longest_input(tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """How many tokens a model takes: the tokenizer's limit, or where that is none, the model's positions."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 512
    return min(tokenizer.model_max_length, positions - 2)  # RoBERTa's first two positions are never used


def _split(encoded: BatchEncoding) -> list[dict[str, list[int]]]:
    return [{name: values[i] for name, values in encoded.items()} for i in range(len(encoded["input_ids"]))]


def _positions(
    ours: BatchEncoding, theirs: BatchEncoding, i: int, ids: list[int], special: frozenset[int], row: int, limit: int
) -> NDArray[np.int64]:
    """Per token of the student the teacher's, -1 for special tokens."""
    whole, word_ids = list(ours["input_ids"][i]), ours.word_ids(i)
    # The student's row may be cut: what is left must be the beginning of what its tokenizer makes of the words.
    if any(t not in special and (n >= len(whole) or t != whole[n]) for n, t in enumerate(ids)):
        raise ValueError(
            f"row {row}: `input_ids` are not what the student's tokenizer makes of its words: tokenise "
            "`is_split_into_words=True` with the `processing_class` that the trainer was given"
        )
    tokens_of: dict[int, list[int]] = {}
    for n, word in enumerate(theirs.word_ids(i)):
        if word is not None:
            tokens_of.setdefault(word, []).append(n)
    found, seen = np.full(len(ids), -1, dtype=np.int64), dict.fromkeys(tokens_of, 0)
    for n, token in enumerate(ids):
        word = word_ids[n] if n < len(whole) and token == whole[n] else None
        if word is None:
            continue
        if word not in tokens_of:
            raise ValueError(
                f"row {row}: the teacher's {limit} tokens end before word {word}, which the student reads: cut the "
                "student's rows shorter, or raise `teacher_max_length`"
            )
        found[n] = tokens_of[word][min(seen[word], len(tokens_of[word]) - 1)]
        seen[word] += 1
    return found
