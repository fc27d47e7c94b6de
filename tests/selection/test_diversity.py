import numpy as np
import pytest

from tithe.selection import EntropyDiversity, KCenter, Pool


def rng():
    return np.random.default_rng(0)


def mixed_pool(n=80, seed=0, **fields):
    source = np.random.default_rng(seed)
    return Pool(
        ids=np.arange(n),
        embeddings=source.standard_normal((n, 5)),
        probabilities=source.dirichlet(np.ones(3), n),
        **fields,
    )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("earlier", [0, 6])
def test_k_center_is_greedy_from_earlier_rows_or_the_medoid(reference, normalize, earlier):
    before = np.random.default_rng(1).standard_normal((earlier, 5))
    pool = mixed_pool(selected=np.arange(1000, 1000 + earlier), selected_embeddings=before)
    rows = reference.unit(pool.embeddings) if normalize else pool.embeddings
    if earlier:
        order, values, least = reference.greedy(rows, 20, earlier=reference.unit(before) if normalize else before)
    else:
        order, values, least = reference.greedy(rows, 20, [reference.medoid(rows)])
    selection = KCenter(normalize=normalize).select(pool, 20, rng())
    assert selection.indices.tolist() == order
    np.testing.assert_allclose(selection.scores[order], values, rtol=1e-5)
    rest = np.setdiff1d(pool.ids, order)
    np.testing.assert_allclose(selection.scores[rest], least[rest], rtol=1e-5)


def test_robust_leaves_out_isolated_rows_and_them_alone():
    source = np.random.default_rng(0)
    clusters = source.standard_normal((8, 16))
    rows = clusters[np.arange(196) % 8] + 0.02 * source.standard_normal((196, 16))
    outliers = source.standard_normal((4, 16))
    pool = Pool(ids=np.arange(200), embeddings=np.concatenate([outliers, rows]))
    assert set(KCenter().select(pool, 12, rng()).indices) >= {0, 1, 2, 3}
    robust = KCenter(robust=0.02).select(pool, 12, rng())
    assert robust.indices.min() >= 4
    assert np.flatnonzero(robust.columns["outlier"]).tolist() == [0, 1, 2, 3]
    assert np.isnan(robust.scores[:4]).all()
    assert set((robust.indices[:8] % 8).tolist()) == set(range(8))


def test_robust_gives_way_where_the_budget_needs_the_rows():
    selection = KCenter(robust=0.5).select(mixed_pool(), 75, rng())
    assert len(selection.indices) == 75
    assert selection.columns["outlier"].sum() == 5


def test_entropy_diversity_is_k_center_among_the_most_uncertain(reference):
    pool = mixed_pool()
    p = pool.probabilities
    entropy = -(p * np.log(p)).sum(axis=1) / np.log(3)
    shortlist = np.sort(np.argsort(-entropy)[:30])
    rows = reference.unit(pool.embeddings[shortlist])
    order, *_ = reference.greedy(rows, 10, [reference.medoid(rows)])
    selection = EntropyDiversity(beta=3).select(pool, 10, rng())
    assert selection.indices.tolist() == shortlist[order].tolist()
    np.testing.assert_allclose(selection.scores, entropy)
    assert np.flatnonzero(selection.columns["shortlisted"]).tolist() == shortlist.tolist()


def test_beta_one_is_entropy_alone_and_ties_go_to_the_lowest_id():
    p = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.6, 0.4], [0.5, 0.5]])
    pool = Pool(ids=[14, 13, 12, 11, 10], probabilities=p, embeddings=np.eye(5))
    for diversity in ("k_center", "d2"):
        selection = EntropyDiversity(beta=1, diversity=diversity).select(pool, 3, rng())
        assert set(selection.indices.tolist()) == {10, 11, 13}


def test_d2_stays_in_the_shortlist_and_away_from_earlier_rows():
    p = np.array([[0.5, 0.5]] * 3 + [[1.0, 0.0]])
    pool = Pool(
        ids=[0, 1, 2, 3],
        selected=[9],
        embeddings=[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]],
        probabilities=p,
        selected_embeddings=[[2.0, 0.0]],
    )
    for seed in range(20):
        picks = EntropyDiversity(beta=3, diversity="d2").select(pool, 1, np.random.default_rng(seed)).indices
        assert picks.tolist() == [1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KCenter(robust=1.0), "`robust` must be a share from 0 to below 1, got 1.0"),
        (lambda: KCenter(robust=-0.1), "`robust`"),
        (lambda: EntropyDiversity(beta=0.5), "`beta` must be at least 1, got 0.5"),
        (lambda: EntropyDiversity(beta=float("nan")), "`beta`"),
        (lambda: EntropyDiversity(diversity="kcenter"), '`diversity` must be "k_center" or "d2", got \'kcenter\''),
    ],
)
def test_hyper_parameters_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()
