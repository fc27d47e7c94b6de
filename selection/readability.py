"""How easy texts are to read, for a whole pool at a time and in any script that puts spaces between words."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from .words import index_words


FORMULAS = ("flesch_reading_ease", "flesch_kincaid_grade", "script_neutral")

# What textstat strips from a word: all but letters, digits and the apostrophe of a contraction.
_NOISE = re.compile(r"[^\w\s'.!?。！？।؟]|'(?![tsd]|ve|ll|re)")
_ENDS = re.compile(r"[.!?。！？।؟]+")
_SHORTEST_SENTENCE = 3
_LONG_WORD = 7

_VOWELS = re.compile(r"[aeiouyœæø]+|[αεηιουω]+|[аеёиоуыэюяіїєѣ]")
# The e of "make", "makes", "baked", "likely", and not that of "table", "tables", "boxes", "wanted".
_SILENT = re.compile(
    r"(?<=[^aeiouy])(?<![^aeiouyl]l)e(?:$|(?='s)|(?=(?:ly|ful|less|ment|ments|ness)$))|(?<=^som)e(?=[^s])"
    r"|(?<=[^aeiouysxzcg])(?<![cs]h)(?<![^aeiouyl]l)e(?=s$)|(?<=[^aeiouytd])(?<![^aeiouyl]l)e(?=d$)"
)
# Two vowels that are spoken apart, and the syllable without a vowel of "prism" and "isn't".
_EXTRA = re.compile(
    r"(?<![cstgx])i(?=a|o(?!n$|ns$)|u)|i(?=ers?$|est$|et$|ence|ent|ety)|(?<=[aeo])i(?=ngs?$)"
    r"|(?<=[dhr])e(?=as?$|o)|(?<=[^qg])u(?=a|el|ou)|y(?=i)|(?<=th)e(?=ism)|sm(?=s?$)|(?<=[^aeiouyr])n't$"
)
# Letters that mean something else without their mark: two are no vowels, é is never silent, the rest begin a syllable.
_SPOKEN = str.maketrans({"й": "j", "ў": "w", "é": "a", "ï": "-i", "ë": "-e"})


def readability(
    texts: Sequence[str],
    formula: str = "flesch_reading_ease",
    syllables: Callable[[str], int] | None = None,
) -> np.ndarray:
    """How easy or hard each text is to read: float64[n], NaN for a text without words.

    With w words, s sentences, y syllables, and l words of more than 6 letters:

    - "flesch_reading_ease": 206.835 − 1.015 · w/s − 84.6 · y/w. **High is easy** (Flesch 1948). English.
    - "flesch_kincaid_grade": 0.39 · w/s + 11.8 · y/w − 15.59, a school grade. **Low is easy** (Kincaid and others
      1975). English.
    - "script_neutral": LIX, w/s + 100 · l/w. **Low is easy** (Björnsson 1968, who compared eleven languages with it
      in 1983). It needs no syllables: take it for other languages and for pools of several.

    Words, sentences and the formulas are textstat's: a hyphen joins, and a sentence of one or two words does not
    count. So are the values, to rounding, with its counter of syllables: `syllables=textstat.syllable_count`.
    That reads a dictionary of pronunciations under a licence of its own, and downloads it at first use, which is
    why it is not the default.

    Args:
        texts: n strings. Sentences end with . ! ? or with 。！？।؟
        formula: one of the three above.
        syllables: the number of syllables of a word in lower case, called once per distinct word; by default
            `syllables_of`.

    Raises:
        ValueError: there is no such formula.

    >>> readability(["The cat sat on the mat.", "..."]).round(3).tolist()
    [116.145, nan]
    """
    if formula not in FORMULAS:
        raise ValueError(f"`formula` must be one of {', '.join(map(repr, FORMULAS))}, got {formula!r}.")
    sentences: list[int] = []
    words = index_words(_words_and_sentences(texts, sentences))
    count: Callable[[str], int] = (syllables or syllables_of) if formula != "script_neutral" else _is_long
    per_type = np.fromiter(map(count, words.types), dtype=np.float64, count=len(words.types))
    counted = np.bincount(words.documents(), weights=per_type[words.ids], minlength=len(words.lengths))
    length = np.where(words.lengths > 0, words.lengths, np.nan)
    per_sentence, per_word = length / np.array(sentences, dtype=np.float64), counted / length
    if formula == "flesch_reading_ease":
        return 206.835 - 1.015 * per_sentence - 84.6 * per_word
    if formula == "flesch_kincaid_grade":
        return 0.39 * per_sentence + 11.8 * per_word - 15.59
    return per_sentence + 100 * per_word


@lru_cache(maxsize=1 << 18)
def syllables_of(word: str) -> int:
    """Syllables of a word in lower case, by rule; at least 1.

    Latin and Greek letters: groups of vowels, less the silent e of English, plus vowels that it speaks apart; right
    for 98 of 100 running words of film reviews, by the CMU dictionary. Cyrillic: every vowel is a syllable. Other
    scripts have one syllable per word here: use the script-neutral formula.

    >>> [syllables_of(word) for word in ("readable", "saved", "молоко")]
    [3, 1, 3]
    """
    if not word.isascii():
        decomposed = unicodedata.normalize("NFD", word.translate(_SPOKEN))
        word = "".join(c for c in decomposed if not unicodedata.combining(c))
    count = len(_VOWELS.findall(word)) + len(_EXTRA.findall(word)) - len(_SILENT.findall(word))
    return max(1, count)


def _is_long(word: str) -> bool:
    return len(word.replace("'", "")) >= _LONG_WORD


def _words_and_sentences(texts: Sequence[str], sentences: list[int]) -> Iterator[list[str]]:
    """Yield the words of each text; its number of sentences goes to the end of `sentences`."""
    for text in texts:
        clean = _NOISE.sub("", text if text.isascii() else unicodedata.normalize("NFC", text))
        parts = _ENDS.split(clean)
        sentences.append(max(1, sum(len(part.split()) >= _SHORTEST_SENTENCE for part in parts)))
        yield "".join(parts).lower().split()
