import numpy as np
import pytest

from tithe.selection import All, Pool, Random


def test_all_ignores_the_budget():
    selection = All().select(Pool(ids=[5, 2, 9]), 1, np.random.default_rng(0))
    assert selection.indices.tolist() == [2, 5, 9]
    assert np.isnan(selection.scores).all()


def test_every_row_is_picked_as_often_as_any_other():
    pool = Pool(ids=np.arange(10))
    rng = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([Random().select(pool, 3, rng).indices for _ in range(2000)]), minlength=10)
    assert (abs(counts - 600) < 4.5 * np.sqrt(600 * 0.7)).all()


def test_the_picks_have_the_largest_scores_and_a_larger_budget_extends_them():
    pool = Pool(ids=np.arange(50))
    few, many = (Random().select(pool, k, np.random.default_rng(3)) for k in (5, 20))
    assert many.indices[:5].tolist() == few.indices.tolist() == np.argsort(-few.scores)[:5].tolist()


@pytest.mark.parametrize(
    ("k", "expected"),
    [(10, [6, 3, 1]), (4, [3, 1, 0]), (5, [3, 2, 0]), (1, [1, 0, 0]), (19, [11, 6, 2]), (20, [12, 6, 2])],
)
def test_stratified_quotas_are_largest_remainders(k, expected):
    labels = np.repeat(["a", "b", "c"], [12, 6, 2])
    selection = Random(stratified=True).select(Pool(ids=np.arange(20), labels=labels), k, np.random.default_rng(0))
    assert [(labels[selection.indices] == c).sum() for c in "abc"] == expected


def test_within_a_label_the_picks_are_random():
    pool = Pool(ids=np.arange(20), labels=np.repeat([0, 1], 10))
    rng = np.random.default_rng(0)
    picks = np.concatenate([Random(stratified=True).select(pool, 4, rng).indices for _ in range(1000)])
    assert (abs(np.bincount(picks, minlength=20) - 200) < 4.5 * np.sqrt(160)).all()


def test_labels_per_token_are_refused():
    pool = Pool(ids=[0, 1], labels=[[0, 1], [1, 1]])
    with pytest.raises(ValueError, match="one label per row"):
        Random(stratified=True).select(pool, 1, np.random.default_rng(0))
