"""What is told of strategies is what they are."""

import dataclasses

import pytest

from tithe.selection import STRATEGIES, WRAPPERS, describe_strategies, get_strategy


TOLD = {one.name: one for one in describe_strategies()}
BASELINES = {"all", "random", "edfs_lite"}  # which have no paper


def test_all_are_told_of_in_their_order():
    assert list(TOLD) == list(STRATEGIES)
    assert [one.name for one in describe_strategies(WRAPPERS)] == list(WRAPPERS)


@pytest.mark.parametrize("name", STRATEGIES)
def test_needs_and_hyperparameters_are_those_of_the_strategy(name):
    strategy = get_strategy(name)
    assert set(TOLD[name].needs) == strategy.needs
    assert dict(TOLD[name].hyperparameters) == {
        field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)
    }


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_line_is_one_and_the_source_apart(name):
    told = TOLD[name]
    assert 20 < len(told.line) < 120
    assert (told.source == "") == (name in BASELINES) and told.source not in told.line.split()
    assert told.text.replace("\n", " ").startswith(told.line)


def test_papers_are_links_one_can_find():
    assert TOLD["k_center"].source == "arXiv:1708.00489, Algorithm 1"
    assert TOLD["facility_location"].source == "Lin & Bilmes 2011"
