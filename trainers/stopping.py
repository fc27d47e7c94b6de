"""When a loop has learnt what it can from further labels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class StoppingRules:
    """What is watched from iteration to iteration, and what stops a loop before its last.

    Attributes:
        plateau_patience: iterations without a better validation score after which to stop; None: never.
        plateau_delta: by how much a score must be better to count.
        greater_is_better: of that score.
        stable_agreement: Cohen's κ between the predictions of successive iterations on the same rows of the pool,
            whose mean over `stable_window` iterations ends the loop (Bloodgood & Vijay-Shanker, CoNLL 2009: 0.99 over
            3); None: never.
        best, waited: of the score; `agreements`: all κ so far; `stopped`: why the loop has ended, once it has.
    """

    plateau_patience: int | None = None
    plateau_delta: float = 0.0
    greater_is_better: bool = False
    stable_agreement: float | None = None
    stable_window: int = 3
    best: float | None = None
    waited: int = 0
    agreements: list[float] = field(default_factory=list)
    stopped: str | None = None

    def see_score(self, score: float) -> None:
        """Take in the validation score of an iteration."""
        if self.plateau_patience is None or self.stopped:
            return
        gain = 0.0 if self.best is None else (score - self.best) * (1 if self.greater_is_better else -1)
        if self.best is None or gain > self.plateau_delta:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited >= self.plateau_patience:
            self.stopped = f"plateau: no better than {self.best:.4g} for {self.waited} iterations"

    def see_agreement(self, kappa: float) -> None:
        """Take in the agreement of an iteration's predictions with those of the one before."""
        self.agreements.append(kappa)
        if self.stable_agreement is None or self.stopped or len(self.agreements) < self.stable_window:
            return
        mean = float(np.mean(self.agreements[-self.stable_window :]))
        if mean >= self.stable_agreement:
            self.stopped = f"stable predictions: κ {mean:.4f} over {self.stable_window} iterations"

    def state(self) -> dict[str, Any]:
        """What changes, as JSON can hold it."""
        return {name: asdict(self)[name] for name in ("best", "waited", "agreements", "stopped")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)


def cohen_kappa(first: Sequence[int] | NDArray[np.int64], second: Sequence[int] | NDArray[np.int64]) -> float:
    """Cohen's κ = (p_o − p_e) / (1 − p_e): agreement beyond what the two label frequencies make by chance.

    1 where both give every row one and the same label.

    >>> round(cohen_kappa([0, 0, 1, 1], [0, 0, 1, 0]), 3)
    0.5
    """
    first, second = np.asarray(first), np.asarray(second)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"κ compares two equally long lists of labels, got {len(first)} and {len(second)}")
    classes = int(max(first.max(), second.max())) + 1
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (first, second)]
    observed, chance = float(np.mean(first == second)), float(shares[0] @ shares[1])
    return 1.0 if chance == 1 else (observed - chance) / (1 - chance)
