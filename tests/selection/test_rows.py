import numpy as np
import pytest

from tithe.selection.rows import BLOCK_ROWS, COPY_BYTES, Rows, nearest_squared


N = BLOCK_ROWS + 37


@pytest.fixture(params=["plain", "permuted", "double", "shifted", "mapped"])
def case(request, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, 5)).astype(np.float32)
    positions = None
    if request.param == "permuted":
        positions = rng.permutation(N)[: N - 5]
    if request.param == "double":
        rows = rows.astype(np.float64)
    if request.param == "shifted":
        rows = rows + np.float32(50)
    if request.param == "mapped":
        np.save(tmp_path / "rows.npy", rows)
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    return rows, positions, np.asarray(rows, dtype=np.float64)[slice(None) if positions is None else positions]


@pytest.mark.parametrize("copy_bytes", [0, COPY_BYTES])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_way_of_reading_gives_the_same_distances(case, reference, monkeypatch, copy_bytes, normalize):
    monkeypatch.setattr("tithe.selection.rows.COPY_BYTES", copy_bytes)
    array, positions, expected = case
    if normalize:
        expected = reference.unit(expected)
    rows = Rows(array, positions, normalize=normalize)
    where = np.array([0, 3, len(rows) - 1])
    least = np.full(len(rows), np.inf, dtype=np.float32)
    rows.lower(least, rows.take(where))
    to_three = reference.distances(expected, expected[where]) ** 2
    np.testing.assert_allclose(least, to_three.min(axis=1), rtol=1e-4, atol=1e-4 if normalize else 2e-3)
    assert (least[where] == 0).all()
    np.testing.assert_allclose(rows.among(where), to_three[where], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(nearest_squared(rows, array[:1]), nearest_squared(rows, array[[0, 0, 0]], batch=2))
    if normalize:
        np.testing.assert_allclose(rows.products(rows.take(where)), expected[where] @ expected.T, atol=1e-5)
        np.testing.assert_allclose(rows.mean()[0], expected.mean(axis=0), atol=1e-5)
    assert rows.from_mean().argmin() == reference.medoid(expected)


def test_a_bound_only_falls():
    rows = Rows(np.array([[0.0], [1.0], [2.0]]))
    least = np.array([0.5, 0.5, 0.5], dtype=np.float32)
    rows.lower(least, rows.take(np.array([0])))
    assert least.tolist() == [0.0, 0.5, 0.5]
