"""The bfloat16 pass may call too many rows, but never misses one: the results are those of float32."""

import numpy as np
import pytest
import torch  # noqa: F401  (the screen is only used where somebody has imported it)

import tithe.selection.screen
from tithe.selection import k_center_greedy
from tithe.selection.rows import Rows
from tithe.selection.screen import Screen


def mixture(n, d, seed, spread=0.5):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n // 50 + 1, d))[rng.integers(0, n // 50 + 1, n)] + spread * rng.standard_normal(
        (n, d)
    )
    return rows.astype(np.float32)


@pytest.fixture(params=["in hardware", "emulated"])
def screened(request, monkeypatch):
    """Use the screen whatever this machine can do: PyTorch emulates the product where it must."""
    if request.param == "emulated":
        monkeypatch.setattr(tithe.selection.screen, "multiplies_bfloat16", lambda: True)
    elif not tithe.selection.screen.multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("unit", [True, False])
def test_no_row_that_is_nearer_is_missed(screened, scale, unit):
    rows, centres = mixture(3000, 24, 0) * scale, mixture(64, 24, 1) * scale
    scales = None
    if unit:
        scales = 1 / np.linalg.norm(rows, axis=1)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    exact = rows.astype(np.float64) * (scales[:, None] if unit else 1)
    squared = ((exact[:, None] - centres[None].astype(np.float64)) ** 2).sum(-1).min(axis=1)
    squares = (exact**2).sum(axis=1).astype(np.float32)
    screen = Screen.over(np.ascontiguousarray(centres.T), (centres**2).sum(axis=1) / 2)
    # Thresholds on both sides of the true distance, down to the last bit: as hard as it gets.
    for factor, nearer in ((1 + 1e-6, True), (1.2, True), (0.5, False)):
        called = screen.may_be_nearer(rows, scales, squares, (squared * factor).astype(np.float32))
        if nearer:
            assert len(called) == len(rows)
        else:
            assert len(called) < len(rows) / 2


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_k_center_is_the_same_with_and_without(screened, monkeypatch, normalize, shift):
    rows = mixture(6000, 16, 2) + np.float32(shift)
    with_screen = k_center_greedy(rows, 600, normalize=normalize, block=64)
    monkeypatch.setattr(tithe.selection.screen, "multiplies_bfloat16", lambda: False)
    without = k_center_greedy(rows, 600, normalize=normalize, block=64)
    assert with_screen.order.tolist() == without.order.tolist()
    np.testing.assert_allclose(
        with_screen.distances, without.distances, atol=2e-6 * (1 + np.abs(without.distances).max())
    )


def test_the_screen_is_used_for_large_pools(screened, monkeypatch):
    used = []
    call = Screen.may_be_nearer
    monkeypatch.setattr(Screen, "may_be_nearer", lambda self, *args: used.append(len(args[0])) or call(self, *args))
    k_center_greedy(mixture(5000, 16, 0), 200)
    k_center_greedy(mixture(500, 16, 0), 200)
    assert sum(used) >= 5000 and sum(used) % 5000 == 0


def test_a_read_only_memory_map_is_read_without_a_warning(screened, tmp_path, recwarn):
    np.save(tmp_path / "rows.npy", mixture(5000, 16, 0))
    rows = Rows(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    least = np.full(5000, np.inf, dtype=np.float32)
    rows.lower(least, rows.take(np.arange(40)))
    rows.lower(least, rows.take(np.arange(40, 80)))
    assert not recwarn.list and (least[:80] == 0).all()
