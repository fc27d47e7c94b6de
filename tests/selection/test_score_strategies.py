"""Ranking by one score: which end is taken, what is left out, and what comes back when nothing else is left."""

import numpy as np
import pytest

from tithe.selection import El2n, Ifd, Perplexity, Pool
from tithe.selection.scores import equal_bins, percentile_within, pick_by_score


def rng(seed=0):
    return np.random.default_rng(seed)


SCORES = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0, 0.0])
IDS = np.arange(10)


def picked(k, scores=SCORES, ids=IDS, **options):
    return [float(scores[i]) for i in pick_by_score(scores, k, ids, rng(), **options).order]


def test_each_direction_takes_its_end():
    assert picked(3, direction="high") == [9, 8, 7]
    assert picked(3, direction="low") == [0, 1, 2]
    assert picked(4, direction="mid") in ([5, 4, 6, 3], [4, 5, 3, 6], [5, 4, 3, 6], [4, 5, 6, 3])


def test_a_cut_leaves_out_its_end_until_nothing_else_is_left():
    assert picked(3, direction="high", cut=0.2) == [7, 6, 5]
    assert picked(3, direction="low", cut=0.3) == [3, 4, 5]
    assert picked(10, direction="high", cut=0.2) == [7, 6, 5, 4, 3, 2, 1, 0, 8, 9]
    assert picked(10, direction="low", cut=0.2)[-2:] == [1, 0]
    assert set(picked(8, direction="mid", cut=0.2)) == set(range(1, 9))


def test_bins_give_equal_shares():
    for seed in range(5):
        order = pick_by_score(SCORES, 5, IDS, rng(seed), direction="high", bins=5).order
        assert sorted((SCORES[order] // 2).astype(int)) == [0, 1, 2, 3, 4]
    firsts = {pick_by_score(SCORES, 5, IDS, rng(seed), direction="high", bins=5).order[0] for seed in range(20)}
    assert len(firsts) == 2


def test_bins_are_formed_of_what_the_cut_leaves():
    order = pick_by_score(SCORES, 8, IDS, rng(), direction="high", cut=0.2, bins=4).order
    assert set(SCORES[order]) == set(range(8))


def test_unknown_scores_and_rows_marked_last_come_last():
    scores = np.where(SCORES == 9, np.nan, SCORES)
    last = SCORES >= 7
    order = pick_by_score(scores, 10, IDS, rng(), direction="high", last=last).order
    assert [float(SCORES[i]) for i in order] == [6, 5, 4, 3, 2, 1, 0, 7, 8, 9]


def test_ties_go_by_id_in_every_direction():
    ids = np.array([30, 10, 20, 40])
    for direction in ("high", "low", "mid"):
        order = pick_by_score(np.zeros(4), 4, ids, rng(), direction=direction).order
        if direction == "mid":
            assert set(ids[order[:2]]) == {20, 30}
        else:
            assert ids[order].tolist() == [10, 20, 30, 40]


def test_percentiles_within_groups_do_not_depend_on_the_groups_level():
    scores, groups = rng().random(40), np.arange(40) % 4
    ranks = percentile_within(scores + 100 * groups, groups, np.arange(40))
    np.testing.assert_array_equal(ranks, percentile_within(scores, groups, np.arange(40)))
    for group in range(4):
        np.testing.assert_allclose(np.sort(ranks[groups == group]), np.linspace(0, 1, 10))


def test_bins_of_equal_size():
    assert np.bincount(equal_bins(rng().random(23), 5, np.arange(23))).tolist() == [5, 5, 5, 4, 4]


def pool_of(n=40, **signals):
    return Pool(ids=np.arange(n), **signals)


def test_perplexity_compares_texts_of_one_length():
    """Short texts have high perplexities: without bins the low end is all long, with bins half is short."""
    texts = ["x" * (2 if i < 20 else 200) for i in range(40)]
    perplexity = np.where(np.arange(40) < 20, 9.0, 2.0) + rng().random(40)
    pool = pool_of(perplexity=perplexity, texts=texts)
    plain = Perplexity(direction="low", length_bins=1).select(pool, 10, rng()).indices
    binned = Perplexity(direction="low", length_bins=2).select(pool, 10, rng()).indices
    assert (plain >= 20).all() and (binned < 20).sum() == 5


def test_perplexity_takes_neither_boilerplate_nor_garbage():
    usual, odd, strange = np.full(10, 0.5), 3 + 0.1 * rng().random(20), np.full(10, 11.0)
    pool = pool_of(perplexity=np.concatenate([usual, odd, strange]))
    assert set(Perplexity(length_bins=1).select(pool, 20, rng()).indices) == set(range(10, 30))
    assert set(Perplexity("high", length_bins=1).select(pool, 10, rng()).indices) == set(range(30, 40))


def test_el2n_leaves_out_the_mislabelled_and_takes_all_levels():
    el2n = np.concatenate([np.linspace(0, 1, 36), np.full(4, 1.41)])
    chosen = El2n().select(pool_of(el2n=el2n), 18, rng()).indices
    assert (chosen < 36).all() and np.histogram(el2n[chosen], bins=4, range=(0, 1))[0].min() >= 3
    paper = El2n(cut=0.0, bins=1).select(pool_of(el2n=el2n), 4, rng()).indices
    assert set(paper) == {36, 37, 38, 39}


def test_ifd_does_not_rank_classes():
    """A class of a ratio ten times as high is not chosen any more often."""
    labels = np.arange(40) % 2
    ifd = (0.05 + 0.02 * rng().random(40)) * np.where(labels == 1, 10, 1)
    pool = pool_of(ifd=ifd, labels=labels)
    assert labels[Ifd().select(pool, 10, rng()).indices].sum() == 5
    assert labels[Ifd(per_class=False).select(pool, 10, rng()).indices].sum() == 10


def test_ifd_takes_the_highest_below_one_and_those_above_only_in_need():
    ifd = np.array([0.3, 1.2, 0.9, 5.0, 0.6])
    pool = Pool(ids=np.arange(5), ifd=ifd, labels=np.zeros(5, dtype=int))
    for per_class in (True, False):
        assert Ifd(per_class=per_class).select(pool, 5, rng()).indices.tolist() == [2, 4, 0, 1, 3]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Perplexity("middle"), "`direction` must be one of low, mid, high, got 'middle'"),
        (lambda: El2n(cut=1.0), "`cut` must be a share"),
        (lambda: El2n(bins=0), "`bins` must be an integer of at least 1"),
        (lambda: Perplexity(length_bins=2.5), "`length_bins` must be an integer"),
        (lambda: Ifd(ceiling=0), "`ceiling` must be above 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
