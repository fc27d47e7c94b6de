"""What each acquisition function is for: the row that it should pick is known."""

from itertools import permutations

import numpy as np
import pytest

from tithe.selection import KCenter, Pool, get_strategy


RNG = np.random.default_rng(0)
# Sure; torn between two of three classes; spread over all three.
SURE, TORN, SPREAD = [0.96, 0.02, 0.02], [0.49, 0.48, 0.03], [0.4, 0.3, 0.3]


def order_of(strategy, k, **fields):
    pool = Pool(ids=np.arange(3), **fields)
    selection = strategy.select(pool, k, np.random.default_rng(0))
    return selection.indices.tolist(), selection.scores


@pytest.mark.parametrize(
    "name, expected, scores",
    [
        ("least_confidence", [2, 1, 0], [0.04, 0.51, 0.6]),
        ("margin", [1, 2, 0], [0.06, 0.99, 0.9]),
        ("entropy", [2, 1, 0], None),
    ],
)
def test_the_most_uncertain_come_first_and_score_highest(name, expected, scores):
    order, got = order_of(get_strategy(name), 3, probabilities=np.array([SURE, TORN, SPREAD]))
    assert order == expected
    assert got[expected].tolist() == sorted(got, reverse=True)
    if scores:
        np.testing.assert_allclose(got, scores, atol=1e-12)


# Of three passes or members: all sure and alike, all torn alike, each sure of another class.
VOTES = np.array([[SURE] * 3, [TORN] * 3, [SURE, SURE[::-1], [0.02, 0.96, 0.02]]]).transpose(1, 0, 2)


@pytest.mark.parametrize("disagreement", ["kl", "vote_entropy"])
def test_a_committee_asks_where_it_disagrees_not_where_it_shares_a_doubt(disagreement):
    strategy = get_strategy("committee", disagreement=disagreement)
    order, scores = order_of(strategy, 3, committee_probabilities=VOTES)
    assert order[0] == 2
    np.testing.assert_allclose(scores[:2], 0, atol=1e-12)
    assert scores[2] > 0.7


def test_consensus_entropy_counts_a_shared_doubt():
    strategy = get_strategy("committee", disagreement="consensus_entropy")
    assert order_of(strategy, 3, committee_probabilities=VOTES)[0] == [2, 1, 0]


@pytest.mark.parametrize("beta", [None, 1.0, 8.0])
def test_bald_asks_where_the_passes_disagree(beta):
    order, scores = order_of(get_strategy("bald", beta=beta), 1, mc_probabilities=VOTES)
    assert order == [2] and scores.argmax() == 2


def two_passes(a):
    """Two passes over one row per entry of `a`, at odds the more, the larger it is."""
    first = np.stack([0.5 + a, 0.5 - a], axis=1)
    return np.stack([first, first[:, ::-1]])


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_orders_drawn_by_a_power_of_bald_come_out_as_often_as_their_probability(beta):
    strategy = get_strategy("bald", beta=beta)
    pool = Pool(ids=[0, 1, 2, 3], mc_probabilities=two_passes(np.array([0.0, 0.2, 0.3, 0.45])))
    rng, draws, counts = np.random.default_rng(0), 2000, {}
    for _ in range(draws):
        selection = strategy.select(pool, 4, rng)
        counts[tuple(selection.indices.tolist())] = counts.get(tuple(selection.indices.tolist()), 0) + 1
    weights = selection.scores**beta
    for order in permutations([1, 2, 3]):
        left = [weights[list(order[i:])].sum() for i in range(3)]
        expected = draws * np.prod([weights[row] / total for row, total in zip(order, left, strict=True)])
        # Row 0 never disagrees, and is last whatever the power.
        assert abs(counts.get((*order, 0), 0) - expected) < 4.5 * np.sqrt(expected)
    assert sum(counts.values()) == sum(count for order, count in counts.items() if order[-1] == 0)


def test_bald_in_full_is_greedy():
    a = np.random.default_rng(0).random(50) / 2
    pool = Pool(ids=np.arange(50), mc_probabilities=two_passes(a))
    order = get_strategy("bald", beta=None).select(pool, 50, RNG).indices
    assert order.tolist() == np.argsort(-a).tolist()


def test_coreset_is_k_centre_from_the_labelled_rows_over_raw_embeddings(reference):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 3)) * rng.uniform(0.1, 5, (60, 1))
    pool = Pool(ids=np.arange(5, 60), selected=np.arange(5), embeddings=rows[5:], selected_embeddings=rows[:5])
    order, values, _ = reference.greedy(rows[5:], 10, earlier=rows[:5])
    selection = get_strategy("coreset").select(pool, 10, RNG)
    assert (selection.indices - 5).tolist() == order
    np.testing.assert_allclose(selection.scores[order], values, rtol=1e-4)
    assert selection.indices.tolist() != KCenter().select(pool, 10, RNG).indices.tolist()


def test_bad_hyper_parameters_are_refused():
    with pytest.raises(ValueError, match='"vote_entropy", "consensus_entropy".*\'soft\''):
        get_strategy("committee", disagreement="soft")
    for beta in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`beta` must be at least 0, or None"):
            get_strategy("bald", beta=beta)
