from itertools import permutations

import numpy as np
import pytest

from tithe.selection import d_squared_sample


def chance(order, points, earlier=None):
    """The probability of drawing exactly `order` when each draw goes by the squared distance to the draws before."""
    rate, drawn = 1.0, [] if earlier is None else [earlier]
    for row in order:
        weights = np.ones(len(points)) if not drawn else np.min([(points - c) ** 2 for c in drawn], axis=0)
        rate *= weights[row] / weights.sum()
        drawn.append(points[row])
    return rate


@pytest.mark.parametrize("earlier", [None, 2.5])
@pytest.mark.parametrize("batch", [1, 8])
def test_orders_come_out_as_often_as_their_probability(earlier, batch):
    points = np.array([0.0, 1.0, 3.0, 7.0])
    rng = np.random.default_rng(0)
    before = None if earlier is None else np.array([[earlier]])
    counts: dict[tuple[int, ...], int] = {}
    draws = 2500
    for _ in range(draws):
        order = tuple(d_squared_sample(points[:, None], 3, rng, selected_embeddings=before, batch=batch).tolist())
        counts[order] = counts.get(order, 0) + 1
    for order in permutations(range(4), 3):
        expected = draws * chance(order, points, earlier)
        assert abs(counts.get(order, 0) - expected) < 4.5 * np.sqrt(expected) + 1


def test_duplicates_fill_up_by_id():
    points = np.repeat([[0.0], [5.0]], 4, axis=0)
    ids = np.array([7, 6, 5, 4, 3, 2, 1, 0])
    order = d_squared_sample(points, 5, np.random.default_rng(0), ids=ids)
    assert len(set((order[:2] // 4).tolist())) == 2
    left = sorted(set(range(8)) - set(ids[order[:2]].tolist()))
    assert ids[order[2:]].tolist() == left[:3]


def test_too_many_draws_are_refused():
    with pytest.raises(ValueError, match="`k` must be from 1 to the 2 rows"):
        d_squared_sample(np.eye(3), 3, np.random.default_rng(0), rows=np.array([0, 2]))
