"""BADGE against its definition: k-means++ over gradients that are really made."""

import numpy as np
import pytest

from tithe.selection import Badge, Pool
from tithe.selection.badge import Gradients


def made(probabilities, inputs):
    """The gradients themselves, float64[n, c · d]."""
    errors = probabilities.copy()
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    return (errors[:, :, None] * inputs[:, None, :]).reshape(len(errors), -1)


def pool_of(n=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return Pool(
        ids=np.arange(n),
        probabilities=rng.dirichlet(np.ones(classes), n),
        head_inputs=rng.standard_normal((n, 4)),
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_distances_are_those_of_the_gradients(classes):
    pool = pool_of(50, classes)
    gradients, truth = Gradients(pool.probabilities, pool.head_inputs), made(pool.probabilities, pool.head_inputs)
    squared = ((truth[:, None] - truth[None]) ** 2).sum(-1)
    np.testing.assert_allclose(gradients.among(np.arange(50)), squared, atol=1e-5)
    np.testing.assert_allclose(gradients.squares, (truth**2).sum(axis=1), rtol=1e-3)
    least = np.full(50, np.inf, dtype=np.float32)
    gradients.lower(least, gradients.take(np.array([3, 9, 30])))
    np.testing.assert_allclose(least, squared[:, [3, 9, 30]].min(axis=1), atol=1e-5)


def test_it_is_k_means_plus_plus():
    """Probabilities of the second and third pick over many seeds, against the definition."""
    pool = pool_of()
    truth = made(pool.probabilities, pool.head_inputs)
    squared = ((truth[:, None] - truth[None]) ** 2).sum(-1)
    first = int((truth**2).sum(axis=1).argmax())
    expected = np.zeros((6, 6))
    for second in range(6):
        left = np.minimum(squared[first], squared[second])
        if second != first:
            expected[second] = squared[first, second] / squared[first].sum() * left / left.sum()
    counts, draws = np.zeros((6, 6)), 4000
    for seed in range(draws):
        one, two, three = Badge().select(pool, 3, np.random.default_rng(seed)).indices
        assert one == first
        counts[two, three] += 1
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_squared = ((counts - draws * expected)[possible] ** 2 / (draws * expected[possible])).sum()
    assert chi_squared < 45  # 19 degrees of freedom: above it in one of a thousand


def test_no_row_is_picked_twice_though_rows_repeat():
    pool = pool_of(6)
    of = np.arange(40) % 6
    repeated = Pool(ids=np.arange(40), probabilities=pool.probabilities[of], head_inputs=pool.head_inputs[of])
    for seed in range(20):
        chosen = Badge().select(repeated, 12, np.random.default_rng(seed)).indices
        assert len(set(chosen.tolist())) == 12
        assert set(of[chosen[:6]]) == set(range(6))  # copies come once nothing else is left


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_and_rows_without_a_gradient_fill_k_by_id(classes):
    probabilities = np.eye(classes)[np.zeros(9, dtype=int)]
    pool = Pool(ids=np.arange(9)[::-1], probabilities=probabilities, head_inputs=np.ones((9, 2)))
    assert Badge().select(pool, 4, np.random.default_rng(0)).indices.tolist() == [0, 1, 2, 3]


def test_it_takes_uncertain_rows_of_different_kinds():
    """Three groups of different inputs; in each a third is uncertain. All certain rows are as one, near zero."""
    group = np.arange(90) % 3
    p = np.where(np.arange(90) < 30, 0.52, 0.999)
    pool = Pool(ids=np.arange(90), probabilities=np.stack([p, 1 - p], axis=1), head_inputs=np.eye(3)[group])
    for seed in range(20):
        chosen = Badge().select(pool, 4, np.random.default_rng(seed)).indices
        uncertain = chosen[chosen < 30]
        assert chosen[0] < 30 and len(uncertain) == 3 and set(group[uncertain]) == {0, 1, 2}
