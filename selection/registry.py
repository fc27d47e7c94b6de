"""Strategies by name, as configurations and command lines give them."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .acquisition import Bald, Committee, CoreSet, Entropy, LeastConfidence, Margin
from .aflite import AfliteReadability
from .badge import Badge
from .baselines import All, Random
from .diversity import EntropyDiversity, KCenter
from .easy_diverse import EdfsLite, QditLite
from .facility import FacilityLocation
from .lexical_strategy import LexicalDiversity
from .margin_coverage import MarginCoverage
from .pool import Strategy
from .score_strategies import El2n, Ifd, Perplexity
from .wrappers import Balanced, Deduplicated, Noisy


STRATEGIES: dict[str, type] = {
    "all": All,
    "random": Random,
    "aflite_readability": AfliteReadability,
    "k_center": KCenter,
    "entropy_diversity": EntropyDiversity,
    "facility_location": FacilityLocation,
    "lexical_diversity": LexicalDiversity,
    "perplexity": Perplexity,
    "el2n": El2n,
    "ifd": Ifd,
    "qdit_lite": QditLite,
    "edfs_lite": EdfsLite,
    "margin_coverage": MarginCoverage,
    "least_confidence": LeastConfidence,
    "margin": Margin,
    "entropy": Entropy,
    "bald": Bald,
    "committee": Committee,
    "coreset": CoreSet,
    "badge": Badge,
}


WRAPPERS: dict[str, type] = {
    "balanced": Balanced,
    "deduplicated": Deduplicated,
    "noisy": Noisy,
}


def get_strategy(name: str, **hyperparameters: Any) -> Strategy:
    """Build the strategy called `name`; the hyper-parameters are the fields of its class.

    "balanced:margin" is the strategy `margin` inside the wrapper `balanced`, "noisy:balanced:margin" that inside
    `noisy`. Hyper-parameters go to the strategy; those of a wrapper are a mapping under the wrapper's name.

    Raises:
        ValueError: no such strategy or wrapper, no such hyper-parameter (each names the nearest one and lists them
            all), or a hyper-parameter out of its range.

    >>> get_strategy("edfs_lite", buckets=3)
    EdfsLite(buckets=3, shares=None)
    >>> get_strategy("balanced:random", balanced={"by": "predicted"})
    Balanced(strategy=Random(stratified=False), by='predicted', shares='equal')
    """
    *outer, inner = name.split(":")
    for wrapper in outer:
        if wrapper not in WRAPPERS:
            raise ValueError(f"There is no wrapper `{wrapper}`.{_suggestion(wrapper, list(WRAPPERS))}")
    if inner not in STRATEGIES:
        hint = " A wrapper needs a strategy after a colon." if inner in WRAPPERS else ""
        raise ValueError(f"There is no strategy `{inner}`.{hint}{_suggestion(inner, list(STRATEGIES))}")
    own = {given: value for given, value in hyperparameters.items() if given not in outer}
    strategy: Strategy = _build("Strategy", inner, STRATEGIES[inner], own)
    for wrapper in reversed(outer):
        settings = hyperparameters.get(wrapper, {})
        if not isinstance(settings, Mapping):
            raise ValueError(f"`{wrapper}` must be a mapping of the wrapper's hyper-parameters, got {settings!r}.")
        strategy = _build("Wrapper", wrapper, WRAPPERS[wrapper], settings, strategy=strategy)
    return strategy


def _build(kind: str, name: str, of: type, given: Mapping[str, Any], **fixed: Any) -> Any:
    accepted = [f.name for f in fields(of) if f.name not in fixed]
    for key in given:
        if key not in accepted:
            raise ValueError(f"{kind} `{name}` has no hyper-parameter `{key}`.{_suggestion(key, accepted)}")
    return of(**fixed, **given)


def _suggestion(wrong: str, known: list[str]) -> str:
    if not known:
        return " It takes none."
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0)[0]
    return f" Did you mean `{near}`? Known: {', '.join(f'`{name}`' for name in known)}."
