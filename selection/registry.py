"""Strategies by name, as configurations and command lines give them."""

import difflib
from dataclasses import fields
from typing import Any

from .baselines import All, Random
from .diversity import EntropyDiversity, KCenter
from .easy_diverse import EdfsLite, QditLite
from .facility import FacilityLocation
from .margin_coverage import MarginCoverage
from .pool import Strategy


STRATEGIES: dict[str, type] = {
    "all": All,
    "random": Random,
    "k_center": KCenter,
    "entropy_diversity": EntropyDiversity,
    "facility_location": FacilityLocation,
    "qdit_lite": QditLite,
    "edfs_lite": EdfsLite,
    "margin_coverage": MarginCoverage,
}


def get_strategy(name: str, **hyperparameters: Any) -> Strategy:
    """Build the strategy called `name`; the hyper-parameters are the fields of its class.

    Raises:
        ValueError: no such strategy, no such hyper-parameter (both name the nearest one and list them all), or a
            hyper-parameter out of its range.

    >>> get_strategy("edfs_lite", buckets=3)
    EdfsLite(buckets=3, shares=None)
    """
    if name not in STRATEGIES:
        raise ValueError(f"There is no strategy `{name}`.{_suggestion(name, list(STRATEGIES))}")
    accepted = [f.name for f in fields(STRATEGIES[name])]
    for given in hyperparameters:
        if given not in accepted:
            raise ValueError(f"Strategy `{name}` has no hyper-parameter `{given}`.{_suggestion(given, accepted)}")
    strategy: Strategy = STRATEGIES[name](**hyperparameters)
    return strategy


def _suggestion(wrong: str, known: list[str]) -> str:
    if not known:
        return " It takes none."
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0)[0]
    return f" Did you mean `{near}`? Known: {', '.join(f'`{name}`' for name in known)}."
