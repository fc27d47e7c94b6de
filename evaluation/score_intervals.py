"""95 % intervals of the scores of one test set, by bootstrap over its rows: what a model card puts beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .entities import TagRows, check_tag_rows, entity_spans
from .generation_metrics import Texts, generation_scores
from .intervals import Interval, bootstrap_interval, bootstrap_of_sums
from .metrics import check_scores


Bounds = dict[str, tuple[float, float]]
Sums = NDArray[np.float64]


def classification_intervals(probabilities: ArrayLike, labels: ArrayLike, seed: int = 0) -> Bounds:
    """Of `accuracy` and `f1_macro`, as `classification_metrics` has them, from the same arguments.

    >>> found = classification_intervals([[0.9, 0.1]] * 80 + [[0.1, 0.9]] * 20, [0] * 100)
    >>> [round(end, 2) for end in found["accuracy"]]
    [0.72, 0.88]
    """
    p, y = check_scores(probabilities, labels)
    classes, guesses = p.shape[1], p.argmax(axis=1)
    # of rows with the same label and prediction it is enough to know how many there are
    cells, repeats = np.unique(np.stack([y, guesses], axis=1), axis=0, return_counts=True)
    place = np.arange(len(cells))
    counts = np.zeros((len(cells), 3 * classes))
    counts[place, cells[:, 0]] += 1
    counts[place, classes + cells[:, 1]] += 1
    right = cells[:, 0] == cells[:, 1]
    counts[place[right], 2 * classes + cells[right, 0]] += 1

    def f1_macro(sums: Sums) -> Sums:
        labelled, predicted, hit = np.split(sums, 3, axis=1)
        present = labelled + predicted > 0
        f1 = 2 * hit / np.where(present, labelled + predicted, 1)
        return f1.sum(axis=1) / present.sum(axis=1)

    found = bootstrap_of_sums(counts, f1_macro, seed=seed, repeats=repeats)
    return {"accuracy": _ends(bootstrap_interval(guesses == y, seed=seed)), "f1_macro": _ends(found)}


def entity_intervals(predictions: TagRows, references: TagRows, seed: int = 0) -> Bounds:
    """Of `f1`, `precision`, `recall` and `accuracy`, as `entity_metrics` has them, over resampled sentences."""
    check_tag_rows(predictions, references)
    rows = []
    for tags, rights in zip(predictions, references, strict=True):
        found, wanted = set(entity_spans(tags)), set(entity_spans(rights))
        same = sum(tag == right for tag, right in zip(tags, rights, strict=True))
        rows.append((len(found & wanted), len(found), len(wanted), same, len(rights)))
    counts = np.array(rows, dtype=np.float64)
    parts = {
        "f1": lambda s: _ratio(2 * s[:, 0], s[:, 1] + s[:, 2]),
        "precision": lambda s: _ratio(s[:, 0], s[:, 1]),
        "recall": lambda s: _ratio(s[:, 0], s[:, 2]),
        "accuracy": lambda s: _ratio(s[:, 3], s[:, 4]),
    }
    return {name: _ends(bootstrap_of_sums(counts, score, seed=seed)) for name, score in parts.items()}


def language_intervals(sums: ArrayLike, seed: int = 0) -> Bounds:
    """Of `perplexity` and `token_accuracy`, over resampled blocks of text.

    Args:
        sums: (blocks, 3): summed negative log-likelihood, tokens guessed right, tokens scored.
    """
    parts = {
        "perplexity": lambda s: np.exp(s[:, 0] / s[:, 2]),
        "token_accuracy": lambda s: s[:, 1] / s[:, 2],
    }
    return {name: _ends(bootstrap_of_sums(sums, score, seed=seed)) for name, score in parts.items()}


def generation_intervals(
    predictions: Texts, references: Sequence[str | Sequence[str]], *, language: str = "en", seed: int = 0
) -> Bounds:
    """Of all of `generation_metrics` but `chrf`, from the same arguments."""
    from sacrebleu.metrics import BLEU

    by_text, counted = generation_scores(predictions, references, language=language)
    bleu = BLEU()

    def of_sums(sums: Sums) -> Sums:
        scores = (
            bleu.compute_bleu(
                correct=[int(n) for n in row[:4]],
                total=[int(n) for n in row[4:8]],
                sys_len=int(row[8]),
                ref_len=int(row[9]),
                smooth_method=bleu.smooth_method,
                max_ngram_order=bleu.max_ngram_order,
            ).score
            for row in sums
        )
        return np.array(list(scores)) / 100

    found = {name: _ends(bootstrap_interval(values, seed=seed)) for name, values in by_text.items()}
    return {"bleu": _ends(bootstrap_of_sums(counted, of_sums, seed=seed))} | found


def _ratio(above: Sums, below: Sums) -> Sums:
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
