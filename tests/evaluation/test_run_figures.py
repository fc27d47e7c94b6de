import warnings

import numpy as np
import pytest
from PIL import Image

from tithe.evaluation import learning_curve, loss_curve, pool_map
from tithe.evaluation.plane import principal_plane, sampled
from tithe.evaluation.run_figures import MOST_BACKGROUND, _smooth


EVALS = [{"step": 10 * k, "value": 0.1 * k} for k in range(1, 8)]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) >= 500
        drawn = np.asarray(image.convert("RGB")).astype(int)
    assert 0.003 < (drawn.min(axis=2) < 200).mean() < 0.9
    return drawn


def near(drawn, colour, within=40):
    """Number of pixels [height, width, 3] close to the colour "#rrggbb"."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(drawn - wanted).max(axis=2) < within).sum())


def rounds(count, last=70):
    return [{"round": r, "step": r * last // count, "size": 1000 * (r + 1)} for r in range(count)]


@pytest.mark.parametrize("count", [1, 4, 30])
def test_learning_curve_marks_the_rounds(tmp_path, count):
    plain = pixels(learning_curve(tmp_path / "plain.png", EVALS))
    marked = pixels(learning_curve(tmp_path / "marked.png", EVALS, rounds(count)))
    assert near(plain, "#D55E00") == 0 < near(marked, "#D55E00")


def test_rounds_that_begin_at_one_step_show_the_last_size(tmp_path):
    together = [{"round": r, "step": 0, "size": size} for r, size in enumerate([100, 200, 300])]
    alone = [{"round": 2, "step": 0, "size": 300}]
    drawn = [learning_curve(tmp_path / f"{len(rows)}.png", EVALS, rows).read_bytes() for rows in (together, alone)]
    assert drawn[0] == drawn[1]


def test_curves_do_not_depend_on_the_order_of_rows_and_bear_gaps(tmp_path):
    rows = [*EVALS, {"step": 80, "value": None}, {"step": 90, "value": float("nan")}, {"step": 100, "value": 0.9}]
    for draw in (learning_curve, loss_curve):
        path, again = draw(tmp_path / "a.png", rows), draw(tmp_path / "b.png", rows[::-1])
        pixels(path)
        assert path.read_bytes() == again.read_bytes()
    with pytest.raises(ValueError, match="`evals` is empty"):
        learning_curve(tmp_path / "none.png", [])


def test_loss_curve_adds_the_validation_loss(tmp_path):
    rows = [{"step": k, "value": 2.0 / (k + 1)} for k in range(200)]
    alone, both = loss_curve(tmp_path / "a.png", rows), loss_curve(tmp_path / "b.png", rows, EVALS)
    assert near(pixels(alone), "#D55E00") == 0 < near(pixels(both), "#D55E00")


def test_smoothing_keeps_lines_and_skips_gaps():
    line = np.arange(200.0)
    assert _smooth(line)[10:-10] == pytest.approx(line[10:-10])
    holed = np.full(200, 3.0)
    holed[[5, 6, 190]] = np.nan
    assert _smooth(holed) == pytest.approx(np.full(200, 3.0))
    assert np.isnan(_smooth(np.full(60, np.nan))).all()


def blobs(n=3000, d=16):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, d)) * 4
    return (centres[rng.integers(5, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4, 20])
def test_pool_map_is_a_picture_and_the_same_each_time(tmp_path, count):
    chosen = list(np.random.default_rng(1).permutation(3000)[:400].reshape(count, -1))
    path, again = (pool_map(tmp_path / name, blobs(), chosen) for name in ("a.png", "b.png"))
    drawn = pixels(path)
    assert path.read_bytes() == again.read_bytes()
    assert near(drawn, "#440154") > 200  # the first round
    assert near(drawn, "#D0D0D0", within=10) > 2000  # the pool


def test_pool_map_of_a_large_memory_mapped_pool(tmp_path):
    points = blobs(MOST_BACKGROUND * 2)
    np.save(tmp_path / "e.npy", points)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    chosen = [np.arange(15_000), np.arange(15_000, 20_000), []]
    path, again = pool_map(tmp_path / "a.png", mapped, chosen), pool_map(tmp_path / "b.png", points, chosen)
    pixels(path)
    assert path.read_bytes() == again.read_bytes()


def test_samples_are_proportional_and_distinct():
    groups = sampled([np.arange(15_000), np.arange(15_000, 20_000)], 1000)
    assert [len(group) for group in groups] == [750, 250]
    assert all((np.diff(group) > 0).all() for group in groups)
    assert groups[1].min() >= 15_000
    assert len(sampled([np.arange(10)], 10)[0]) == 10


def test_plane_is_that_of_the_singular_values():
    points = blobs(200, 6).astype(np.float64)
    mean, plane, shares = principal_plane(points)
    _, singular, right = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    assert np.abs(plane.T @ right[:2].T) == pytest.approx(np.eye(2), abs=1e-9)
    assert shares == pytest.approx((singular**2 / (singular**2).sum())[:2])
    assert mean == pytest.approx(points.mean(axis=0))
    assert (plane[np.abs(plane).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize("points", [np.arange(5.0)[:, None], np.ones((5, 3))])
def test_flat_pools_are_drawn(tmp_path, points):
    with Image.open(pool_map(tmp_path / "flat.png", points, [[1], [2]])) as image:
        assert (np.asarray(image.convert("L")) < 120).any()


def test_errors_name_what_is_wrong(tmp_path):
    points = blobs(10)
    for embeddings, chosen, message in [
        (points[0], [[0]], r"shape \(16,\)"),
        (points, [[0], [10]], "round 1 has rows from 10 to 10 of a pool of 10"),
        (points, [[0.5]], "float64"),
        (np.where(np.arange(10)[:, None] == 3, np.nan, points), [[0]], "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            pool_map(tmp_path / "map.png", embeddings, chosen)
    assert list(tmp_path.iterdir()) == []
