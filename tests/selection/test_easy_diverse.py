import numpy as np
import pytest

from tithe.selection import EdfsLite, KCenter, Pool, QditLite
from tithe.selection.quotas import apportion, spill_over


def rng():
    return np.random.default_rng(0)


def mixed_pool(n=90, earlier=0, seed=0):
    source = np.random.default_rng(seed)
    return Pool(
        ids=np.arange(n),
        selected=np.arange(1000, 1000 + earlier),
        embeddings=source.standard_normal((n, 5)),
        probabilities=source.dirichlet(np.ones(3), n),
        selected_embeddings=source.standard_normal((earlier, 5)),
    )


def normalised_entropy(p):
    return -(p * np.log(p)).sum(axis=1) / np.log(p.shape[1])


@pytest.mark.parametrize("earlier", [0, 7])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_light_form_is_greedy_over_least_distance_and_quality(reference, earlier, alpha):
    pool = mixed_pool(earlier=earlier)
    rows, quality = reference.unit(pool.embeddings), 1 - normalised_entropy(pool.probabilities)
    start = {"earlier": reference.unit(pool.selected_embeddings)} if earlier else {"chosen": [reference.medoid(rows)]}
    order, values, _ = reference.greedy(rows, 30, quality=quality, alpha=alpha, **start)
    selection = QditLite(alpha=alpha).select(pool, 30, rng())
    assert selection.indices.tolist() == order
    np.testing.assert_allclose(selection.scores[order], values, rtol=1e-5)
    np.testing.assert_allclose(selection.columns["quality"], quality)


@pytest.mark.parametrize("earlier", [0, 7])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_facility_location_is_greedy_over_gain_and_quality(reference, earlier, alpha):
    pool = mixed_pool(earlier=earlier)
    before = pool.selected_embeddings if earlier else None
    quality = 1 - normalised_entropy(pool.probabilities)
    order, values = reference.facility_location(pool.embeddings, 30, quality, alpha, before)
    selection = QditLite(alpha=alpha, distance="facility_location", neighbours=90).select(pool, 30, rng())
    assert selection.indices.tolist() == order
    np.testing.assert_allclose(selection.scores[order], values, rtol=1e-4)


def test_few_neighbours_keep_nearly_all_of_the_covered_similarity(reference):
    source = np.random.default_rng(0)
    centres = source.standard_normal((15, 8))
    rows = reference.unit(centres[np.arange(300) % 15] + 0.4 * source.standard_normal((300, 8)))
    pool = Pool(ids=np.arange(300), embeddings=rows, probabilities=np.full((300, 2), 0.5))

    def covered(picks):
        return np.maximum(rows @ rows[picks].T, 0).max(axis=1).sum()

    exact, _ = reference.facility_location(rows, 30, np.zeros(300), 0.0)
    near = QditLite(alpha=0.0, distance="facility_location", neighbours=32).select(pool, 30, rng())
    assert covered(near.indices) > 0.99 * covered(exact)
    assert covered(near.indices) > 1.02 * covered(np.arange(30))


def test_the_light_form_without_quality_is_k_center():
    pool = mixed_pool()
    assert QditLite(alpha=0.0).select(pool, 30, rng()).indices.tolist() == (
        KCenter().select(pool, 30, rng()).indices.tolist()
    )


@pytest.mark.parametrize("earlier", [0, 7])
def test_edfs_is_k_center_in_each_entropy_bin(reference, earlier):
    pool = mixed_pool(earlier=earlier)
    entropy = normalised_entropy(pool.probabilities)
    expected = []
    for rows, quota in zip(np.array_split(np.argsort(entropy), 3), (12, 12, 6), strict=True):
        rows = np.sort(rows)
        unit = reference.unit(pool.embeddings[rows])
        start = (
            {"earlier": reference.unit(pool.selected_embeddings)} if earlier else {"chosen": [reference.medoid(unit)]}
        )
        expected += rows[reference.greedy(unit, quota, **start)[0]].tolist()
    selection = EdfsLite().select(pool, 30, rng())
    assert selection.indices.tolist() == expected
    assert selection.columns["bin"][np.argsort(entropy)].tolist() == [0] * 30 + [1] * 30 + [2] * 30
    np.testing.assert_allclose(selection.scores, entropy)


@pytest.mark.parametrize(
    ("strategy", "k", "expected"),
    [
        (EdfsLite(), 10, [4, 4, 2]),
        (EdfsLite(), 1, [1, 0, 0]),
        (EdfsLite(), 80, [30, 30, 20]),
        (EdfsLite(shares=(1, 0, 0)), 50, [30, 20, 0]),
        (EdfsLite(shares=(0, 1, 0)), 50, [20, 30, 0]),
        (EdfsLite(shares=[0, 0, 3]), 70, [10, 30, 30]),
        (EdfsLite(buckets=2), 12, [8, 4]),
        (EdfsLite(buckets=1), 12, [12]),
    ],
)
def test_the_budget_is_shared_and_spills_over(strategy, k, expected):
    selection = strategy.select(mixed_pool(), k, rng())
    assert np.bincount(selection.columns["bin"][selection.indices], minlength=len(expected)).tolist() == expected


def test_more_bins_than_rows_leave_some_empty():
    assert len(EdfsLite(buckets=7).select(mixed_pool(n=4), 4, rng()).indices) == 4


def test_quotas_always_fill_the_budget():
    source = np.random.default_rng(0)
    for _ in range(300):
        sizes = source.integers(0, 20, source.integers(1, 6)) + [0]
        k = int(source.integers(0, sizes.sum() + 1))
        quotas = apportion(source.random(len(sizes)) + 1e-3, k)
        assert quotas.sum() == k
        spilled = spill_over(quotas, sizes)
        assert spilled.sum() == k
        assert (spilled >= 0).all() and (spilled <= sizes).all()


def test_shares_that_are_whole_in_decimal_give_whole_quotas():
    for k in range(5, 500, 5):
        assert apportion(np.array([0.4, 0.4, 0.2]), k).tolist() == [2 * k // 5, 2 * k // 5, k // 5]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QditLite(alpha=1.5), "`alpha` must be from 0 to 1, got 1.5"),
        (lambda: QditLite(distance="max"), '`distance` must be "min" or "facility_location", got \'max\''),
        (lambda: QditLite(neighbours=0), "`neighbours` must be at least 1"),
        (lambda: EdfsLite(buckets=0), "`buckets` must be an integer of at least 1, got 0"),
        (lambda: EdfsLite(buckets=4, shares=(0.4, 0.4, 0.2)), "`shares` has 3 weights for 4 `buckets`"),
        (lambda: EdfsLite(shares=(1, -1, 1)), "`shares` must be at least 0"),
        (lambda: EdfsLite(shares=(0, 0, 0)), "not all 0"),
    ],
)
def test_hyper_parameters_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()
