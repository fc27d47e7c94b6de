import numpy as np
import pytest

from tithe.selection import Balanced, Deduplicated, KCenter, Noisy, Pool, Random, Selection, get_strategy


class Largest:
    """The largest EL2N, ties by id; no dataclass, no base class."""

    needs = frozenset({"el2n"})

    def select(self, pool, k, rng):
        assert pool.texts is None or "texts" in self.needs
        return Selection(pool.ids[np.lexsort((pool.ids, -pool.el2n))[:k]], pool.el2n, {"twice": 2 * pool.el2n})


def rng(seed=0):
    return np.random.default_rng(seed)


def pool_of(labels, seed=0, **more):
    n = len(labels)
    return Pool(ids=np.arange(100, 100 + n), labels=labels, el2n=rng(seed).random(n), **more)


@pytest.mark.parametrize(
    ("shares", "sizes", "k", "expected"),
    [
        ("equal", (10, 10, 10), 6, (2, 2, 2)),
        ("equal", (10, 1, 10), 9, (4, 1, 4)),
        ("equal", (2, 1, 30), 20, (2, 1, 17)),
        ("pool", (10, 20, 70), 10, (1, 2, 7)),
        ("pool", (3, 3, 3), 9, (3, 3, 3)),
    ],
)
def test_balanced_gives_each_class_its_share_and_the_best_of_it(shares, sizes, k, expected):
    labels = np.repeat(["a", "b", "c"], sizes)
    pool = pool_of(labels)
    chosen = Balanced(Largest(), shares=shares).select(pool, k, rng())
    picked = labels[chosen.indices - 100]
    for name, quota in zip("abc", expected, strict=True):
        of_class = np.flatnonzero(labels == name)
        best = of_class[np.argsort(-pool.el2n[of_class])[:quota]] + 100
        assert chosen.indices[picked == name].tolist() == best.tolist()
    assert len(set(picked[:3])) == 3
    np.testing.assert_array_equal(chosen.scores, pool.el2n)
    np.testing.assert_array_equal(chosen.columns["twice"], 2 * pool.el2n)
    assert chosen.columns["class"].tolist() == np.repeat([0, 1, 2], sizes).tolist()


def test_balanced_draws_the_classes_that_get_the_remainder():
    pool = pool_of(np.repeat(np.arange(20), 5))
    firsts = {tuple(sorted(pool.labels[Balanced(Largest()).select(pool, 3, rng(s)).indices - 100])) for s in range(5)}
    assert len(firsts) == 5 and all(len(set(classes)) == 3 for classes in firsts)


def test_balanced_by_prediction_reads_no_labels():
    pool = Pool(ids=np.arange(6), probabilities=np.eye(2)[[0, 0, 0, 0, 1, 1]] * 0.8 + 0.1)
    chosen = Balanced(Random(), by="predicted").select(pool, 4, rng())
    assert np.bincount(pool.probabilities.argmax(axis=1)[chosen.indices]).tolist() == [2, 2]


def test_token_labels_are_refused_by_name():
    with pytest.raises(ValueError, match="`balanced` needs one label per row"):
        Balanced(Random()).select(Pool(ids=range(3), labels=np.zeros((3, 4), int)), 2, rng())


def duplicated_pool(earlier=0):
    """Thirty rows, each three times with a little noise; the copies have nearly the same score."""
    rows = np.repeat(rng(1).standard_normal((30, 16)), 3, axis=0) + 0.01 * rng(2).standard_normal((90, 16))
    return Pool(
        ids=np.arange(90),
        el2n=np.repeat(rng(3).random(30), 3) + 1e-6 * rng(4).random(90),
        embeddings=rows,
        selected=np.arange(1000, 1000 + earlier),
        selected_embeddings=rows[: 3 * earlier : 3] if earlier else None,
    )


@pytest.mark.parametrize("earlier", [0, 4])
def test_deduplicated_takes_the_next_best_instead_and_duplicates_last(earlier):
    pool = duplicated_pool(earlier)
    chosen = Deduplicated(Largest(), threshold=0.9).select(pool, 40, rng())
    groups = chosen.indices // 3
    of_group = pool.el2n.reshape(30, 3).max(axis=1)
    fresh = [g for g in np.argsort(-of_group) if g >= earlier]
    assert groups[: 30 - earlier].tolist() == fresh
    rest = np.setdiff1d(np.arange(90), chosen.indices[: 30 - earlier])
    by_score = rest[np.argsort(-pool.el2n[rest])]
    assert chosen.indices[30 - earlier :].tolist() == by_score[: 10 + earlier].tolist()
    assert chosen.columns["duplicate"].sum() == 60 + earlier
    assert not chosen.columns["duplicate"][chosen.indices[: 30 - earlier]].any()


def test_deduplicated_changes_nothing_where_nothing_repeats():
    pool = Pool(ids=np.arange(50), el2n=rng().random(50), embeddings=np.eye(50))
    ours = Deduplicated(Largest()).select(pool, 20, rng())
    assert ours.indices.tolist() == Largest().select(pool, 20, rng()).indices.tolist()
    assert not ours.columns["duplicate"].any()


def test_deduplicated_goes_on_from_the_rows_it_kept():
    pool = duplicated_pool()
    kept = Deduplicated(KCenter(), threshold=0.9).select(pool, 30, rng()).indices
    assert len(set((kept // 3).tolist())) == 30


@pytest.mark.parametrize("inner", [Largest(), Random(), KCenter()])
def test_no_noise_is_the_strategy_itself(inner):
    pool = duplicated_pool()
    ours, plain = Noisy(inner, temperature=0).select(pool, 20, rng()), inner.select(pool, 20, rng())
    assert ours.indices.tolist() == plain.indices.tolist()
    assert not ours.columns["random"].any()


@pytest.mark.parametrize("temperature", [0.2, 0.5, 2.0, np.inf])
def test_noise_draws_picks_by_their_weight(temperature):
    pool = Pool(ids=np.arange(10), el2n=np.arange(10))
    weights = np.where(np.arange(10) >= 8, np.exp(1 / temperature), 1.0)
    pairs = np.array([Noisy(Largest(), temperature).select(pool, 2, rng(s)).indices for s in range(4000)])
    # Two draws without replacement: both of the picks 9 and 8, in either order.
    first = weights[8] / weights.sum()
    both = 2 * first * weights[9] / (weights.sum() - weights[8])
    assert ((pairs >= 8).all(axis=1)).mean() == pytest.approx(both, abs=0.03)
    others = np.bincount(pairs[pairs < 8], minlength=8)
    assert others.max() - others.min() < 8 * np.sqrt(others.mean() + 1)


def test_its_own_picks_come_first_in_its_order():
    pool = Pool(ids=np.arange(200), el2n=np.arange(200))
    chosen = Noisy(Largest(), temperature=0.4).select(pool, 50, rng())
    own = ~chosen.columns["random"][chosen.indices]
    assert 5 < own.sum() < 45
    assert own.tolist() == sorted(own.tolist(), reverse=True)
    assert chosen.indices[own].tolist() == sorted(chosen.indices[own].tolist(), reverse=True)
    assert (chosen.indices[own] >= 150).all() and (chosen.indices[~own] < 150).all()


def test_needs_are_the_strategys_and_their_own():
    assert Balanced(Largest()).needs == {"el2n", "labels"}
    assert Balanced(Largest(), by="predicted").needs == {"el2n", "probabilities"}
    assert Deduplicated(Largest()).needs == {"el2n", "embeddings", "selected_embeddings"}
    assert Noisy(Balanced(KCenter())).needs == {"labels", "embeddings", "selected_embeddings"}


def test_names_nest_outermost_first():
    assert get_strategy("noisy:balanced:random") == Noisy(Balanced(Random()))
    assert get_strategy("balanced:k_center", robust=0.1) == Balanced(KCenter(robust=0.1))
    assert get_strategy(
        "noisy:balanced:random", stratified=True, balanced={"by": "predicted"}, noisy={"temperature": 1}
    ) == Noisy(Balanced(Random(stratified=True), by="predicted"), temperature=1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: get_strategy("ballanced:random"), "no wrapper `ballanced`. Did you mean `balanced`.*`noisy`"),
        (lambda: get_strategy("balanced:randon"), "no strategy `randon`. Did you mean `random`"),
        (lambda: get_strategy("balanced"), "no strategy `balanced`. A wrapper needs a strategy after a colon"),
        (lambda: get_strategy("random:k_center"), "no wrapper `random`"),
        (
            lambda: get_strategy("balanced:random", balanced={"buy": 1}),
            "`balanced` has no hyper-parameter `buy`.*`by`",
        ),
        (lambda: get_strategy("balanced:random", balanced="labels"), "`balanced` must be a mapping"),
        (lambda: get_strategy("balanced:random", noisy={}), "`random` has no hyper-parameter `noisy`"),
        (lambda: get_strategy("balanced:random", balanced={"strategy": 1}), "has no hyper-parameter `strategy`"),
        (lambda: Balanced("random"), "`balanced` wraps a strategy.*got 'random'.*get_strategy"),
        (lambda: Noisy(Random), "`noisy` wraps a strategy"),
        (lambda: Balanced(Random(), by="label"), '`by` must be "labels" or "predicted", got \'label\''),
        (lambda: Balanced(Random(), shares="same"), '`shares` must be "equal" or "pool"'),
        (lambda: Deduplicated(Random(), threshold=0), "`threshold` must be a cosine above 0"),
        (lambda: Noisy(Random(), temperature=-1), "`temperature` must be at least 0, got -1"),
        (lambda: Noisy(Random(), temperature=np.nan), "`temperature` must be at least 0"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
