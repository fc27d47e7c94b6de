"""What docs/extending.md shows keeps the contracts, and is as short as the page says."""

import ast

import numpy as np
import pytest
from documentation import ROOT, blocks_of

from tithe.models import HybridRetriever
from tithe.selection import Pool, Strategy
from tithe.trainers import Oracle, Query
from tithe.trainers.oracles import ask


PAGE = ROOT / "docs" / "extending.md"
CLASSES = [block for block in blocks_of(PAGE, PAGE.name) if "\nclass " in block.text]
NAMES: dict = {}
for block in CLASSES:
    exec(compile(block.text, PAGE.name, "exec"), NAMES)


@pytest.mark.parametrize("block", CLASSES, ids=lambda block: f"line {block.line}")
def test_a_class_has_at_most_20_lines(block):
    found = next(node for node in ast.parse(block.text).body if isinstance(node, ast.ClassDef))
    lines = block.text.splitlines()[found.lineno - 1 : found.end_lineno]
    assert len([line for line in lines if line.strip()]) <= 20


def test_the_strategy_keeps_the_contract():
    rng = np.random.default_rng(0)
    ids, probabilities = rng.permutation(500)[:60], rng.dirichlet(np.ones(4), 60)
    pool, order = Pool(ids=ids, probabilities=probabilities), rng.permutation(60)
    strategy = NAMES["PowerMargin"](beta=3.0)
    chosen = strategy.select(pool, 20, np.random.default_rng(1)).indices
    assert isinstance(strategy, Strategy)
    assert len(set(chosen.tolist())) == 20 and set(chosen.tolist()) <= set(ids.tolist())
    shuffled = Pool(ids=ids[order], probabilities=probabilities[order])
    assert strategy.select(shuffled, 20, np.random.default_rng(1)).indices.tolist() == chosen.tolist()
    everything = strategy.select(pool, 60, np.random.default_rng(1)).indices
    assert sorted(everything.tolist()) == sorted(ids.tolist())
    with pytest.raises(ValueError, match="power_margin"):
        strategy.select(pool, 61, np.random.default_rng(1))


def test_the_closest_rows_are_drawn_where_beta_is_large():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    pool = Pool(ids=range(4), probabilities=probabilities)
    chosen = NAMES["PowerMargin"](beta=1000.0).select(pool, 3, np.random.default_rng(0))
    assert chosen.indices.tolist() == [0, 2, 1]


def test_the_oracle_answers_what_it_knows(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("text,name\nfine,good\nodd,other\n")
    oracle = NAMES["TableOracle"](str(table), "name")
    shown = [{"text": "odd"}, {"text": "fine"}, {"text": "unknown"}]
    answers = ask(oracle, Query(0, np.array([4, 7, 9]), ["bad", "good"], shown))
    assert isinstance(oracle, Oracle)
    assert {row: answer.label for row, answer in answers.items()} == {4: None, 7: 1, 9: None}


def test_the_retriever_finds_the_same_from_its_index(tmp_path):
    passages = [{"id": str(n), "text": text} for n, text in enumerate(["grey whale", "white bear", "grey wolf"])]
    one, other = NAMES["Trigrams"](), NAMES["Trigrams"]()
    one.index(passages)
    one.save(tmp_path)
    other.load(tmp_path)
    hits = one.search(["a grey wolff", "bears"], 2)
    assert hits.rows[:, 0].tolist() == [2, 1] and hits.rows.shape == (2, 2)
    again = other.search(["a grey wolff", "bears"], 2)
    assert np.array_equal(hits.rows, again.rows) and np.array_equal(hits.scores, again.scores)
    assert one.size_bytes == other.size_bytes > 0
    fused = HybridRetriever([one])
    fused.index(passages)
    assert fused.search(["wolf"], 5).rows.shape == (1, 3)


def test_the_retriever_says_what_is_wrong():
    with pytest.raises(ValueError, match="index"):
        NAMES["Trigrams"]().search(["wolf"], 1)
