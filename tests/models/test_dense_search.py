"""The exact search finds what a float32 product finds; faiss finds nearly that."""

import numpy as np
import pytest
import torch

from tithe.models import dense_search as module
from tithe.models.dense_search import ExactSearch, FaissSearch


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_rows(count, seed=0, width=48):
    return unit(np.random.default_rng(seed).standard_normal((count, width)))


def crowded_rows(count, seed=0, width=48):
    """So near to each other that bfloat16 sees hundreds of them as equal."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((3, width))
    return unit(centres[rng.integers(0, 3, count)] + 0.004 * rng.standard_normal((count, width)))


def best(rows, queries, k):
    products = queries.astype(np.float64) @ rows.T.astype(np.float64)
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(products, order, axis=1)


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("make", [random_rows, crowded_rows])
@pytest.mark.parametrize("count", [5, 100, 3001])
@pytest.mark.parametrize("k", [1, 10, 40])
def test_finds_what_float32_finds(make, count, k, dtype):
    rows, queries, k = make(count), make(33, seed=1), min(k, count)
    hits = ExactSearch(rows, dtype=dtype).search(queries, k)
    wanted, products = best(rows, queries, k)
    np.testing.assert_allclose(hits.scores, products, atol=1e-6)
    apart = np.diff(products, axis=1, append=-9) < -1e-6  # nearer to each other, float32 may have them either way
    apart &= np.diff(products, axis=1, prepend=9) < -1e-6
    assert apart.mean() > 0.8
    np.testing.assert_array_equal(hits.rows[apart], wanted[apart])


def test_the_first_pass_alone_would_not_do():
    rows, queries = crowded_rows(3001), crowded_rows(33, seed=1)
    rough = (torch.from_numpy(queries).bfloat16() @ torch.from_numpy(rows).bfloat16().T).float()
    twenty = rough.topk(20).indices.numpy()
    wanted, _ = best(rows, queries, 10)
    missed = [set(row) - set(twenty[number]) for number, row in enumerate(wanted.tolist())]
    assert sum(map(len, missed)) > 33


@pytest.mark.parametrize("k", [1, 7, 600])
def test_blocks_change_nothing(k, dtype, monkeypatch):
    rows, queries = random_rows(1000), random_rows(50, seed=1)
    rows[500:520] = rows[:20]
    whole = ExactSearch(rows, dtype=dtype).search(queries, k)
    monkeypatch.setattr(module, "_ROWS", 130)
    monkeypatch.setattr(module, "_QUERIES", 7)
    monkeypatch.setattr(module, "_PAIRS", 11)
    blocks = ExactSearch(rows, dtype=dtype).search(queries, k)
    np.testing.assert_array_equal(whole.rows, blocks.rows)
    np.testing.assert_array_equal(whole.scores, blocks.scores)


def test_equal_rows_come_in_their_order(dtype):
    rows = np.repeat(random_rows(4), 500, axis=0)
    hits = ExactSearch(rows, dtype=dtype).search(rows[[0, 700]], 600)
    assert hits.rows[:, :500].tolist() == [list(range(500)), list(range(500, 1000))]
    assert (np.diff(hits.rows[:, 500:], axis=1) > 0).all()
    assert (hits.scores[:, :500] == hits.scores[:, :1]).all()


def test_rows_of_nothing_have_a_product_of_zero(dtype):
    rows = random_rows(30)
    rows[[3, 8]] = 0
    hits = ExactSearch(rows, dtype=dtype).search(random_rows(5, seed=1), 30)
    assert (hits.scores[(hits.rows == 3) | (hits.rows == 8)] == 0).all()


def test_memory_is_bounded(monkeypatch):
    """Of one block, not of all products."""
    sizes, original = [], torch.mm

    def counted(*args, **kwargs):
        sizes.append(kwargs["out"].numel())
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", counted)
    monkeypatch.setattr(module, "_ROWS", 100)
    ExactSearch(random_rows(950)).search(random_rows(600, seed=1), 3)
    assert sum(sizes) == 950 * 600 and max(sizes) == 100 * module._QUERIES


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_faiss_finds_nearly_the_same(kind, tmp_path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 32))
    rows = unit(centres[rng.integers(0, 60, 3000)] + 0.5 * rng.standard_normal((3000, 32)))
    queries = unit(rows[:100] + 0.1 * rng.standard_normal((100, 32)))
    search = FaissSearch(rows, kind)
    exact, near = ExactSearch(rows).search(queries, 10), search.search(queries, 10)
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(exact.rows, near.rows, strict=True)]) / 10
    assert recall > 0.9
    np.testing.assert_allclose(near.scores, (rows[near.rows] * queries[:, None]).sum(axis=2), atol=1e-6)
    search.save(tmp_path / "index")
    np.testing.assert_array_equal(FaissSearch(rows, kind, tmp_path / "index").search(queries, 10).rows, near.rows)
    assert search.size_bytes == (tmp_path / "index").stat().st_size


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_where_faiss_finds_too_few_all_rows_are_searched(kind):
    pytest.importorskip("faiss")
    rows, queries = random_rows(2000), random_rows(4, seed=1)
    hits = FaissSearch(rows, kind).search(queries, 1900)
    np.testing.assert_array_equal(hits.rows, ExactSearch(rows, dtype=torch.float32).search(queries, 1900).rows)
