"""Intervals of a test set's scores: around what the metrics give, and as wide as resampling rows makes them."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tithe.evaluation import (
    bootstrap_of_sums,
    classification_intervals,
    classification_metrics,
    entity_intervals,
    entity_metrics,
    generation_intervals,
    generation_metrics,
    language_intervals,
    wilson_interval,
)
from tithe.evaluation.generation_metrics import generation_scores


def test_sums_of_shares_have_the_intervals_of_the_binomial():
    rows = np.repeat([[1.0], [0.0]], [300, 100], axis=0)
    found = bootstrap_of_sums(rows, lambda sums: sums[:, 0] / 400, samples=20_000)
    width = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (found.mean, found.count) == (0.75, 400)
    assert (found.low, found.high) == pytest.approx((0.75 - width, 0.75 + width), abs=0.003)
    same = bootstrap_of_sums([[1.0], [0.0]], lambda s: s[:, 0] / 400, samples=20_000, repeats=[300, 100])
    assert (same.low, same.high) == pytest.approx((found.low, found.high), abs=0.003)


def test_resamples_without_a_score_are_left_out():
    found = bootstrap_of_sums([[1.0, 1.0], [0.0, 0.0]], lambda s: np.where(s[:, 1] > 0, 1.0, np.nan))
    assert (found.low, found.high) == (1.0, 1.0)
    assert np.isnan(bootstrap_of_sums([[1.0]], lambda s: s[:, 0]).low), "of one row"


@pytest.mark.parametrize("rows", [[], [1.0, 2.0], [[np.nan]], [[np.inf, 1.0]]])
def test_broken_rows_are_refused(rows):
    with pytest.raises(ValueError, match="`counts` must be finite numbers"):
        bootstrap_of_sums(rows, lambda sums: sums[:, 0])


@pytest.mark.parametrize("right, count", [(5, 4), (-1, 4), (0, 0)])
def test_wilson_refuses_impossible_shares(right, count):
    with pytest.raises(ValueError, match="`right` must be from 0 to `count`"):
        wilson_interval(right, count)


def test_wilson_stays_inside_where_all_or_none_are_right():
    assert wilson_interval(0, 10).low == 0 and wilson_interval(10, 10).high == pytest.approx(1)
    assert wilson_interval(0, 10).high == pytest.approx(1.959964**2 / (10 + 1.959964**2))


def test_macro_f1_is_resampled_as_scikit_learn_would_score_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet([1, 1, 1], 200) + 0.3 * np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    guesses = probabilities.argmax(axis=1)
    drawn = [rng.integers(0, 200, 200) for _ in range(1500)]
    scores = [f1_score(labels[rows], guesses[rows], average="macro") for rows in drawn]
    found, metrics = classification_intervals(probabilities, labels), classification_metrics(probabilities, labels)
    assert found["f1_macro"] == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.01)
    for name, (low, high) in found.items():
        assert low < metrics[name] < high


def test_a_class_that_no_row_has_does_not_count():
    found = classification_intervals([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]] * 10, [0, 1] * 10)
    assert found == {"accuracy": (1.0, 1.0), "f1_macro": (1.0, 1.0)}


def test_entity_scores_are_resampled_by_sentence():
    wanted = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "O"], ["O", "O", "O"]] * 20
    found = [["B-PER", "I-PER", "O"], ["O", "B-PER", "O"], ["B-LOC", "O", "O"]] * 20
    bounds, metrics = entity_intervals(found, wanted), entity_metrics(found, wanted)
    assert set(bounds) == {"f1", "precision", "recall", "accuracy"}
    for name, (low, high) in bounds.items():
        assert low < metrics[name] < high
    alike = entity_intervals(wanted, wanted)
    assert set(alike.values()) == {(1.0, 1.0)}


def test_perplexity_is_resampled_by_block():
    rng = np.random.default_rng(0)
    sums = np.stack([rng.normal(20, 2, 100), rng.integers(0, 11, 100), np.full(100, 10)], axis=1)
    low, high = language_intervals(sums)["perplexity"]
    mean, error = sums[:, 0].mean() / 10, sums[:, 0].std() / 10 / np.sqrt(100)
    assert (np.log(low), np.log(high)) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.01)


def test_counts_of_texts_add_up_to_the_corpus():
    texts = ["the cat sat on the mat", "a dog", "it rains in the north today"]
    references = ["the cat sat on a mat", ["a dog barks loudly", "one dog"], "it rains in the south today again"]
    metrics = generation_metrics(texts, references)
    by_text, counted = generation_scores(texts, references)
    for name, values in by_text.items():
        assert np.mean(values) == pytest.approx(metrics[name])
    sums = np.sum(counted, axis=0)
    precisions = np.log(sums[:4] / sums[4:8])
    penalty = min(0.0, 1 - sums[9] / sums[8])
    assert np.exp(precisions.mean() + penalty) == pytest.approx(metrics["bleu"])
    bounds = generation_intervals(texts * 10, references * 10)
    assert set(bounds) == set(metrics) - {"chrf"}
    for name, (low, high) in bounds.items():
        assert low < metrics[name] < high
