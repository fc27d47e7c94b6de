"""Scores of short answers against accepted ones: token recall, exact match, F₁, and how often an answer declines."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .refusals import is_refusal


ANSWER_METRICS = ("token_recall", "exact_match", "f1", "precision", "answer_in_text", "refusal")
_ARTICLE = re.compile(r"\b(a|an|the)\b")

Answers = Sequence[str | Sequence[str]]


def answer_metrics(predictions: Sequence[str], answers: Answers) -> dict[str, float]:
    """The means of `answer_scores` over the rows, by the names in `ANSWER_METRICS`. Arguments and errors as there.

    >>> answer_metrics(["It is in Paris.", "I don't know"], [["Paris", "Paris, France"], "Rome"])
    {'token_recall': 0.5, 'exact_match': 0.0, 'f1': 0.2, 'precision': 0.125, 'answer_in_text': 0.5, 'refusal': 0.5}
    """
    return {name: float(scores.mean()) for name, scores in answer_scores(predictions, answers).items()}


def answer_scores(predictions: Sequence[str], answers: Answers) -> dict[str, NDArray[np.float64]]:
    """How well each of n predictions answers, by six measures from 0 to 1, an array [n] each.

    Tokens are the words of `normalize_answer`, counted as often as they occur. Of several accepted answers (golds)
    the best counts, for each measure on its own.

    - `token_recall`: share of the gold's tokens that the prediction has; an empty gold scores 1 (InstructQA,
      arXiv:2307.16877). Long predictions are not punished: it suits models that answer in sentences.
    - `precision`: share of the prediction's tokens that the gold has.
    - `f1`: their harmonic mean (SQuAD, arXiv:1606.05250), for the gold where it is greatest.
    - `exact_match`: the two are equal, normalised.
    - `answer_in_text`: the gold's tokens occur in the prediction, whole and in a row.
    - `refusal`: the prediction declines, as `is_refusal` has it, whatever the golds. Here less is better.

    Where a gold is empty after normalisation ("The The"), `f1`, `precision` and `answer_in_text` are, like
    `exact_match`, 1 if the prediction is empty too, else 0 (InstructQA's precision is 0 for both).

    Args:
        predictions: one text each.
        answers: for each prediction the accepted answers, or the only one.

    Raises:
        ValueError: there are no predictions, not as many answers, or a row without any.
        TypeError: something that should be a text is not.

    >>> scores = answer_scores(["Лев Толстой", "Толстой, Толстой!"], ["Лев Николаевич Толстой", "«Толстой»"])
    >>> scores["token_recall"].round(3).tolist(), scores["precision"].tolist()
    ([0.667, 1.0], [1.0, 0.5])
    """
    golds = accepted_answers(predictions, answers)
    rows = []
    for prediction, accepted in zip(predictions, golds, strict=True):
        text = normalize_answer(prediction)
        pairs = [_pair_scores(text, normalize_answer(gold)) for gold in accepted]
        rows.append([*(max(values) for values in zip(*pairs, strict=True)), float(is_refusal(prediction))])
    columns = np.array(rows, dtype=np.float64).T
    return {name: column.copy() for name, column in zip(ANSWER_METRICS, columns, strict=True)}


def normalize_answer(text: str) -> str:
    """`text` in lower case without punctuation, without a, an and the, its words one space apart.

    For ASCII that is SQuAD's normalisation to the letter. Beyond ASCII SQuAD's only lowers the case; here punctuation
    and symbols go too (all of Unicode's categories P and S, of which SQuAD's 32 characters are the ASCII ones: « » “ ”
    — … € °), as do characters that nobody sees (Cf: soft hyphen, zero-width space), and letters are composed (NFC),
    so that "й" in two code points equals "й" in one. Accents stay, and ё is not е.

    >>> normalize_answer("«Преступление и наказание» — роман…"), normalize_answer("The U.S.A.")
    ('преступление и наказание роман', 'usa')
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return " ".join(_ARTICLE.sub(" ", composed.translate(_DROPPED)).split())


class _Dropped(dict[int, int | None]):
    """What `str.translate` looks up, found character by character: the table of all of Unicode takes a while."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        self[code] = None if category[0] in "PS" or category == "Cf" else code
        return self[code]


_DROPPED = _Dropped()


def _pair_scores(text: str, gold: str) -> tuple[float, float, float, float, float]:
    """All of `ANSWER_METRICS` but the last, of a prediction and one gold, both normalised."""
    exact = float(text == gold)
    if not gold:
        return 1.0, exact, exact, exact, exact
    if not text:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    ours, golds = text.split(), gold.split()
    common = (Counter(ours) & Counter(golds)).total()
    return (
        common / len(golds),
        exact,
        2 * common / (len(ours) + len(golds)),
        common / len(ours),
        float(f" {gold} " in f" {text} "),
    )


def accepted_answers(predictions: Sequence[str], answers: Answers) -> list[list[str]]:
    """The golds of each prediction as a list, checked; raises what `answer_scores` says."""
    if isinstance(predictions, str) or isinstance(answers, str):
        raise TypeError("`predictions` and `answers` must have one item a row, got a text; put it into a list")
    if len(predictions) != len(answers) or not len(predictions):
        raise ValueError(
            f"there must be as many `answers` as `predictions`, and at least one; got {len(answers)} and "
            f"{len(predictions)}"
        )
    golds = [[given] if isinstance(given, str) else given for given in answers]
    for row, (prediction, accepted) in enumerate(zip(predictions, golds, strict=True)):
        if not isinstance(prediction, str):
            raise TypeError(f"prediction {row} must be a text, got {prediction!r}")
        if isinstance(accepted, Mapping) or not isinstance(accepted, Collection):
            raise TypeError(f"the answers to row {row} must be a text or a list of texts, got {accepted!r}")
        if not len(accepted):
            raise ValueError(f"prediction {row} has no accepted answer; leave out rows that have none")
        for gold in accepted:
            if not isinstance(gold, str):
                raise TypeError(f"an answer to row {row} must be a text, got {gold!r}")
    return [list(accepted) for accepted in golds]
