import numpy as np
import pytest

from tithe.selection import (
    bald,
    consensus_entropy,
    least_confidence,
    margin,
    mean_kl_to_consensus,
    normalised_entropy,
    vote_entropy,
)


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


LOG2 = np.log(2)
# Two passes (or members) over four rows: sure and alike, both torn, sure and at odds, one torn and one sure.
TWO = np.array([[[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]])
MIXED = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))


def test_least_confidence_and_margin_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(least_confidence(p), [0.5, 0.6, 0.0], atol=1e-15)
    np.testing.assert_allclose(margin(p), [0.2, 0.0, 1.0], atol=1e-15)
    assert margin(np.ones((2, 1))).tolist() == [1, 1]


def test_bald_by_hand():
    np.testing.assert_allclose(bald(TWO), [0, 0, LOG2, MIXED - LOG2 / 2], atol=1e-12)


def test_committee_disagreement_by_hand():
    np.testing.assert_allclose(vote_entropy(TWO), [0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(consensus_entropy(TWO), [0, 1, 1, MIXED / LOG2], atol=1e-12)
    # Of the last row: KL((1/2, 1/2) ‖ (3/4, 1/4)) and KL((1, 0) ‖ (3/4, 1/4)).
    kl = (0.5 * np.log(2 / 3) + 0.5 * np.log(2) + np.log(4 / 3)) / 2
    np.testing.assert_allclose(mean_kl_to_consensus(TWO), [0, 0, LOG2, kl], atol=1e-12)


def test_votes_are_counted_per_class():
    votes = np.array([0, 0, 1, 2])
    committee = np.eye(4)[votes][:, None] * 0.6 + 0.1
    expected = -(0.5 * np.log(0.5) + 2 * 0.25 * np.log(0.25)) / np.log(4)
    np.testing.assert_allclose(vote_entropy(committee), [expected])


def test_information_about_the_model_is_the_mean_kl_to_the_consensus():
    committee = np.random.default_rng(0).dirichlet(np.full(5, 0.3), (7, 200))
    np.testing.assert_allclose(bald(committee), mean_kl_to_consensus(committee), atol=1e-12)


@pytest.mark.parametrize("of", [bald, vote_entropy, consensus_entropy, mean_kl_to_consensus])
def test_three_axes_are_read_in_blocks_from_disk(of, tmp_path, monkeypatch):
    committee = np.random.default_rng(0).dirichlet(np.ones(3), (4, 500)).astype(np.float32)
    whole = of(committee)
    np.save(tmp_path / "committee.npy", committee)
    monkeypatch.setattr("tithe.selection.uncertainty._BLOCK_ELEMENTS", 100)
    np.testing.assert_array_equal(of(np.load(tmp_path / "committee.npy", mmap_mode="r")), whole)


@pytest.mark.parametrize("of", [bald, vote_entropy, consensus_entropy, mean_kl_to_consensus])
def test_a_committee_of_logits_is_refused_by_row(of):
    committee = np.full((3, 5, 2), 0.5)
    committee[2, 4] = [2.0, -1.0]
    with pytest.raises(ValueError, match="_probabilities` must be at least 0.* row at position 4 is not so"):
        of(committee)
