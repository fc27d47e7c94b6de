from dataclasses import replace

import numpy as np
import pytest

from tithe.selection import MarginCoverage, Pool


def rng():
    return np.random.default_rng(0)


def mixed_pool(n=80, classes=3, earlier=0, seed=0):
    source = np.random.default_rng(seed)
    return Pool(
        ids=np.arange(n),
        embeddings=source.standard_normal((n, 5)),
        probabilities=source.dirichlet(np.ones(classes), n),
        el2n=source.uniform(0, 1.3, n),
        selected=np.arange(1000, 1000 + earlier),
        selected_embeddings=source.standard_normal((earlier, 5)),
    )


def worth(pool, trust):
    p = np.sort(pool.probabilities, axis=1)
    return (1 - (p[:, -1] - p[:, -2])) * (1 - pool.el2n / np.sqrt(2)) ** trust


def brute_force(pool, k, temperature, shortlist, trust, unit):
    unsure = worth(pool, trust)
    rows = unit(pool.embeddings)
    kernel = np.exp((rows @ rows.T - 1) / temperature)
    settled = np.zeros(len(rows))
    if len(pool.selected):
        settled = np.exp((rows @ unit(pool.selected_embeddings).T - 1) / temperature).max(axis=1)
    allowed, order = np.argsort(-unsure)[: int(np.ceil(shortlist * k))].tolist(), []
    while len(order) < k:
        gains = {j: unsure @ np.maximum(kernel[j] - settled, 0) for j in allowed if j not in order}
        order.append(max(gains, key=gains.get))
        settled = np.maximum(settled, kernel[order[-1]])
    return order


@pytest.mark.parametrize("earlier", [0, 7])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("shortlist", [1.5, 20.0])
@pytest.mark.parametrize("trust", [0, 0.5, 2])
def test_it_is_greedy_for_the_formula(reference, earlier, temperature, shortlist, trust):
    pool = mixed_pool(earlier=earlier)
    order = brute_force(pool, 20, temperature, shortlist, trust, reference.unit)
    strategy = MarginCoverage(temperature=temperature, shortlist=shortlist, trust=trust)
    assert strategy.select(pool, 20, rng()).indices.tolist() == order


@pytest.mark.parametrize("trust", [0, 0.5])
def test_a_narrow_kernel_ranks_by_weight(trust):
    pool = mixed_pool()
    best = np.argsort(-worth(pool, trust))[:15]
    selection = MarginCoverage(temperature=1e-4, trust=trust).select(pool, 15, rng())
    assert selection.indices.tolist() == best.tolist()
    np.testing.assert_allclose(selection.scores, worth(pool, trust))


def test_without_trust_no_labels_are_asked_for():
    assert "el2n" in MarginCoverage().needs and "el2n" not in MarginCoverage(trust=0).needs


def test_rows_with_a_label_that_cannot_be_believed_go_last():
    pool = mixed_pool()
    el2n = np.where(np.arange(80) % 2, 1.4, 0.1)
    pool = replace(pool, el2n=el2n, probabilities=np.full((80, 2), 0.5))
    assert (MarginCoverage(temperature=0.01).select(pool, 40, rng()).indices % 2 == 0).all()


def clusters(sizes, spread=0.05, seed=0):
    """Orthogonal clusters of these sizes, and the number of each row's."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(seed).standard_normal((len(of), len(sizes)))
    return np.eye(len(sizes))[of] + spread * noise, of


def test_equally_uncertain_clusters_are_covered_one_pick_each():
    embeddings, of = clusters([40, 30, 20, 10])
    pool = Pool(ids=np.arange(100), embeddings=embeddings, probabilities=np.full((100, 2), 0.5))
    assert of[MarginCoverage(shortlist=25, trust=0).select(pool, 4, rng()).indices].tolist() == [0, 1, 2, 3]


def test_uncertain_clusters_go_before_larger_certain_ones():
    embeddings, of = clusters([60, 20, 20])
    p = np.where(of == 0, 0.99, 0.6)
    pool = Pool(ids=np.arange(100), embeddings=embeddings, probabilities=np.stack([p, 1 - p], axis=1))
    assert set(of[MarginCoverage(trust=0).select(pool, 2, rng()).indices]) == {1, 2}


def test_a_lone_outlier_goes_after_the_clusters_though_it_is_the_least_certain():
    embeddings, of = clusters([30, 30, 1])
    p = np.where(of == 2, 0.5, 0.6)
    pool = Pool(ids=np.arange(61), embeddings=embeddings, probabilities=np.stack([p, 1 - p], axis=1))
    assert set(of[MarginCoverage(trust=0).select(pool, 2, rng()).indices]) == {0, 1}


def test_what_earlier_rounds_settled_is_not_asked_again():
    embeddings, of = clusters([60, 20, 20])
    p = np.full((100, 2), 0.5)
    pool = Pool(
        ids=np.arange(100), embeddings=embeddings, probabilities=p, selected=[500], selected_embeddings=[[1.0, 0, 0]]
    )
    assert set(of[MarginCoverage(shortlist=50, trust=0).select(pool, 2, rng()).indices]) == {1, 2}


def test_certain_everywhere_it_is_coverage_alone():
    embeddings, of = clusters([10, 30, 20])
    pool = Pool(ids=np.arange(60), embeddings=embeddings, probabilities=np.eye(2)[np.zeros(60, dtype=int)])
    assert of[MarginCoverage(trust=0).select(pool, 3, rng()).indices].tolist() == [1, 2, 0]


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"temperature": np.nan}, {"shortlist": 0.5}, {"trust": -1}])
def test_a_hyper_parameter_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=f"`{next(iter(values))}` must be"):
        MarginCoverage(**values)


def test_logits_are_refused():
    pool = Pool(ids=[0, 1], embeddings=np.eye(2), probabilities=[[3.0, -1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="softmax"):
        MarginCoverage(trust=0).select(pool, 1, rng())
