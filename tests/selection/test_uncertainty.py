import numpy as np
import pytest

from tithe.selection import normalised_entropy


def test_entropy_by_hand():
    p = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.5, 0.25, 0.125, 0.125]])
    np.testing.assert_allclose(normalised_entropy(p), [1.0, 0.0, 0.5, 0.875])
    np.testing.assert_allclose(normalised_entropy(p.astype(np.float32)), [1.0, 0.0, 0.5, 0.875])


def test_a_single_class_is_certain():
    assert normalised_entropy(np.ones((3, 1))).tolist() == [0, 0, 0]


def test_rounded_probabilities_are_rescaled():
    p = np.array([[0.5, 0.5], [0.51, 0.51]])
    np.testing.assert_allclose(normalised_entropy(p), [1.0, 1.0], rtol=1e-12)


def test_many_rows_are_read_in_blocks():
    p = np.random.default_rng(0).dirichlet(np.ones(2), 40_000)
    np.testing.assert_allclose(normalised_entropy(p), -(p * np.log(p)).sum(axis=1) / np.log(2), rtol=1e-9)


@pytest.mark.parametrize("bad", [[2.0, -1.0], [0.1, 0.2]])
def test_logits_are_refused(bad):
    with pytest.raises(ValueError, match="row at position 1 is not so. Apply a softmax"):
        normalised_entropy(np.array([[0.5, 0.5], bad]))
