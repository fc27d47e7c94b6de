"""One contract for every strategy: the built-in ones, their variants, and one that a user might write."""

import doctest
import importlib
import pkgutil
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import tithe.selection
from tithe.selection import STRATEGIES, WRAPPERS, Pool, Selection, Strategy, check_request, get_strategy


@dataclass(frozen=True)
class Hardest:
    """A user's own strategy: the rows with the largest EL2N."""

    needs: ClassVar[frozenset[str]] = frozenset({"el2n"})

    def select(self, pool, k, rng):
        check_request("hardest", pool, k, self.needs)
        return Selection(pool.ids[np.lexsort((pool.ids, -pool.el2n))[:k]], pool.el2n)


VARIANTS = {
    "random": {"stratified": {"stratified": True}},
    "aflite_readability": {
        "logistic": {"model": "logistic", "partitions": 4},
        "hard": {"partitions": 5, "threshold": 0.3, "slice_share": 0.4, "floor": 0.1, "direction": "hard"},
    },
    "k_center": {"robust": {"robust": 0.1}, "raw": {"normalize": False}},
    "entropy_diversity": {"d2": {"diversity": "d2", "beta": 2.0}},
    "facility_location": {"few": {"neighbours": 5}, "exact": {"neighbours": 1000}},
    "qdit_lite": {
        "facility": {"distance": "facility_location"},
        "few": {"distance": "facility_location", "neighbours": 5},
    },
    "lexical_diversity": {"high": {"direction": "high", "cut": 0.1}, "binned": {"bins": 3, "length_bins": 1}},
    "perplexity": {"low": {"direction": "low", "length_bins": 1}, "binned": {"bins": 4, "cut": 0.2}},
    "el2n": {"paper": {"cut": 0.0, "bins": 1}, "mid": {"direction": "mid", "cut": 0.3}},
    "ifd": {"raw": {"per_class": False}, "low": {"direction": "low", "ceiling": 0.5}},
    "bald": {"greedy": {"beta": None}},
    "committee": {"votes": {"disagreement": "vote_entropy"}, "consensus": {"disagreement": "consensus_entropy"}},
    "margin_coverage": {"local": {"temperature": 0.01, "shortlist": 2.0}},
    "edfs_lite": {"four": {"buckets": 4}, "uneven": {"shares": (0.0, 0.9, 0.1)}},
}
CASES = {name: get_strategy(name) for name in STRATEGIES} | {"user": Hardest()}
CASES |= {f"{name}-{key}": get_strategy(name, **kw) for name, of in VARIANTS.items() for key, kw in of.items()}
CASES |= {
    f"{outer}:{inner}": wrapper(CASES[inner])
    for outer, wrapper in WRAPPERS.items()
    for inner in ("random", "k_center", "entropy_diversity", "user")
}
CASES["noisy:deduplicated:balanced:user"] = WRAPPERS["noisy"](WRAPPERS["deduplicated"](CASES["balanced:user"], 0.5))
CASES["balanced:random-predicted"] = WRAPPERS["balanced"](CASES["random"], by="predicted", shares="pool")

every_strategy = pytest.mark.parametrize("strategy", CASES.values(), ids=CASES.keys())


ROWS_AXIS = {"mc_probabilities": 1, "committee_probabilities": 1}
OF_ROWS = ("texts", "labels", "embeddings", "probabilities", "mc_probabilities", "committee_probabilities")
OF_ROWS += ("el2n", "perplexity", "ifd", "head_inputs")
PROSE = (
    "the cat sat on a mat and then it ran to see what all of those unmistakably extraordinary birds were doing".split()
)


def make_pool(n=60, classes=4, dimensions=8, selected=0, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(10 * n)
    fields = {
        "embeddings": rng.standard_normal((n, dimensions)),
        "probabilities": rng.dirichlet(np.ones(classes), n),
        "el2n": rng.random(n),
        "perplexity": 4 * rng.random(n),
        "ifd": 1.5 * rng.random(n),
        "mc_probabilities": rng.dirichlet(np.ones(classes), (5, n)),
        "committee_probabilities": rng.dirichlet(np.ones(classes), (3, n)),
        "head_inputs": rng.standard_normal((n, dimensions)),
    }
    known = Pool.__dataclass_fields__
    return Pool(
        ids=numbers[:n],
        selected=numbers[n : n + selected],
        texts=[" ".join(rng.choice(PROSE, rng.integers(1, 90))) + "." for _ in range(n)],
        labels=rng.integers(0, classes, n),
        selected_embeddings=rng.standard_normal((selected, dimensions)).astype(dtype) if selected else None,
        **{name: values.astype(dtype) for name, values in fields.items() if name in known},
    )


def rows_of(pool, order):
    """All that `pool` says of each row, at the positions `order`; the ids stay."""
    taken = {}
    for name in OF_ROWS:
        if (values := getattr(pool, name, None)) is not None:
            taken[name] = [values[i] for i in order] if name == "texts" else values.take(order, ROWS_AXIS.get(name, 0))
    return taken


def permuted(pool, order):
    return replace(pool, ids=pool.ids[order], **rows_of(pool, order))


def size_of(strategy, pool, k):
    return len(pool) if strategy == get_strategy("all") else k


def assert_valid(selection, strategy, pool, k):
    assert len(selection.indices) == size_of(strategy, pool, k)
    assert len(set(selection.indices.tolist())) == len(selection.indices)
    assert np.isin(selection.indices, pool.ids).all()
    assert not np.isin(selection.indices, pool.selected).any()
    assert selection.scores.shape == (len(pool),)


@every_strategy
def test_it_is_a_frozen_strategy_that_names_pool_fields(strategy):
    assert isinstance(strategy, Strategy)
    assert strategy.needs <= set(Pool.__dataclass_fields__) - {"ids", "selected"}
    with pytest.raises(AttributeError):
        strategy.anything = 1


@every_strategy
@pytest.mark.parametrize("k", [1, 2, 7, 30, 59, 60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_picks_k_distinct_candidates(strategy, k, dtype):
    pool = make_pool(dtype=dtype)
    selection = strategy.select(pool, k, np.random.default_rng(1))
    assert_valid(selection, strategy, pool, k)
    if k == len(pool):
        assert set(selection.indices.tolist()) == set(pool.ids.tolist())


@every_strategy
def test_a_pool_of_one_row_gives_that_row(strategy):
    pool = make_pool(n=1)
    assert strategy.select(pool, 1, np.random.default_rng(0)).indices.tolist() == pool.ids.tolist()


@every_strategy
@pytest.mark.parametrize("k", [0, -3, 61])
def test_a_k_out_of_range_is_refused(strategy, k):
    with pytest.raises(ValueError, match=rf"k={k} rows from a pool of 60"):
        strategy.select(make_pool(), k, np.random.default_rng(0))


@every_strategy
@pytest.mark.parametrize("selected", [0, 5])
def test_the_same_seed_gives_the_same_picks_in_any_row_order(strategy, selected):
    pool = make_pool(selected=selected)
    first = strategy.select(pool, 12, np.random.default_rng(3))
    again = strategy.select(pool, 12, np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(pool))
    other = strategy.select(permuted(pool, order), 12, np.random.default_rng(3))
    assert first.indices.tolist() == again.indices.tolist() == other.indices.tolist()
    np.testing.assert_array_equal(first.scores[order], other.scores)
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column[order], other.columns[name])


@every_strategy
def test_the_global_generator_is_left_alone(strategy):
    before = np.random.get_state()[1].copy()
    strategy.select(make_pool(), 12, np.random.default_rng(3))
    assert (np.random.get_state()[1] == before).all()


@every_strategy
@pytest.mark.parametrize("rows", ["one", "three"])
def test_duplicated_rows_still_fill_k_in_any_row_order(strategy, rows):
    pool = make_pool(n=30)
    of = np.arange(30) % (1 if rows == "one" else 3)
    pool = replace(pool, **rows_of(pool, of))
    selection = strategy.select(pool, 20, np.random.default_rng(0))
    assert_valid(selection, strategy, pool, 20)
    other = strategy.select(permuted(pool, np.arange(30)[::-1]), 20, np.random.default_rng(0))
    assert selection.indices.tolist() == other.indices.tolist()


@every_strategy
def test_a_single_class_works(strategy):
    pool = make_pool(classes=1)
    assert_valid(strategy.select(pool, 10, np.random.default_rng(0)), strategy, pool, 10)


@every_strategy
def test_rounds_never_repeat_a_row_and_exhaust_the_pool(strategy):
    whole = make_pool(n=40)
    chosen = np.empty(0, dtype=np.int64)
    for k in (5, 20, 15):
        left = ~np.isin(whole.ids, chosen)
        pool = replace(
            permuted(whole, np.flatnonzero(left)),
            selected=chosen,
            selected_embeddings=whole.embeddings[[whole.ids.tolist().index(i) for i in chosen]],
        )
        selection = strategy.select(pool, min(k, len(pool)), np.random.default_rng(0))
        assert_valid(selection, strategy, pool, k)
        chosen = np.concatenate([chosen, selection.indices])
        if len(chosen) == len(whole):
            break
    assert sorted(chosen.tolist()) == sorted(whole.ids.tolist())


@every_strategy
def test_each_needed_field_is_asked_for_by_name(strategy):
    for name in strategy.needs:
        pool = make_pool(selected=3)
        pool = Pool(
            ids=pool.ids,
            selected=pool.selected,
            **{other: getattr(pool, other) for other in strategy.needs if other != name},
        )
        with pytest.raises(ValueError, match=f"needs `{name}`"):
            strategy.select(pool, 3, np.random.default_rng(0))


@every_strategy
def test_it_reads_nothing_that_it_did_not_ask_for(strategy):
    pool = make_pool(selected=3)
    bare = Pool(ids=pool.ids, selected=pool.selected, **{name: getattr(pool, name) for name in strategy.needs})
    ours, full = (strategy.select(p, 9, np.random.default_rng(0)) for p in (bare, pool))
    assert ours.indices.tolist() == full.indices.tolist()


@pytest.mark.parametrize("name", sorted(set().union(*(s.needs for s in CASES.values())) - {"labels", "texts"}))
def test_signals_that_are_not_finite_never_reach_a_strategy(name):
    pool = make_pool(selected=60)
    signal = getattr(pool, name).copy()
    np.moveaxis(signal, ROWS_AXIS.get(name, 0), 0)[7] = np.nan
    with pytest.raises(ValueError, match=f"`{name}` is not finite in 1 of 60 rows"):
        replace(pool, **{name: signal})


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(tithe.selection.__path__)])
def test_the_examples_in_the_docstrings_are_true(module):
    result = doctest.testmod(importlib.import_module(f"tithe.selection.{module}"))
    assert result.failed == 0


def test_every_strategy_has_an_example():
    assert all(">>>" in strategy.__doc__ for strategy in (*STRATEGIES.values(), *WRAPPERS.values()))
