import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tithe.selection import coverage_radius, k_center_greedy


BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "kcenter.py"
BLOCKS = [1, 2, 3, 7, 64, 512]


@pytest.fixture
def points():
    return np.random.default_rng(0).standard_normal((150, 6))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_makes_the_picks_of_greedy_from_the_medoid(points, reference, block, dtype):
    points = points.astype(dtype)
    wide = points.astype(np.float64)
    order, values, least = reference.greedy(wide, 60, [reference.medoid(wide)])
    covered = k_center_greedy(points, 60, block=block)
    assert covered.order.tolist() == order
    np.testing.assert_allclose(covered.values[covered.order], values, rtol=1e-5)
    np.testing.assert_allclose(covered.distances, least, atol=1e-5)
    rest = np.setdiff1d(np.arange(150), order)
    np.testing.assert_array_equal(covered.values[rest], covered.distances[rest])
    assert covered.radius == pytest.approx(least.max(), rel=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_it_starts_from_earlier_rows(points, reference, block):
    earlier = np.random.default_rng(1).standard_normal((9, 6))
    order, values, _ = reference.greedy(points, 50, earlier=earlier)
    covered = k_center_greedy(points, 50, selected_embeddings=earlier, block=block)
    assert covered.order.tolist() == order
    np.testing.assert_allclose(covered.values[order], values, rtol=1e-5)


def test_more_earlier_rows_than_one_batch_holds(points, reference):
    earlier = np.random.default_rng(1).standard_normal((1100, 6))
    order, *_ = reference.greedy(points, 50, earlier=earlier)
    assert k_center_greedy(points, 50, selected_embeddings=earlier).order.tolist() == order


@pytest.mark.parametrize("start", [0, 77])
def test_it_starts_from_a_given_row(points, reference, start):
    order, *_ = reference.greedy(points, 50, [start])
    assert k_center_greedy(points, 50, start=start).order.tolist() == order


def test_a_start_joins_earlier_rows(points, reference):
    order, *_ = reference.greedy(points, 50, [3], earlier=points[:2])
    assert k_center_greedy(points, 50, start=3, selected_embeddings=points[:2]).order.tolist() == order


@pytest.mark.parametrize("block", BLOCKS)
def test_normalising_measures_between_unit_vectors(points, reference, block):
    scaled = points * np.geomspace(0.01, 100, len(points))[:, None]
    order, values, _ = reference.greedy(reference.unit(points), 60, [5])
    covered = k_center_greedy(scaled, 60, start=5, normalize=True, block=block)
    assert covered.order.tolist() == order
    np.testing.assert_allclose(covered.values[order], values, rtol=1e-4)


def test_rows_of_zeros_are_one_point_when_normalised():
    rows = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    covered = k_center_greedy(rows, 3, start=0, normalize=True)
    assert covered.order.tolist() == [0, 4, 1]
    np.testing.assert_allclose(covered.values[[4, 1]], [2**0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(covered.distances, 0, atol=1e-6)
    # The other way round: from the origin, all directions are equally far.
    assert k_center_greedy(rows, 3, start=1, normalize=True).order.tolist() == [1, 0, 4]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("seed", range(6))
def test_ties_go_to_the_lowest_row(reference, block, seed):
    """Small integers: all arithmetic is exact, and nearly every pick is a tie."""
    grid = np.random.default_rng(seed).integers(0, 4, (80, 2)).astype(np.float64)
    order, values, _ = reference.greedy(grid, 80, [seed])
    covered = k_center_greedy(grid, 80, start=seed, block=block)
    assert covered.order.tolist() == order
    np.testing.assert_allclose(covered.values[order], values, rtol=1e-6)


@pytest.mark.parametrize("block", [1, 3, 512])
def test_ties_go_to_the_lowest_id_whatever_the_row_order(reference, block):
    rng = np.random.default_rng(0)
    grid = rng.integers(0, 4, (80, 2)).astype(np.float64)
    ids = rng.permutation(1000)[:80]
    by_id = np.argsort(ids)
    order, *_ = reference.greedy(grid[by_id], 80, [0])
    covered = k_center_greedy(grid, 80, start=int(by_id[0]), ids=ids, block=block)
    assert ids[covered.order].tolist() == ids[by_id][order].tolist()


ARRANGEMENTS = {
    "powers": 2.0 ** np.arange(12),
    "halving": np.concatenate([[0.0], 1024 / 2.0 ** np.arange(10)]),
    "even": np.arange(33.0),
    "even backwards": np.arange(33.0)[::-1].copy(),
    "two heaps": np.concatenate([np.zeros(20), np.ones(20)]),
    "heap and ramp": np.concatenate([np.full(20, 7.0), np.arange(20.0)]),
    "mirror": np.concatenate([np.arange(16.0), -np.arange(16.0)]),
    "far away": 1e6 + np.arange(40.0) % 13,
}


@pytest.mark.parametrize("block", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_arrangements_on_a_line_that_strain_the_block_bound(reference, name, block):
    """Picks that halve their neighbours' distances let rows outside the block draw level at once."""
    line = ARRANGEMENTS[name][:, None]
    order, *_ = reference.greedy(line, len(line), [0])
    assert k_center_greedy(line, len(line), start=0, block=block).order.tolist() == order


def test_duplicates_are_picked_last_once_each_and_by_id():
    distinct = np.random.default_rng(0).standard_normal((40, 384)).astype(np.float32)
    rows = np.tile(distinct, (5, 1))
    for normalize in (False, True):
        covered = k_center_greedy(rows, 200, normalize=normalize, block=16)
        assert sorted(covered.order.tolist()) == list(range(200))
        assert len(set(covered.order[:40] % 40)) == 40
        assert (np.diff(covered.order[40:]) > 0).all()
        assert (covered.values[covered.order[40:]] == 0).all()
        assert covered.radius == 0


def test_nearly_all_distance_digits_survive_far_from_the_origin(reference):
    points = np.random.default_rng(0).standard_normal((100, 5))
    order, values, _ = reference.greedy(points, 30, [0])
    covered = k_center_greedy(points + 1e7, 30, start=0)
    assert covered.order.tolist() == order
    np.testing.assert_allclose(covered.values[order], values, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 4, 512])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_a_quality_is_mixed_in(points, reference, block, alpha):
    quality = np.random.default_rng(2).random(len(points))
    order, values, least = reference.greedy(points, 40, [7], quality=quality, alpha=alpha)
    covered = k_center_greedy(points, 40, start=7, quality=quality, alpha=alpha, block=block)
    assert covered.order.tolist() == order
    np.testing.assert_allclose(covered.values[order], values, rtol=1e-5)
    np.testing.assert_allclose(covered.distances, least, atol=1e-5)


def test_rows_left_out_are_neither_picked_nor_covered(points, reference):
    inside = np.arange(10, 90)
    order, *_ = reference.greedy(points[inside], 20, [3])
    covered = k_center_greedy(points, 20, start=13, rows=inside)
    assert covered.order.tolist() == inside[order].tolist()
    outside = np.setdiff1d(np.arange(len(points)), inside)
    assert np.flatnonzero(np.isnan(covered.distances)).tolist() == outside.tolist()
    assert np.flatnonzero(np.isnan(covered.values)).tolist() == np.sort([*outside, 13]).tolist()
    assert covered.radius == np.nanmax(covered.distances)


def test_impossible_requests_are_refused(points):
    with pytest.raises(ValueError, match="`k` must be from 1 to the 5 rows"):
        k_center_greedy(points, 6, rows=np.arange(5))
    with pytest.raises(ValueError, match="`start` must be the position of a row that can be picked, got 5"):
        k_center_greedy(points, 2, rows=np.arange(5), start=5)
    with pytest.raises(ValueError, match="too large for float32"):
        k_center_greedy(np.array([[1e30], [-1e30], [0.0]]), 2)


def test_the_radius_of_a_cover_is_the_largest_least_distance(points, reference):
    chosen = points[::11]
    expected = reference.distances(points, chosen).min(axis=1).max()
    assert coverage_radius(points, chosen) == pytest.approx(expected, rel=1e-6)
    covered = k_center_greedy(points, 20)
    assert coverage_radius(points, points[covered.order]) == pytest.approx(covered.radius, rel=1e-6)
    assert coverage_radius(points, points[:0]) == np.inf
    unit = reference.unit(points)
    expected = reference.distances(unit, unit[:3]).min(axis=1).max()
    assert coverage_radius(points, points[:3], normalize=True) == pytest.approx(expected, rel=1e-6)


MEMORY = """
import numpy as np
from tithe.selection import k_center_greedy

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

rows = np.random.default_rng(0).standard_normal((40_000, 512), dtype=np.{dtype})
rows @ rows[:8].T
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")
before = peak()
k_center_greedy(rows, 600, normalize={normalize})
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize(("normalize", "dtype"), [(False, "float32"), (True, "float32"), (True, "float64")])
def test_no_second_copy_of_a_large_array_is_held(normalize, dtype):
    script = MEMORY.format(normalize=normalize, dtype=dtype)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 40  # MiB; a float32 copy would take 78


def test_the_benchmark_runs_and_agrees_with_the_loop(tmp_path):
    rows = np.random.default_rng(0).standard_normal((700, 16)).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    command = [sys.executable, BENCHMARK, "--quick", "--embeddings", tmp_path / "rows.npy", "--n", "600"]
    done = subprocess.run([*command, "--json", tmp_path / "out.json"], capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["data"] == {"source": "rows.npy", "rows": 600, "dimensions": 16, "fraction": 0.1}
    assert found["results"]["numpy loop"]["same_picks"] == 1.0
    assert "rows.npy, 600 x 16 float32, 10% picked, one thread" in done.stdout
