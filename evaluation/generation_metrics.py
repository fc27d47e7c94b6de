"""Scores of generated texts against references: BLEU, chrF, ROUGE and METEOR, in any language that Snowball stems."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np


GENERATION_METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "meteor")
LANGUAGES: Mapping[str, str] = {
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
}
_WORD = re.compile(r"\w+")  # of any script: rouge_score's own tokenizer keeps ASCII and drops the rest

Texts = Sequence[str]


def generation_metrics(
    predictions: Texts, references: Sequence[str | Sequence[str]], *, language: str = "en"
) -> dict[str, float]:
    """How near generated texts are to references, by six measures from 0 to 1.

    - `bleu`: of the corpus (Papineni et al. 2002), and `chrf` (Popović 2015), both by sacrebleu; `metric_signatures`
      says with which settings.
    - `rouge1`, `rouge2`, `rougeL`: F₁ of words, of pairs of words, and of the longest common subsequence (Lin 2004),
      the mean over texts; words are runs of letters and digits of any script, in lower case, not stemmed.
    - `meteor`: matches by word, by Snowball stem in `language` and, in English where NLTK has WordNet, by synonym
      (Banerjee & Lavie 2005, with α 0.9, β 3, γ 0.5), the mean over texts, by NLTK, which looks for synonyms of stems.

    Args:
        predictions: one text each.
        references: for each prediction a text or several, of which the best counts (for BLEU and chrF: all).
        language: ISO 639-1 code or English name, one of `LANGUAGES`.

    Raises:
        ValueError: there are no predictions, not as many references, or the language is unknown.

    >>> scores = generation_metrics(["кошка спит на диване"], ["кошка спит на диване"], language="ru")
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'bleu': 1.0, 'chrf': 1.0, 'rouge1': 1.0, 'rouge2': 1.0, 'rougeL': 1.0, 'meteor': 0.992}
    """
    name, several = _language(language), _several(predictions, references)
    streams = _streams(several)
    scores = {metric: _sacrebleu(metric).corpus_score(predictions, streams).score / 100 for metric in ("bleu", "chrf")}
    scores |= {metric: float(np.mean(values)) for metric, values in _by_text(predictions, several, name).items()}
    return scores


def generation_scores(
    predictions: Texts, references: Sequence[str | Sequence[str]], *, language: str = "en"
) -> tuple[dict[str, list[float]], list[list[int]]]:
    """What each text adds to `generation_metrics`, from the same arguments.

    Returns:
        Of those that are means over texts the scores of each text; and of BLEU the counts of each, whose sums are
        those of the corpus: n-grams found and n-grams there are, for n from 1 to 4, its length and its reference's.
    """
    from sacrebleu.metrics import BLEU

    name, several = _language(language), _several(predictions, references)
    scorer = BLEU(effective_order=True)  # without a word on single sentences; the counts are the same
    counted = []
    for text, given in zip(predictions, several, strict=True):
        found = scorer.sentence_score(text, list(given))
        counted.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return _by_text(predictions, several, name), counted


def _by_text(predictions: Texts, references: Sequence[Texts], language: str) -> dict[str, list[float]]:
    scores = _rouge(predictions, references)
    scores["meteor"] = [_meteor(text, given, language) for text, given in zip(predictions, references, strict=True)]
    return scores


def _several(predictions: Texts, references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """The references of each prediction, of which there is at least one."""
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(
            f"there must be as many `references` as `predictions`, and at least one; got {len(references)} and "
            f"{len(predictions)}"
        )
    several = [[given] if isinstance(given, str) else list(given) for given in references]
    if not all(several):
        raise ValueError(f"prediction {next(i for i, given in enumerate(several) if not given)} has no reference")
    return several


def metric_signatures(references: Sequence[str | Sequence[str]] = ("",)) -> dict[str, str]:
    """With which settings sacrebleu computes `bleu` and `chrf`, as it puts it: what a published score must name.

    Args:
        references: those of the scores, as `generation_metrics` takes them: how many there are is in the signature.
    """
    several = [[given] if isinstance(given, str) else list(given) for given in references]
    found = {}
    for metric in ("bleu", "chrf"):
        scorer = _sacrebleu(metric)
        scorer.corpus_score([""] * len(several), _streams(several))  # it counts the references only then
        found[metric] = str(scorer.get_signature())
    return found


def _streams(several: Sequence[Texts]) -> list[list[str | None]]:
    """sacrebleu's order: the first reference of each prediction, then the second, None where there is none."""
    return [[given[n] if n < len(given) else None for given in several] for n in range(max(map(len, several)))]


def _language(language: str) -> str:
    name = LANGUAGES.get(language.lower(), language.lower())
    if name not in LANGUAGES.values():
        known = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
        raise ValueError(f"`language` must be one of {known}; got {language!r}")
    return name


def _sacrebleu(metric: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU() if metric == "bleu" else CHRF()


def words(text: str) -> list[str]:
    """The words of `text`, in lower case: runs of letters and digits of any script."""
    return _WORD.findall(text.lower())


class _Words:
    """What rouge_score takes for a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _rouge(predictions: Texts, references: Sequence[Texts]) -> dict[str, list[float]]:
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(names), tokenizer=_Words())
    found: dict[str, list[float]] = {name: [] for name in names}
    for text, given in zip(predictions, references, strict=True):
        scored = [scorer.score(reference, text) for reference in given]
        for name in names:
            found[name].append(max(score[name].fmeasure for score in scored))
    return found


def _meteor(text: str, references: Texts, language: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    stemmer, synonyms = _stemmer(language), _synonyms(language)
    return max(
        single_meteor_score(words(reference), words(text), stemmer=stemmer, wordnet=synonyms)
        for reference in references
    )


@cache
def _stemmer(language: str) -> Any:
    from nltk.stem.snowball import SnowballStemmer

    return SnowballStemmer(language)


class _NoSynonyms:
    def synsets(self, word: str) -> list[Any]:
        return []


@cache
def _synonyms(language: str) -> Any:
    """WordNet where it is installed and of the language, else nothing."""
    if language != "english":
        return _NoSynonyms()
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return _NoSynonyms()
    return wordnet
