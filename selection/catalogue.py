"""What each strategy reads, in one line each, and where it comes from: for tables and `tithe strategies`."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from inspect import getdoc
from typing import Any

from .registry import STRATEGIES, WRAPPERS


_ARXIV = re.compile(r"\b(\d{4}\.\d{5})\b")
_FIRST_SENTENCE = re.compile(r"(?P<line>.+?)(?: \((?P<source>[^()]*)\))?[.:]?$", re.DOTALL)


@dataclass(frozen=True)
class Described:
    """A strategy, or a wrapper of strategies, as its docstring tells of it.

    Attributes:
        name: as `get_strategy` takes it.
        needs: the signals that it reads with its default hyper-parameters, sorted; none of a wrapper's own.
        line: what it picks.
        source: the paper, empty where there is none.
        hyperparameters: name → default.
        text: the whole docstring.
    """

    name: str
    needs: tuple[str, ...]
    line: str
    source: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


def describe_strategies(names: Mapping[str, type] = STRATEGIES) -> list[Described]:
    """All strategies, or those in `names`, such as `WRAPPERS`, in their order.

    >>> margin = next(one for one in describe_strategies() if one.name == "margin")
    >>> margin.needs, margin.source
    (('probabilities',), 'Scheffer et al. 2001')
    """
    return [_described(name, kind) for name, kind in names.items()]


def _described(name: str, kind: Any) -> Described:
    text = getdoc(kind) or ""
    first = _FIRST_SENTENCE.match(" ".join(text.split("\n\n")[0].split()))
    assert first is not None, f"{kind.__name__} has no docstring"
    own = {part.name: part for part in fields(kind) if part.init and part.name != "strategy"}
    defaults = {
        key: part.default_factory() if part.default_factory is not MISSING else part.default
        for key, part in own.items()
        if part.default is not MISSING or part.default_factory is not MISSING
    }
    return Described(
        name=name,
        needs=() if name in WRAPPERS else tuple(sorted(kind().needs)),
        line=first["line"],
        source=_ARXIV.sub(r"arXiv:\1", first["source"] or ""),
        hyperparameters=defaults,
        text=text,
    )
