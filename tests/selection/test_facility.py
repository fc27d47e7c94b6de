import numpy as np
import pytest

from tithe.selection import FacilityLocation, Pool, facility_location_greedy, get_strategy
from tithe.selection.neighbours import nearest_rows
from tithe.selection.rows import Rows


def clustered(n, dimensions=12, centres=15, spread=0.4, seed=0):
    source = np.random.default_rng(seed)
    middles = source.standard_normal((centres, dimensions))
    return middles[source.integers(0, centres, n)] + spread * source.standard_normal((n, dimensions))


def greedy_over_graph(unit, k, neighbours, weights=None, able=None, earlier=None):
    """Plain greedy, all gains anew for every pick: each row counts its `neighbours` best among those `able`.

    After 16 picks, and ever rarer later, all rows hear of all picks, neighbours or not.
    """
    n = len(unit)
    able = np.arange(n) if able is None else np.sort(able)
    cosines = np.maximum(unit @ unit[able].T, 0)
    cutoff = -np.sort(-cosines, axis=1)[:, min(neighbours, len(able)) - 1]
    cosines = np.where(cosines >= cutoff[:, None], cosines, 0)
    weights = np.ones(n) if weights is None else weights
    best = np.zeros(n) if earlier is None else np.maximum((unit @ earlier.T).max(axis=1), 0)
    order, gains, done = [], [], 0
    while len(order) < k:
        if len(order) >= done + 16 + done // 8:
            best, done = np.maximum(best, (unit @ unit[order].T).max(axis=1)), len(order)
        gain = weights @ np.maximum(cosines - best[:, None], 0)
        gain[np.isin(able, order)] = -np.inf
        column = int((gain > gain.max() - 1e-6).argmax())
        order.append(int(able[column]))
        gains.append(gain[column])
        best = np.maximum(best, cosines[:, column])
    return order, np.array(gains) / gains[0]


@pytest.mark.parametrize("earlier", [0, 7])
@pytest.mark.parametrize("neighbours", [3, 6, 25, 400])
def test_it_is_greedy_over_the_neighbour_graph(reference, earlier, neighbours):
    rows = clustered(400)
    before = np.random.default_rng(1).standard_normal((earlier, 12))
    unit = reference.unit(rows)
    order, gains = greedy_over_graph(unit, 40, neighbours, earlier=reference.unit(before) if earlier else None)
    pool = Pool(ids=np.arange(400), selected=1000 + np.arange(earlier), embeddings=rows, selected_embeddings=before)
    selection = FacilityLocation(neighbours).select(pool, 40, np.random.default_rng(0))
    assert selection.indices.tolist() == order
    np.testing.assert_allclose(selection.scores[order], gains, rtol=1e-4)
    rest = np.setdiff1d(np.arange(400), order)
    assert selection.scores[rest].max() <= gains[-1] + 1e-5


@pytest.mark.parametrize("neighbours", [10, 400])
def test_a_subset_serves_all_rows_by_their_weights(reference, neighbours):
    rows, source = clustered(400), np.random.default_rng(2)
    weights, able = source.random(400), source.choice(400, 90, replace=False)
    weights[:50] = 0
    order, gains = greedy_over_graph(reference.unit(rows), 30, neighbours, weights, able)
    served = facility_location_greedy(rows, 30, weights=7 * weights, rows=able, neighbours=neighbours)
    assert served.order.tolist() == order
    np.testing.assert_allclose(served.values[order], gains, rtol=1e-4)
    assert np.isnan(served.values).sum() == 310 and not np.isnan(served.values[able]).any()


def test_weights_draw_the_picks_to_the_rows_that_have_them():
    rows = clustered(300, centres=3, spread=0.1)
    left = facility_location_greedy(rows, 1).order[0]
    same = rows @ rows[left] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[left]) > 0.9
    weights = np.where(same, 0.01, 1.0)
    assert not same[facility_location_greedy(rows, 1, weights=weights).order[0]]


def test_row_order_and_duplicates_change_nothing(reference):
    rows = clustered(500)[np.random.default_rng(0).integers(0, 200, 500)]
    ids, weights = np.random.default_rng(1).permutation(9000)[:500], np.random.default_rng(2).random(500)
    mixed = np.random.default_rng(3).permutation(500)
    args = {"neighbours": 20}
    first = facility_location_greedy(rows, 60, ids=ids, weights=weights, **args)
    other = facility_location_greedy(rows[mixed], 60, ids=ids[mixed], weights=weights[mixed], **args)
    assert ids[first.order].tolist() == ids[mixed][other.order].tolist()
    np.testing.assert_array_equal(first.values[mixed], other.values)


def test_a_group_of_more_duplicates_than_neighbours_is_served():
    rows = np.concatenate([clustered(300, spread=0.3), np.tile(np.eye(12)[0], (100, 1))])
    order = facility_location_greedy(rows, 20, neighbours=16).order
    assert (order >= 300).any()


def test_64_neighbours_keep_the_value_of_greedy_over_all_pairs(reference):
    unit = reference.unit(clustered(2500, dimensions=40, centres=120, spread=0.8))

    def value(picks):
        return np.maximum(unit @ unit[picks].T, 0).max(axis=1).sum()

    near = FacilityLocation().select(Pool(ids=np.arange(2500), embeddings=unit), 250, np.random.default_rng(0))
    exact = facility_location_greedy(unit, 250, neighbours=2500).order
    assert value(near.indices) > 0.998 * value(exact)
    assert value(exact) > 1.05 * value(np.random.default_rng(0).choice(2500, 250, replace=False))


def test_it_serves_the_mass_and_k_center_the_fringe():
    rows = np.concatenate([clustered(200, centres=4, spread=0.05), np.random.default_rng(5).standard_normal((6, 12))])
    pool = Pool(ids=np.arange(206), embeddings=rows)
    picks = {
        name: get_strategy(name).select(pool, 4, np.random.default_rng(0)).indices
        for name in ("facility_location", "k_center")
    }
    assert (picks["facility_location"] < 200).all()
    assert (picks["k_center"] >= 200).any()


@pytest.mark.parametrize(
    "n, count, able", [(60, 5, 60), (60, 100, 60), (3000, 64, 3000), (3000, 64, 700), (2500, 40, 30), (2100, 7, 1024)]
)
@pytest.mark.parametrize("kind", ["clustered", "sorted", "duplicates", "zeros"])
def test_the_nearest_rows_are_those_of_a_full_sort(n, count, able, kind, reference):
    rows = clustered(n)
    if kind == "sorted":
        rows = rows[np.argsort(rows[:, 0])]
    elif kind == "duplicates":
        rows[: n // 2] = rows[0]
    elif kind == "zeros":
        rows[: n // 3] = 0
    among = None if able == n else np.sort(np.random.default_rng(1).choice(n, able, replace=False))
    near, similar = nearest_rows(Rows(rows, normalize=True), count, among)
    scaled = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    cosines = scaled @ scaled.T
    columns = np.arange(n) if among is None else among
    expected = -np.sort(-cosines[:, columns], axis=1)[:, :count]
    assert near.shape == expected.shape
    np.testing.assert_allclose(-np.sort(-similar, axis=1), expected, atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, near, axis=1), similar, atol=2e-6)
    assert np.isin(near, columns).all()
    assert (np.diff(np.sort(near, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"k": 5}, "`k` must be from 1 to the 4 rows"),
        ({"k": 3, "rows": np.array([0, 2])}, "`k` must be from 1 to the 2 rows"),
        ({"k": 1, "weights": np.array([1, 1, 1, -1])}, "`weights` must be 4 finite numbers of at least 0"),
        ({"k": 1, "weights": np.ones(3)}, "`weights` must be 4 finite"),
    ],
)
def test_requests_are_checked(args, message):
    with pytest.raises(ValueError, match=message):
        facility_location_greedy(np.eye(4), **args)


def test_hyper_parameters_are_checked():
    with pytest.raises(ValueError, match="`neighbours` must be at least 1, got 0"):
        FacilityLocation(neighbours=0)
