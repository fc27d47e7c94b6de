"""Strategies that rank by one score a row that a model gives: perplexity, EL2N, IFD.

At a tenth of the data and below, the plain ranking by one score loses to random: forgetting scores fall from 95.4 %
to 34.0 % on CIFAR-10 with 90 % pruned (2210.15809; see also 2302.06960). So the defaults are not the literal ones of
the papers, and each docstring says which those are. For the same number of rows of every class wrap any of them in
`Balanced`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .pool import Pool, Selection, check_request
from .scores import check_count, check_ranking, equal_bins, percentile_within, pick_by_score


@dataclass(frozen=True)
class Perplexity:
    """Rows of medium perplexity among those of their length (2309.04564; with a small model 2405.20541).

    The score is `perplexity`, the mean negative log-likelihood per token in nats, never its exponential: of the text
    under a language model, or without one of the label under the classifier. As short texts have high means, it is
    replaced by its rank among the texts of about the same length (in characters), from 0 to 1, where `length_bins` is
    above 1. Then "mid" takes what is nearest the middle, "low" the most usual texts, "high" the strangest.

    Needs `perplexity`, and `texts` for length bins. Scores are the ranks, or with one length bin the perplexities.
    The column `perplexity` has those; `bin` the stratum, -1 where a row was cut.

    Prefer it to prune text from the web, where the extremes are boilerplate and garbage; "mid" and "high" came out
    best there, depending on the data. On clean, labelled text it has little to say: expect random, and less from
    either end. The papers rank the whole pool by perplexity alone: Perplexity(length_bins=1).

    Args:
        direction: "low", "mid" or "high".
        cut: share of the most extreme rows of that end that are left out.
        bins: above 1, equal shares from so many bins of the score instead.
        length_bins: bins of equal size by length.

    >>> pool = Pool(ids=[0, 1, 2], perplexity=[9.0, 3.0, 0.1], texts=["a"] * 3)
    >>> Perplexity().select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [1]
    """

    direction: str = "mid"
    cut: float = 0.0
    bins: int = 1
    length_bins: int = 10

    def __post_init__(self) -> None:
        check_ranking(self.direction, self.cut, self.bins)
        check_count("length_bins", self.length_bins)

    @property
    def needs(self) -> frozenset[str]:
        """`texts` among them for length bins."""
        return frozenset({"perplexity"} | ({"texts"} if self.length_bins > 1 else set()))

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("perplexity", pool, k, self.needs)
        assert pool.perplexity is not None
        scores = np.asarray(pool.perplexity, dtype=np.float64)
        if self.length_bins > 1:
            assert pool.texts is not None
            lengths = np.array([len(text) for text in pool.texts])
            scores = percentile_within(scores, equal_bins(lengths, self.length_bins, pool.ids), pool.ids)
        return _select(pool, k, rng, scores, self, {"perplexity": pool.perplexity})


@dataclass(frozen=True)
class El2n:
    """Rows of all levels of difficulty but the hardest, by EL2N (2107.07075).

    The score is `el2n`, ‖p − onehot(label)‖₂ early in training, from 0 for a sure and right prediction to √2 for a
    sure and wrong one; averaged over several models, each of which has not seen the row. By default the hardest tenth
    is left out, and ten bins by score give equal shares, drawn at random (coverage-centric selection, 2210.15809).

    Needs `el2n`, which reads the label of every candidate. Scores are the EL2N; the column `bin` is -1 where a row
    was cut.

    Prefer it with many clean labels and a large budget. The paper keeps the highest, El2n(cut=0, bins=1), which is
    good at half the data and fails at a tenth, where it selects what is mislabelled or ambiguous; keeping the lowest
    collapses to a few easy prototypes. In NLP it orders rows well only after an epoch (2211.05610).

    Args:
        direction: which end is taken with one bin, and cut with more.
        cut: share of the most extreme rows of that end that are left out.
        bins: how many bins give equal shares; 1 ranks by the score.

    >>> pool = Pool(ids=[0, 1, 2], el2n=[0.1, 1.4, 0.9])
    >>> El2n(cut=0.4, bins=1).select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [2]
    """

    direction: str = "high"
    cut: float = 0.1
    bins: int = 10

    needs: ClassVar[frozenset[str]] = frozenset({"el2n"})

    def __post_init__(self) -> None:
        check_ranking(self.direction, self.cut, self.bins)

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("el2n", pool, k, self.needs)
        assert pool.el2n is not None
        return _select(pool, k, rng, np.asarray(pool.el2n, dtype=np.float64), self, {})


@dataclass(frozen=True)
class Ifd:
    """Rows whose text helps little to guess the answer, by instruction-following difficulty (2308.12032).

    The score is `ifd`, loss(answer | text) / loss(answer), which is above 1 where the text misleads: such rows come
    last, and of the others the highest first. For classification the answer is the label. As loss(answer) then takes
    only one value per class, the ratio would rank classes: it is replaced by its rank within the class, from 0 to 1.

    Needs `ifd`, and `labels` unless per_class is False. Scores are the ranks, or the ratios. The column `ifd` has
    those; `bin` is -1 where a row was above the ceiling or cut.

    Prefer it for instruction data with long answers, where it was made: 5 to 10 % chosen by it match the whole. For
    labels it is a measure of difficulty and fails as those do at a tenth of the data: highest first prefers what the
    model cannot tell apart. A variant in the literature takes the ratio of perplexities, which ranks otherwise.

    Args:
        per_class: rank within the class.
        ceiling: rows above it come last; infinite keeps all.
        direction: "low", "mid" or "high".
        cut: share of the most extreme rows of that end, of those below the ceiling, that are left out.
        bins: above 1, equal shares from so many bins of the score instead.

    >>> pool = Pool(ids=[0, 1, 2], ifd=[0.2, 0.9, 1.7], labels=[0, 0, 0])
    >>> Ifd().select(pool, 2, np.random.default_rng(0)).indices.tolist()
    [1, 0]
    """

    per_class: bool = True
    ceiling: float = 1.0
    direction: str = "high"
    cut: float = 0.0
    bins: int = 1

    def __post_init__(self) -> None:
        check_ranking(self.direction, self.cut, self.bins)
        if not self.ceiling > 0:
            raise ValueError(f"`ceiling` must be above 0, got {self.ceiling}.")

    @property
    def needs(self) -> frozenset[str]:
        """`labels` among them unless `per_class` is False."""
        return frozenset({"ifd"} | ({"labels"} if self.per_class else set()))

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("ifd", pool, k, self.needs)
        assert pool.ifd is not None
        ratio = np.asarray(pool.ifd, dtype=np.float64)
        above = ratio > self.ceiling
        scores = ratio
        if self.per_class:
            assert pool.labels is not None
            scores = percentile_within(np.where(above, np.nan, ratio), pool.labels, pool.ids)
            # Above 1, so that those nearest the ceiling are the first of the last to come.
            scores[above] = 1 + ratio[above]
        return _select(pool, k, rng, scores, self, {"ifd": pool.ifd}, last=above)


def _select(
    pool: Pool,
    k: int,
    rng: np.random.Generator,
    scores: np.ndarray,
    by: Perplexity | El2n | Ifd,
    columns: dict[str, np.ndarray],
    last: np.ndarray | None = None,
) -> Selection:
    ranked = pick_by_score(scores, k, pool.ids, rng, direction=by.direction, cut=by.cut, bins=by.bins, last=last)
    return Selection(pool.ids[ranked.order], scores, {**columns, "bin": ranked.bin})
