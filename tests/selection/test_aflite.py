import numpy as np
import pytest

from tithe.selection import AfliteReadability, Pool, predictability


EASY, HARD = (
    "The cat sat on the mat.",
    "Notwithstanding considerable institutional irregularities, administrators hesitated.",
)


def rng(seed=0):
    return np.random.default_rng(seed)


def toy(n=120, seed=0):
    """Two classes that the first axis tells apart, but for every sixth row, which lies between; every tenth hard."""
    source = rng(seed)
    labels = np.arange(n) % 2
    rows = 0.15 * source.standard_normal((n, 6)) + 3.0
    ambiguous = np.arange(n) % 6 < 1
    ambiguous |= np.arange(n) % 12 == 7
    rows[:, 0] = (
        np.where(ambiguous, 0.5 * source.standard_normal(n), np.where(labels == 1, 2.0, -2.0)) + rows[:, 0] - 3
    )
    texts = [EASY if i % 4 < 2 else HARD for i in range(n)]
    return Pool(ids=np.arange(n), labels=labels, embeddings=rows, texts=texts), ambiguous


@pytest.mark.parametrize("model", ["ridge", "logistic"])
def test_it_removes_predictable_rows_and_keeps_ambiguous_ones(model):
    pool, ambiguous = toy()
    chosen = AfliteReadability(model=model, partitions=16, floor=0.3).select(pool, 12, rng())
    removed = chosen.columns["removed"]
    assert (removed[~ambiguous] > 0).mean() > 0.8
    assert (removed[ambiguous] > 0).mean() < 0.4
    assert (removed[chosen.indices] == 0).all()
    assert (chosen.columns["predictability"][(removed > 0)] >= 0.75).all()


@pytest.mark.parametrize("formula", ["flesch_reading_ease", "flesch_kincaid_grade"])
@pytest.mark.parametrize(("direction", "wanted"), [("easy", EASY), ("hard", HARD)])
def test_survivors_are_ranked_by_readability(formula, direction, wanted):
    pool, _ = toy()
    strategy = AfliteReadability(partitions=8, readability=formula, direction=direction)
    chosen = strategy.select(pool, 12, rng())
    assert all(pool.texts[row] == wanted for row in chosen.indices)
    easier = chosen.scores[pool.texts.index(EASY)] > chosen.scores[pool.texts.index(HARD)]
    assert easier == (formula == "flesch_reading_ease")


def test_texts_without_words_come_last():
    pool = Pool(ids=range(4), labels=[0, 1, 0, 1], embeddings=np.eye(4), texts=["...", HARD, "", EASY])
    for direction, first in (("easy", [3, 1]), ("hard", [1, 3])):
        order = AfliteReadability(direction=direction).select(pool, 4, rng()).indices.tolist()
        assert order == [*first, 0, 2]


@pytest.mark.parametrize("k", [5, 40, 70, 119])
def test_no_class_falls_below_its_floor_and_the_budget_is_always_left(k):
    source = rng(3)
    labels = (np.arange(120) % 10 == 0).astype(int)
    rows = source.standard_normal((120, 4)) + 9 * labels[:, None]
    pool = Pool(ids=np.arange(120), labels=labels, embeddings=rows - 4, texts=[EASY] * 120)
    removed = AfliteReadability(partitions=8, floor=0.25).select(pool, k, rng()).columns["removed"]
    left = np.bincount(labels[removed == 0])
    assert left.sum() >= k
    assert (left >= np.ceil(max(0.25, k / 120) * np.bincount(labels) - 1e-9)).all()
    assert left.sum() < 120 or k == 119


def test_a_slice_bounds_what_one_iteration_removes():
    pool, _ = toy()
    removed = AfliteReadability(partitions=8, slice_share=0.1).select(pool, 12, rng()).columns["removed"]
    left = np.array([60, 60])
    for iteration in range(1, removed.max() + 1):
        out = np.bincount(pool.labels[removed == iteration], minlength=2)
        assert (out <= np.maximum(1, left * 0.1)).all()
        left -= out


def test_a_threshold_that_nothing_reaches_leaves_readability_alone():
    source = rng(1)
    pool = Pool(
        ids=np.arange(80),
        labels=source.integers(0, 4, 80),
        embeddings=source.standard_normal((80, 5)),
        texts=[EASY if i % 2 else HARD for i in range(80)],
    )
    chosen = AfliteReadability(partitions=30, threshold=1.0).select(pool, 40, rng())
    assert (chosen.columns["removed"] > 0).sum() < 8
    assert sum(pool.texts[row] == EASY for row in chosen.indices) >= 32


def test_ridge_predictability_is_that_of_a_ridge_regression_per_partition():
    source = rng(5)
    classes = source.integers(0, 3, 90)
    rows = source.standard_normal((90, 4)) + np.eye(3, 4)[classes]
    rows -= rows.mean(axis=0)
    draws, right, asked = rng(7), np.zeros(90), np.zeros(90)
    for _ in range(20):
        fitted = draws.permutation(90)[:54]
        x = np.column_stack([rows[fitted], np.ones(54)])
        penalty = 0.01 * np.diag(np.append(np.full(4, (rows[fitted] ** 2).sum() / 4), 0))
        weights = np.linalg.inv(x.T @ x + penalty) @ x.T @ np.eye(3)[classes[fitted]]
        out = np.setdiff1d(np.arange(90), fitted)
        right[out] += (np.column_stack([rows[out], np.ones(36)]) @ weights).argmax(axis=1) == classes[out]
        asked[out] += 1
    ours = predictability(rows, classes, rng(7), partitions=20, train_share=0.6)
    np.testing.assert_allclose(ours, right / asked)
    assert 0.4 < ours.mean() < 0.95


def test_ridge_and_logistic_order_the_rows_alike():
    source = rng(2)
    classes = source.integers(0, 4, 600)
    rows = 0.8 * source.standard_normal((600, 20)) + source.standard_normal((4, 20))[classes] * 0.4
    rows -= rows.mean(axis=0)
    ours, faithful = (predictability(rows, classes, rng(1), model, 24) for model in ("ridge", "logistic"))
    ranks = [np.argsort(np.argsort(votes)) for votes in (ours, faithful)]
    assert np.corrcoef(ranks)[0, 1] > 0.8


def test_token_labels_are_refused_by_name():
    pool = Pool(ids=range(3), labels=np.zeros((3, 4), int), embeddings=np.eye(3), texts=["a"] * 3)
    with pytest.raises(ValueError, match="`aflite_readability` needs one label per row"):
        AfliteReadability().select(pool, 2, rng())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "svm"}, '`model` must be "ridge" or "logistic", got \'svm\''),
        ({"readability": "fog"}, "`readability` must be"),
        ({"direction": "low"}, '`direction` must be "easy" or "hard"'),
        ({"partitions": 1}, "`partitions` must be at least 2"),
        ({"threshold": 0}, "`threshold` must be a share above 0"),
        ({"train_share": 1}, "`train_share` must be a share above 0 and below 1"),
        ({"floor": 1.5}, "`floor` must be a share above 0 and at most 1, got 1.5"),
    ],
)
def test_hyper_parameters_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        AfliteReadability(**settings)
