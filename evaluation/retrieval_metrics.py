"""How well a search finds what it should: by the ids of gold passages, or by the answers that passages contain."""

import unicodedata
from collections.abc import Sequence

import numpy as np


_ARTICLES = frozenset({"a", "an", "the"})


def retrieval_metrics(
    found_ids: Sequence[Sequence[str]], gold_ids: Sequence[Sequence[str]], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """`hit@k`, `recall@k` and `mrr` of what was found, as means over queries.

    `hit@k` is 1 where a gold passage is among the first k, `recall@k` the share of the gold passages that is, and
    `mrr` 1 / rank of the first gold passage (Voorhees 1999), 0 where none was found: it looks as far as `found_ids`
    go.

    Args:
        found_ids: for each query the ids of passages, best first.
        gold_ids: for each query the ids of those that answer it, at least one; their order does not count.
        ks: from 1.

    Raises:
        ValueError: there are no queries, not as many gold lists, a query without gold passages, one passage found
            twice, or a k below 1.
        TypeError: the ids of a query are one text.

    >>> retrieval_metrics([["a", "b", "c"], ["d", "e", "f"]], [["b", "z"], ["d"]], ks=(1, 2))
    {'hit@1': 0.5, 'recall@1': 0.5, 'hit@2': 1.0, 'recall@2': 0.75, 'mrr': 0.75}
    """
    _check(found_ids, gold_ids, ks, "gold_ids", "gold passage")
    for number, found in enumerate(found_ids):
        if len(set(found)) < len(found):
            raise ValueError(f"query {number}: `found_ids` name a passage twice")
    relevant = [[one in gold for one in found] for found, gold in zip(found_ids, map(set, gold_ids), strict=True)]
    golds = np.array([len(set(gold)) for gold in gold_ids])
    scores = {}
    for k in ks:
        counts = np.array([sum(row[:k]) for row in relevant])
        scores[f"hit@{k}"] = float(np.mean(counts > 0))
        scores[f"recall@{k}"] = float(np.mean(counts / golds))
    return scores | {"mrr": _mean_reciprocal_rank(relevant)}


def answer_retrieval_metrics(
    found_texts: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """`answer_hit@k` and `answer_mrr`, for where the passages are not known that answer a query, but answers are.

    A passage counts as gold if it contains an answer: its words, next to each other, both normalised as SQuAD does
    (Rajpurkar et al. 2016: lower case, no punctuation, no articles), with the punctuation of any script. A passage
    that contains an answer by accident counts, too, so these scores are not below those by ids.

    Args:
        found_texts: for each query the texts of passages, best first.
        answers: for each query one answer or several, of which any will do.
        ks: from 1.

    Raises:
        ValueError: there are no queries, not as many lists of answers, a query without an answer, or a k below 1.
        TypeError: the texts or answers of a query are one text.

    >>> answer_retrieval_metrics([["Готово в 1912 г.", "Открыт «Титаник»."]], [["титаник"]], ks=(1, 2))
    {'answer_hit@1': 0.0, 'answer_hit@2': 1.0, 'answer_mrr': 0.5}
    """
    _check(found_texts, answers, ks, "answers", "answer")
    relevant = [
        [contains_answer(text, wanted) for text in found] for found, wanted in zip(found_texts, answers, strict=True)
    ]
    scores = {f"answer_hit@{k}": float(np.mean([any(row[:k]) for row in relevant])) for k in ks}
    return scores | {"answer_mrr": _mean_reciprocal_rank(relevant)}


def contains_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether `text` contains the words of one of `answers` next to each other, both normalised as SQuAD does.

    >>> contains_answer("It opened in 1910, at Lambeau Field.", ["10", "the Lambeau Field"])
    True
    >>> contains_answer("It opened in 1910.", ["10"])
    False
    """
    words = _words(text)
    for answer in map(_words, answers):
        bare = [word for word in answer if word not in _ARTICLES]
        # "The The" is a band: what is nothing but articles is looked for as it is.
        among = [word for word in words if word not in _ARTICLES] if bare else words
        if answer and f" {' '.join(bare or answer)} " in f" {' '.join(among)} ":
            return True
    return False


def _words(text: str) -> list[str]:
    composed = unicodedata.normalize("NFKC", text).lower()
    return "".join(letter for letter in composed if unicodedata.category(letter)[0] not in "PS").split()


def _mean_reciprocal_rank(relevant: Sequence[Sequence[bool]]) -> float:
    return float(np.mean([1 / (1 + row.index(True)) if any(row) else 0.0 for row in relevant]))


def _check(
    found: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], ks: Sequence[int], name: str, what: str
) -> None:
    if len(found) != len(gold) or not len(found):
        raise ValueError(
            f"there must be as many `{name}` as lists of what was found, and at least one; got {len(gold)} and "
            f"{len(found)}"
        )
    if not len(ks) or any(k < 1 for k in ks):
        raise ValueError(f"`ks` must be numbers from 1, got {list(ks)}")
    for number, lists in enumerate(zip(found, gold, strict=True)):
        if any(isinstance(one, str) for one in lists):
            raise TypeError(f"query {number}: what was found and `{name}` must be lists of texts, not one text")
        if not len(lists[1]):
            raise ValueError(f"query {number} has no {what}")
