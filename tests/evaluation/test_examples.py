import doctest
import importlib
import pkgutil

import pytest

import tithe.evaluation


MODULES = sorted(module.name for module in pkgutil.iter_modules(tithe.evaluation.__path__))
WITH_EXAMPLES = {"comparison", "entities", "entity_errors", "files", "generation_metrics", "label_curves", "memory"}
WITH_EXAMPLES |= {"memory_timeline", "metrics", "model_card", "answer_metrics", "intervals", "refusals", "simpleqa"}
WITH_EXAMPLES |= {"masking", "memory_limits", "retrieval_metrics", "card_metadata", "card_usage", "score_intervals"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    outcome = doctest.testmod(importlib.import_module(f"tithe.evaluation.{name}"))
    assert outcome.failed == 0
    assert bool(outcome.attempted) == (name in WITH_EXAMPLES)


def test_public_names_exist_once():
    assert len(set(tithe.evaluation.__all__)) == len(tithe.evaluation.__all__)
    assert all(getattr(tithe.evaluation, name) is not None for name in tithe.evaluation.__all__)
