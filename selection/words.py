"""Words of a pool of texts as integers, so that measures of them are array operations."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np


_ASCII_WORD = re.compile(r"[a-z0-9]\w*(?:'\w+)*", re.ASCII)


class Words(NamedTuple):
    """The words of n documents, one after the other.

    - `types`: the v distinct words, in order of first appearance
    - `ids` int64[t]: for each of the t words its place in `types`
    - `lengths` int64[n]: how many words each document has
    """

    types: list[str]
    ids: np.ndarray
    lengths: np.ndarray

    def documents(self) -> np.ndarray:
        """For each word the document that it is in, int64[t]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def index_words(documents: Iterable[Sequence[str]]) -> Words:
    """Number the words of `documents`, each a sequence of words.

    >>> index_words([["to", "be", "or", "to"], []]).ids.tolist()
    [0, 1, 2, 0]
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    ids: list[int] = []
    lengths: list[int] = []
    for words in documents:
        ids.extend(map(numbers.__getitem__, words))
        lengths.append(len(words))
    return Words(list(numbers), np.array(ids, dtype=np.int64), np.array(lengths, dtype=np.int64))


def words_of(text: str) -> list[str]:
    """The words of `text` in any script, in lower case: letters, digits and their combining marks.

    An apostrophe inside a word belongs to it, a hyphen ends it. Scripts without spaces between words give one word
    per run of letters: split those beforehand.

    >>> words_of("Don't re-read «Войну и мир»!")
    ["don't", 're', 'read', 'войну', 'и', 'мир']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _word_pattern().findall(unicodedata.normalize("NFC", text).lower())


@cache
def _word_pattern() -> re.Pattern[str]:
    # Python's \w leaves out combining marks, which would split the words of Devanagari, Thai and others.
    marks = [point for point in range(0x300, 0x1F000) if unicodedata.category(chr(point)) in ("Mn", "Mc")]
    ends = [i for i in range(len(marks)) if i + 1 == len(marks) or marks[i + 1] != marks[i] + 1]
    starts = [0, *(end + 1 for end in ends[:-1])]
    ranges = "".join(f"{chr(marks[start])}-{chr(marks[end])}" for start, end in zip(starts, ends, strict=True))
    return re.compile(rf"[^\W_][\w{ranges}]*(?:['’][\w{ranges}]+)*")
