"""Acquisition functions of active learning: the rows whose labels the model, or several, would learn the most from."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .diversity import KCenter
from .pool import Pool, Selection, check_request
from .uncertainty import (
    bald,
    consensus_entropy,
    least_confidence,
    margin,
    mean_kl_to_consensus,
    normalised_entropy,
    vote_entropy,
)


_DISAGREEMENTS = {"vote_entropy": vote_entropy, "consensus_entropy": consensus_entropy, "kl": mean_kl_to_consensus}


@dataclass(frozen=True)
class LeastConfidence:
    """The candidates whose most probable class is the least probable (Lewis & Gale 1994).

    Scores are 1 - max p, from 0 to 1 - 1/C; the k largest are picked. Needs `probabilities`. With two classes it picks
    the rows that `Margin` and `Entropy` pick.

    It sees only the top class, so prefer `Margin` with more classes. Like every ranking by one score it may pick near
    duplicates of one hard row, and at a small budget hard rows are often noise: in many small rounds this hurts less.
    An untrained head's probabilities mean nothing: give it a warm round first.

    >>> pool = Pool(ids=[0, 1, 2], probabilities=[[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    >>> LeastConfidence().select(pool, 2, np.random.default_rng(0)).indices.tolist()
    [1, 2]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("least_confidence", pool, k, self.needs)
        assert pool.probabilities is not None
        return _largest(pool, k, least_confidence(pool.probabilities))


@dataclass(frozen=True)
class Margin:
    """The candidates whose two most probable classes are the closest (Scheffer et al. 2001).

    Scores are 1 - (p₁ - p₂), so that more is more uncertain here as elsewhere; the k largest are picked. Needs
    `probabilities`.

    Prefer it to `Entropy` and `LeastConfidence`, above all with many classes: it asks whether the decision is in
    doubt, not how the unlikely classes share the rest. A MiniLM fine-tuned on a tenth chosen by it reached 84.4 % on
    banking77 and 79.8 % on rotten_tomatoes, random 83.1 % and 79.0 %. It knows nothing of redundancy. An untrained
    head's probabilities mean nothing: give it a warm round first.

    >>> pool = Pool(ids=[0, 1], probabilities=[[0.5, 0.45, 0.05], [0.4, 0.3, 0.3]])
    >>> Margin().select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [0]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("margin", pool, k, self.needs)
        assert pool.probabilities is not None
        return _largest(pool, k, 1 - margin(pool.probabilities))


@dataclass(frozen=True)
class Entropy:
    """The candidates whose predicted distribution has the largest entropy (Shannon 1948).

    Scores are entropies divided by log C, from 0 to 1; the k largest are picked. Needs `probabilities`. With two
    classes it picks the rows that `Margin` picks.

    With many classes it prefers rows spread thinly over all of them, often outliers, and loses to random. At 10 % a
    linear model on frozen embeddings reaches 83.7 % on banking77 by it, 88.1 % by `Margin` and 84.0 % by random; on
    rotten_tomatoes 73.4 %, as by margin, and 70.7 %.
    `EntropyDiversity` spreads it. An untrained head's probabilities mean nothing: give it a warm round first.

    >>> pool = Pool(ids=[0, 1], probabilities=[[0.5, 0.45, 0.05], [0.4, 0.3, 0.3]])
    >>> Entropy().select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [1]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("entropy", pool, k, self.needs)
        assert pool.probabilities is not None
        return _largest(pool, k, normalised_entropy(pool.probabilities))


@dataclass(frozen=True)
class Bald:
    """The candidates on which dropout passes disagree the most, drawn at random by how much (1703.02910, 2106.12059).

    Scores are BALD: H[mean p] - mean H[p] over the passes, in nats. With `beta`, k rows are drawn without replacement,
    each with probability proportional to score^beta among those left (PowerBALD, as the top k of
    beta · log score + Gumbel noise); rows of score zero come last. Needs `mc_probabilities`, of 10 passes or more.

    Drawing is the default because the scores are of rows alone: the k best are much alike, and the more so the larger
    k is, which costs plain BALD its advantage over random in large batches; the cited paper finds that the draw
    repairs this at no cost. Prefer it to `Entropy` where labels are noisy: a row that every pass finds undecidable
    scores zero. It fails where dropout hardly moves the predictions; the scores are then mostly noise.

    Args:
        beta: 1 as in the paper; more is greedier, 0 is random among rows of positive score. None takes the k largest.

    >>> passes = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.5, 0.5]]])
    >>> Bald().select(Pool(ids=[0, 1], mc_probabilities=passes), 1, np.random.default_rng(0)).indices.tolist()
    [0]
    """

    beta: float | None = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"mc_probabilities"})

    def __post_init__(self) -> None:
        if self.beta is not None and not 0 <= self.beta < np.inf:
            raise ValueError(f"`beta` must be at least 0, or None for the k largest scores; got {self.beta}.")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("bald", pool, k, self.needs)
        assert pool.mc_probabilities is not None
        scores = bald(pool.mc_probabilities)
        if self.beta is None:
            return _largest(pool, k, scores)
        noise = np.empty(len(pool))
        noise[np.argsort(pool.ids)] = rng.gumbel(size=len(pool))
        positive = scores > 0
        keys = self.beta * np.log(scores, out=np.zeros_like(scores), where=positive) + noise
        keys[~positive] = -np.inf
        return Selection(_largest(pool, k, keys).indices, scores)


@dataclass(frozen=True)
class Committee:
    """The candidates on which the members of a committee disagree the most (Seung et al. 1992).

    Needs `committee_probabilities`, of two members or more: teachers, or models of several seeds or kinds. Scores are
    the disagreement, and the k largest are picked.

    The default tells rows apart finely and leaves out those that every member finds undecidable. Of equal scores the
    lowest ids are picked, which with votes of a few members may be most of the budget. As good as its members are
    different: copies of one model agree on everything. It knows nothing of redundancy.

    Args:
        disagreement: "kl", the mean divergence of the members from their mean, in nats; "vote_entropy", the entropy of
            their votes; "consensus_entropy", the entropy of their mean, which counts doubt that they share as well.
            Both entropies are divided by log C.

    >>> members = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.5, 0.5]]])
    >>> pool = Pool(ids=[0, 1], committee_probabilities=members)
    >>> Committee().select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [0]
    """

    disagreement: str = "kl"

    needs: ClassVar[frozenset[str]] = frozenset({"committee_probabilities"})

    def __post_init__(self) -> None:
        if self.disagreement not in _DISAGREEMENTS:
            names = ", ".join(f'"{name}"' for name in _DISAGREEMENTS)
            raise ValueError(f"`disagreement` must be one of {names}, got {self.disagreement!r}.")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("committee", pool, k, self.needs)
        assert pool.committee_probabilities is not None
        return _largest(pool, k, _DISAGREEMENTS[self.disagreement](pool.committee_probabilities))


@dataclass(frozen=True)
class CoreSet:
    """The farthest candidate from the labelled rows and the picks, again and again (1708.00489, Algorithm 1).

    This is `KCenter(normalize=False)` under the name that active learning knows it by: distances between the
    embeddings as they are, from the rows of earlier rounds on. Where nothing is labelled yet the paper leaves the
    start open, and the medoid is picked first. Needs `embeddings`, and `selected_embeddings` after the first round.
    Scores are distances to the selected rows, as those of `KCenter`.

    Choose it to compare with what others publish as core-set; otherwise `KCenter`, which leaves out outliers and
    divides by norms: of raw embeddings the longest are the farthest, whatever they say. Neither serves the mass of
    rows well: `KCenter`'s docstring has figures.

    >>> pool = Pool(ids=[1, 2, 3], selected=[0], embeddings=[[1.0], [5.0], [9.0]], selected_embeddings=[[0.0]])
    >>> CoreSet().select(pool, 2, np.random.default_rng(0)).indices.tolist()
    [3, 2]
    """

    needs: ClassVar[frozenset[str]] = KCenter.needs

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("coreset", pool, k, self.needs)
        return KCenter(normalize=False).select(pool, k, rng)


def _largest(pool: Pool, k: int, scores: np.ndarray) -> Selection:
    """The k candidates of the largest scores; of equal ones those with the lowest ids."""
    return Selection(pool.ids[np.lexsort((pool.ids, -scores))[:k]], scores)
