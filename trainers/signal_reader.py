"""Where a round's signals come from: the model in training, linear probes in its place, or models beside it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..models import (
    LANGUAGE_SIGNALS,
    SIGNALS,
    LinearProbe,
    bagged_probabilities,
    conditional_scores,
    out_of_fold_el2n,
    unit_rows,
)


PROXIES = (None, "linear")
BAGS = 10
"""How many bootstrap probes stand in for dropout passes and for a committee."""

_FROM_DATA = frozenset({"texts", "labels"})
_FROM_PROBE = frozenset({"probabilities", "head_inputs", "mc_probabilities", "committee_probabilities"})
_OF_TEXT = LANGUAGE_SIGNALS

Signals = dict[str, NDArray[np.float32]]
Read = Callable[[frozenset[str]], Signals]


@dataclass
class SignalReader:
    """Gives a strategy the signals it needs, round after round.

    With `proxy="linear"` the model in training is read once, for `embeddings`, and what a head would say comes from a
    logistic regression on them, fitted in each round to the rows selected by then: `mc_probabilities`, and without a
    committee `committee_probabilities`, from ten of them on bootstrap samples. With `proxy=None` the model in training
    says it itself. Either way `el2n` is by default averaged over early-trained probes, out of fold, and `perplexity`
    and `ifd` are those of a language model, or without one the conditional loss of whatever gives `probabilities`.

    Attributes:
        read_model: reads names in `SIGNALS` from the model in training; all processes call it, process 0 gets arrays.
        classes: says how many classes there are.
        proxy: None or "linear".
        el2n_proxies: over how many probes `el2n` is averaged; 0 reads it from the model in training.
        seed: of what probes draw.
        read_committee: the same for `committee_probabilities`, of models beside the one in training.
        read_text: the same for `perplexity` and `ifd`, of a language model.
    """

    read_model: Read
    classes: Callable[[], int]
    proxy: str | None = None
    el2n_proxies: int = 0
    seed: int = 0
    read_committee: Read | None = None
    read_text: Read | None = None
    _once: Signals = field(default_factory=dict)  # what does not change from round to round, on process 0
    _done: set[str] = field(default_factory=set)  # its names, on all processes: they must agree on what to read

    @property
    def provided(self) -> frozenset[str]:
        """The fields of a `Pool` that a strategy may ask for."""
        committee = {"committee_probabilities"} if self.read_committee else set()
        probe = _FROM_PROBE if self.proxy else set()
        return SIGNALS | _OF_TEXT | _FROM_DATA | {"selected_embeddings"} | committee | probe

    def untrained(self, needs: Collection[str]) -> frozenset[str]:
        """Those of `needs` that say nothing before anything is trained."""
        heads = set(_FROM_PROBE)
        if self.read_committee:
            heads -= {"committee_probabilities"}
        if not self.read_text:
            heads |= _OF_TEXT
        if not self.el2n_proxies and not self.proxy:
            heads |= {"el2n"}
        return frozenset(needs) & heads

    def reads_labels(self, needs: Collection[str]) -> bool:
        """Whether signals in `needs` take one class index per row."""
        names = set(needs)
        by_probe = self.proxy is not None and bool(self.untrained(names))
        return by_probe or "el2n" in names or (self.read_text is None and bool(names & _OF_TEXT))

    # On all processes

    def read(self, needs: Collection[str]) -> Signals:
        """Pass over the pool with the models, for `complete`; all processes must call it."""
        names = _behind(needs)
        if self.read_text:
            self._read_once(self.read_text, names & _OF_TEXT)
        if self.read_committee:
            self._read_once(self.read_committee, names & {"committee_probabilities"})
        rest = names - self._done
        if self.proxy:
            self._read_once(self.read_model, frozenset({"embeddings"}) if rest else rest)
            return {}
        if rest & _OF_TEXT:
            rest |= {"probabilities"}
        if self.el2n_proxies and "el2n" in rest:
            rest = rest - {"el2n"} | {"embeddings"}
        return self.read_model(rest & SIGNALS) if rest else {}

    def _read_once(self, read: Read, names: frozenset[str]) -> None:
        if missing := names - self._done:
            self._once |= read(missing)
            self._done |= missing

    # On process 0

    def complete(
        self,
        needs: Collection[str],
        read: Signals,
        labels: NDArray[np.int64] | None,
        selected: NDArray[np.int64],
        number: int,
    ) -> Signals:
        """All signals behind `needs`, for every row of the pool, given what `read` gave on process 0.

        Args:
            labels: one class index per row. A probe learns from those of `selected` alone; `el2n`, and `perplexity`
                and `ifd` without a language model, compare each row with its own.
            selected: the rows selected by now.
            number: of the round.
        """
        names, found, rng = _behind(needs), self._once | read, np.random.default_rng((self.seed, number))
        if self.proxy and names & _FROM_PROBE | (names & _OF_TEXT) - set(found):
            assert labels is not None
            found |= self._ask_probe(names - set(found), labels, np.sort(selected), rng)
        if "el2n" in names - set(found):
            assert labels is not None
            found["el2n"] = self._average_el2n(found["embeddings"], labels, number)
        if names & _OF_TEXT - set(found):
            assert labels is not None
            found = conditional_scores(found["probabilities"], labels) | found
        kept = names | {"embeddings"}  # which say how well the choice covers the pool
        return {name: values for name, values in found.items() if name in kept}

    def _ask_probe(
        self, names: frozenset[str], labels: NDArray[np.int64], selected: NDArray[np.int64], rng: np.random.Generator
    ) -> Signals:
        embeddings, found = self._once["embeddings"], {}
        if names & ({"probabilities"} | _OF_TEXT):
            probe = LinearProbe(self.classes()).fit(embeddings[selected], labels[selected])
            found["probabilities"] = probe.probabilities(embeddings)
        if "head_inputs" in names:
            found["head_inputs"] = unit_rows(embeddings)
        if bagged := names & {"mc_probabilities", "committee_probabilities"}:
            members = bagged_probabilities(embeddings, labels, selected, self.classes(), BAGS, rng)
            found |= dict.fromkeys(bagged, members)
        return found

    def _average_el2n(
        self, embeddings: NDArray[np.float32], labels: NDArray[np.int64], number: int
    ) -> NDArray[np.float32]:
        """Of the embeddings of this round; with a proxy those do not change, and it is the same in every round."""
        rng = np.random.default_rng(self.seed if self.proxy else (self.seed, number))
        scores = out_of_fold_el2n(embeddings, labels, self.classes(), self.el2n_proxies or 1, rng)
        if self.proxy:
            self._once["el2n"] = scores
        return scores


def _behind(needs: Collection[str]) -> frozenset[str]:
    """The signals behind `needs`: those of selected rows are signals of rows too, and data are none."""
    return frozenset("embeddings" if name == "selected_embeddings" else name for name in needs) - _FROM_DATA
