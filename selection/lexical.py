"""Lexical diversity of every document of a pool at once: TTR, MTLD and HD-D."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .words import Words, index_words, words_of


class Diversity(NamedTuple):
    """Three measures per document, float64[n] each; on all of them high is diverse."""

    ttr: np.ndarray
    mtld: np.ndarray
    hdd: np.ndarray


def lexical_diversity(
    documents: Sequence[str] | Sequence[Sequence[str]], threshold: float = 0.72, draws: int = 42
) -> Diversity:
    """How varied the words of each document are, by three measures that need no dictionary.

    - `ttr`: types / words. It falls with length: compare only documents of about the same.
    - `mtld` (McCarthy and Jarvis 2010): the mean length of a stretch that holds a TTR above `threshold`. A stretch
      ends where its TTR is at or below it; the last one counts as the part (1 − TTR) / (1 − threshold). The mean of
      reading forwards and backwards. Without any repetition it is the number of words.
    - `hdd` (McCarthy and Jarvis 2007): the expected TTR of `draws` words drawn without replacement, which is
      Σ over types of (1 − P(not drawn)) / draws with P hypergeometric. Undefined, NaN, under `draws` words.

    All three are NaN for a document without words. Values are those of lexicalrichness on the same words, to 1e-9
    (where it raises an error, NaN).

    Args:
        documents: n texts, split by `words_of`; or n sequences of words, taken as they are.
        threshold: of MTLD, above 0 and below 1; 0.66 to 0.75 are usual.
        draws: of HD-D, at least 1.

    Raises:
        ValueError: `threshold` or `draws` is out of range.

    >>> ttr, mtld, hdd = lexical_diversity(["to be or not to be", "a b c d", ""], draws=4)
    >>> ttr.round(3).tolist(), mtld.round(3).tolist(), hdd.round(3).tolist()
    ([0.667, 1.0, nan], [6.0, 4.0, nan], [0.8, 1.0, nan])
    """
    if not 0 < threshold < 1:
        raise ValueError(f"`threshold` must be above 0 and below 1, got {threshold}.")
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1, got {draws}.")
    words = index_words(words_of(d) if isinstance(d, str) else d for d in documents)
    documents_of = words.documents()
    # Stable, so that the places of one word in one document follow each other in reading order.
    order = np.argsort(documents_of * max(1, len(words.types)) + words.ids, kind="stable")
    same = (documents_of[order[1:]] == documents_of[order[:-1]]) & (words.ids[order[1:]] == words.ids[order[:-1]])
    before = np.full(len(order), -1)
    before[order[1:][same]] = order[:-1][same]
    after = np.full(len(order), len(order))
    after[order[:-1][same]] = order[1:][same]
    first = np.flatnonzero(np.concatenate([[True], ~same])[: len(order)])
    counts, owners = np.diff(first, append=len(order)), documents_of[order[first]]
    forwards = _factors(words.lengths, before, threshold)
    backwards = _factors(words.lengths[::-1], len(order) - 1 - after[::-1], threshold)[::-1]
    lengths = np.where(words.lengths > 0, words.lengths, np.nan)
    return Diversity(
        ttr=np.bincount(owners, minlength=len(lengths)) / lengths,
        mtld=(lengths / forwards + lengths / backwards) / 2,
        hdd=_hypergeometric_ttr(words, counts, owners, draws),
    )


def _factors(lengths: np.ndarray, before: np.ndarray, threshold: float) -> np.ndarray:
    """In how many stretches each document falls, float64[n]; one that repeats nothing counts as 1.

    `before`: for each word the place of the same word before it in its document, negative if there is none. All
    documents are read side by side, the longest first, so that those with a word at a position are a prefix.
    """
    longest_first = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[longest_first]
    ends = starts + lengths[longest_first]
    active = np.searchsorted(-lengths[longest_first], -np.arange(lengths.max(initial=0)), side="left")
    types = np.zeros(len(lengths))
    full = np.zeros(len(lengths))
    begins = starts.copy()
    for position, many in enumerate(active.tolist()):
        place = starts[:many] + position
        types[:many] += before[place] < begins[:many]
        over = np.flatnonzero(types[:many] / (place + 1 - begins[:many]) <= threshold)
        full[over] += 1
        begins[over] = place[over] + 1
        types[over] = 0
    left = ends - begins
    full += np.where(left > 0, (1 - types / np.maximum(left, 1)) / (1 - threshold), 0)
    factors = np.empty(len(lengths))
    factors[longest_first] = np.where(full == 0, 1, full)
    return factors


def _hypergeometric_ttr(words: Words, counts: np.ndarray, owners: np.ndarray, draws: int) -> np.ndarray:
    """HD-D from how often each (document, word) occurs; `owners` are their documents."""
    # Added up in the order of counts, not of words, so that the last bit does not depend on the other documents.
    by_count = np.lexsort((counts, owners))
    counts, owners = counts[by_count], owners[by_count]
    longest = int(words.lengths.max(initial=0))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, longest + 1)))])
    totals = words.lengths[owners]
    possible = totals - counts >= draws
    others, total = (totals - counts)[possible], totals[possible]
    missed = np.zeros(len(counts))
    missed[possible] = np.exp(
        log_factorial[others] - log_factorial[others - draws] - log_factorial[total] + log_factorial[total - draws]
    )
    hdd = np.bincount(owners, weights=(1 - missed) / draws, minlength=len(words.lengths))
    return np.where(words.lengths >= draws, hdd, np.nan)
