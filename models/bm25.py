"""Passages by the words that they share with a query."""

import logging
import math
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .extras import import_extra, require_extra
from .index_folders import check_description, describe, whole_folder
from .retrieval import Hits, Passage, as_passages, check_search, top_rows


_WORD = re.compile(r"\w+")
_TOKENIZER = "NFKC, lower case, \\w+"  # goes into an index's settings
_CODES = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "tr": "turkish",
}


@dataclass
class BM25Retriever:
    """BM25 in Lucene's form (Kamphuis et al. 2020), by bm25s, over Snowball stems.

    score(q, d) = Σ over the words w of q of idf(w) · tf / (tf + k1 · (1 − b + b · |d| / mean |d|)),
    idf(w) = ln(1 + (n − df + ½) / (df + ½)). Words are runs of letters and digits of any script; a query's words are
    made in the way that the passages' were, which is saved with the index. A query with no word of any passage finds
    the first ones, with a score of 0.

    Args:
        language: English name or ISO 639-1 code of a language that Snowball stems; None leaves words as they are.
        stopwords: words to leave out: True for bm25s' list of the language (none where it has none), False for none.
        title_weight: as how many occurrences one in the title counts.
        k1: how slowly further occurrences of a word stop to count.
        b: from 0 to 1, how much long passages are held back.
        progress: whether to show progress bars while indexing.

    Raises:
        ImportError: bm25s or PyStemmer is missing.
        ValueError: an argument is none of those; when indexing, no passage has a word.
    """

    language: str | None = "english"
    stopwords: bool | Collection[str] = True
    title_weight: int = 3
    k1: float = 1.5
    b: float = 0.75
    progress: bool = True
    _bm25: Any = field(default=None, init=False, repr=False, compare=False)
    _words: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value, most in (("k1", self.k1, math.inf), ("b", self.b, 1)):
            if not 0 <= value <= most:
                raise ValueError(f"`{name}` must be from 0 to {most}, got {value}")
        if isinstance(self.title_weight, bool) or not isinstance(self.title_weight, int) or self.title_weight < 0:
            raise ValueError(f"`title_weight` must be a whole number from 0, got {self.title_weight!r}")
        require_extra("bm25s", "retrieval", type(self).__name__)  # before all passages are read
        self._words = _Words(self.language, self.stopwords)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "tokenizer": _TOKENIZER,
            "language": self._words.language,
            "stopwords": sorted(self._words.stopwords),
            "title_weight": self.title_weight,
            "k1": self.k1,
            "b": self.b,
        }

    @property
    def size_bytes(self) -> int:
        """Of the scores in the index, and of its vocabulary as text."""
        if self._bm25 is None:
            return 0
        arrays = sum(self._bm25.scores[name].nbytes for name in ("data", "indices", "indptr"))
        return arrays + sum(len(stem.encode()) for stem in self._bm25.vocab_dict)

    def index(self, passages: Sequence[Passage]) -> None:
        corpus = as_passages(passages)
        vocabulary: dict[str, int] = {}
        ids = [
            [vocabulary.setdefault(stem, len(vocabulary)) for stem in self._words.stems(self._text(passage))]
            for passage in tqdm(corpus, "Reading passages", disable=not self.progress)
        ]
        if not vocabulary:
            raise ValueError("no passage has a word that is not a stop word")
        bm25 = _bm25s().BM25(k1=self.k1, b=self.b, method="lucene")
        bm25.index((ids, vocabulary), create_empty_token=False, show_progress=self.progress)
        self._bm25 = bm25

    def search(self, queries: Sequence[str], k: int) -> Hits:
        k = check_search(queries, k, self._bm25 and self._bm25.scores["num_docs"])
        hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        for number, query in enumerate(queries):
            scores = self._scores(query)
            hits.rows[number] = top_rows(scores, k)
            hits.scores[number] = scores[hits.rows[number]]
        return hits

    def save(self, folder: str | Path) -> None:
        check_search([], 1, self._bm25 and 1)
        with whole_folder(folder) as unfinished:
            self._bm25.save(unfinished, show_progress=False)
            describe(unfinished, self, self._bm25.scores["num_docs"])

    def load(self, folder: str | Path) -> None:
        passages = check_description(folder, self)
        bm25 = _bm25s().BM25.load(folder, mmap=True, show_progress=False)
        # Plain arrays over the same mappings: slices of a memmap, one per word of a query, cost more than the sums.
        bm25.scores |= {name: np.asarray(bm25.scores[name]) for name in ("data", "indices", "indptr")}
        scores = bm25.scores
        entries = {len(scores["data"]), len(scores["indices"]), int(scores["indptr"][-1])}
        if len(entries) != 1 or scores["num_docs"] != passages or len(scores["indptr"]) != len(bm25.vocab_dict) + 1:
            raise ValueError(f"the files of the index in {folder} do not fit together: index the passages again")
        self._bm25 = bm25

    def _text(self, passage: Passage) -> str:
        return "\n".join([passage.title] * self.title_weight + [passage.text])

    def _scores(self, query: str) -> NDArray[np.float32]:
        vocabulary = self._bm25.vocab_dict
        known = [vocabulary[stem] for stem in self._words.stems(query) if stem in vocabulary]
        if not known:
            return np.zeros(self._bm25.scores["num_docs"], np.float32)
        return self._bm25.get_scores_from_ids(known)


class _Words:
    """Stems of a text: of passages and queries alike."""

    def __init__(self, language: str | None, stopwords: bool | Collection[str]) -> None:
        self.language = None if language is None else _CODES.get(language.lower(), language.lower())
        self._stemmer = None
        if self.language is not None:
            stemmer = import_extra("Stemmer", "retrieval", f"stemming {self.language}")
            if self.language not in stemmer.algorithms():
                known = ", ".join(stemmer.algorithms())
                raise ValueError(f"`language` must be None or one of {known}; got {language!r}")
            self._stemmer = stemmer.Stemmer(self.language)
        if isinstance(stopwords, str):
            raise TypeError(f"`stopwords` must be True, False or a list of words, got {stopwords!r}")
        if isinstance(stopwords, bool):
            stopwords = _stopwords(self.language) if stopwords else ()
        self.stopwords = frozenset(word for text in stopwords for word in _plain_words(text))
        self._known: dict[str, str | None] = {}

    def stems(self, text: str) -> Iterator[str]:
        known = self._known
        for word in _plain_words(text):
            if word not in known:
                known[word] = self._stem(word)
            if (stem := known[word]) is not None:
                yield stem

    def _stem(self, word: str) -> str | None:
        if word in self.stopwords:
            return None
        return word if self._stemmer is None else self._stemmer.stemWord(word)


def _plain_words(text: str) -> list[str]:
    # Composed, so that an accent is part of its letter: by itself it is no letter, and would end the word.
    return _WORD.findall((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower())


def _stopwords(language: str | None) -> Collection[str]:
    """bm25s' own list, under the name that it has there; empty where it has none."""
    name = {"english": "EN"}.get(language or "", (language or "").upper())
    return vars(_bm25s().stopwords).get(f"STOPWORDS_{name}", ())


def _bm25s() -> Any:
    module = import_extra("bm25s", "retrieval", "BM25Retriever")
    logging.getLogger("bm25s").setLevel(logging.NOTSET)  # it sets its own to DEBUG, whatever the program wants
    return module
