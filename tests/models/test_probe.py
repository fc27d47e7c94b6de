"""Linear probes against the formula they minimise, and scores that no row has a hand in itself."""

import numpy as np
import pytest

from tithe.models import LinearProbe, bagged_probabilities, out_of_fold_el2n, unit_rows


def clusters(n=90, classes=3, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.eye(classes, 5, dtype=np.float32)
    return (centres[labels] + spread * rng.standard_normal((n, 5))).astype(np.float32), labels


def gradient(rows, labels, classes, C):
    """Of C · Σ cross-entropy + ½‖W‖² at the fitted weights, which are found again from the probabilities."""
    probe = LinearProbe(classes, C=C, iterations=5000).fit(rows, labels)
    x = unit_rows(rows).astype(np.float64)
    errors = probe.probabilities(rows).astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    logits = np.log(probe.probabilities(np.concatenate([np.eye(5, dtype=np.float32), -np.eye(5, dtype=np.float32)])))
    weights = (logits[:5] - logits[5:]) / 2
    weights -= weights.mean(axis=1, keepdims=True)
    return C * x.T @ errors + weights, C * errors.sum(axis=0)


def test_the_fit_is_where_the_gradient_vanishes():
    rows, labels = clusters()
    for part in gradient(rows, labels, classes=3, C=2.0):
        np.testing.assert_allclose(part, 0, atol=2e-2)


@pytest.mark.parametrize("present", [[1], [0, 2], [0, 1, 3]])
def test_classes_without_a_row_get_no_probability(present):
    rows, labels = clusters(classes=len(present))
    probabilities = LinearProbe(4).fit(rows, np.array(present)[labels]).probabilities(rows)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities[:, np.setdiff1d(np.arange(4), present)] == 0).all()
    assert (probabilities.argmax(axis=1) == np.array(present)[labels]).mean() > 0.9


def test_only_the_direction_of_an_embedding_counts():
    rows, labels = clusters()
    scaled = rows * np.random.default_rng(0).uniform(0.1, 10, (len(rows), 1)).astype(np.float32)
    first, second = (LinearProbe(3).fit(x, labels).probabilities(x) for x in (rows, scaled))
    np.testing.assert_allclose(first, second, atol=2e-3)


def test_a_probe_without_rows_or_with_foreign_labels_is_refused():
    rows, labels = clusters()
    with pytest.raises(ValueError, match="at least one labelled row"):
        LinearProbe(3).fit(rows[:0], labels[:0])
    with pytest.raises(ValueError, match="labels must be from 0 to 1, got 0 to 2"):
        LinearProbe(2).fit(rows, labels)


def test_bags_differ_and_repeat():
    rows, labels = clusters()
    fitted = np.arange(0, 90, 2)
    first, again = (bagged_probabilities(rows, labels, fitted, 3, 4, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (4, 90, 3)
    np.testing.assert_array_equal(first, again)
    assert np.ptp(first, axis=0).max() > 1e-3


def test_bags_do_not_see_rows_that_are_not_given():
    rows, labels = clusters()
    fitted = np.arange(30)
    poisoned = labels.copy()
    poisoned[30:] = (poisoned[30:] + 1) % 3
    first, second = (bagged_probabilities(rows, y, fitted, 3, 2, np.random.default_rng(0)) for y in (labels, poisoned))
    np.testing.assert_array_equal(first, second)


def test_el2n_is_high_where_the_label_is_wrong():
    rows, labels = clusters(n=300, spread=0.1)
    noisy = labels.copy()
    wrong = np.arange(0, 300, 10)
    noisy[wrong] = (noisy[wrong] + 1) % 3
    scores = out_of_fold_el2n(rows, noisy, 3, 5, np.random.default_rng(0))
    assert set(np.argsort(-scores)[: len(wrong)].tolist()) == set(wrong.tolist())
    assert scores.min() >= 0 and scores.max() <= np.sqrt(2) + 1e-6


def test_el2n_of_a_row_does_not_profit_from_its_own_label():
    """Embeddings that say nothing: a probe that had seen its rows would be right on them, out of fold it cannot be."""
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((60, 200)).astype(np.float32), rng.integers(0, 2, 60)
    seen = LinearProbe(2).fit(rows, labels).probabilities(rows)[np.arange(60), labels]
    scores = out_of_fold_el2n(rows, labels, 2, 4, np.random.default_rng(0))
    assert np.sqrt(2) * (1 - seen).mean() < 0.3
    assert scores.mean() > 0.6


def test_a_single_row_has_a_score():
    row, label = np.ones((1, 4), dtype=np.float32), np.zeros(1, dtype=int)
    assert out_of_fold_el2n(row, label, 2, 3, np.random.default_rng(0)) == [0]
