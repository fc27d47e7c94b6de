"""A strategy that reads nothing but the texts: how varied their words are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .lexical import lexical_diversity
from .pool import Pool, Selection, check_request
from .readability import FORMULAS, readability
from .scores import check_count, check_ranking, equal_bins, percentile_within, pick_by_score


@dataclass(frozen=True)
class LexicalDiversity:
    """Texts of medium lexical diversity among those of their length (McCarthy & Jarvis 2007, 2010).

    The score is the mean of three ranks, from 0 to 1, each among the texts of about the same number of words: of TTR,
    of MTLD (McCarthy and Jarvis 2010; both directions, threshold 0.72) and of HD-D (McCarthy and Jarvis 2007; 42
    draws). Where HD-D is undefined, under 42 words, MTLD takes its place. Any script that puts spaces between words.

    Needs `texts` alone: no model and no labels. Scores are the mean ranks, NaN for a text without words, which is
    taken last. Columns: `ttr`, `mtld`, `hdd`, `readability` (by `readability`, for reading and not for choosing), and
    `bin`, -1 where a row was cut.

    Prefer it before there is any model, to skip repetitive and list-like texts. It knows nothing of labels or of the
    model, so on clean text expect about what random gives. "high" at a tenth takes lists, names and noise, "low" what
    is repeated; measures of texts of less than some 50 words are mostly length, hence the bins.

    Args:
        direction: "low", "mid" or "high".
        cut: share of the most extreme rows of that end that are left out.
        bins: above 1, equal shares from so many bins of the score instead.
        length_bins: bins of equal size by number of words, within which texts are compared.
        readability: formula of the column of that name: "flesch_reading_ease", "flesch_kincaid_grade" (both English),
            or "script_neutral".

    >>> pool = Pool(ids=[0, 1, 2], texts=["ha ha ha ha", "to be or not to be", "all words differ here"])
    >>> LexicalDiversity(direction="low").select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [0]
    """

    direction: str = "mid"
    cut: float = 0.0
    bins: int = 1
    length_bins: int = 10
    readability: str = "script_neutral"

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    def __post_init__(self) -> None:
        check_ranking(self.direction, self.cut, self.bins)
        check_count("length_bins", self.length_bins)
        if self.readability not in FORMULAS:
            raise ValueError(f"`readability` must be one of {', '.join(FORMULAS)}, got {self.readability!r}.")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("lexical_diversity", pool, k, self.needs)
        assert pool.texts is not None
        measured = lexical_diversity(pool.texts)
        # Fewer bins than texts to compare: a text that is alone in its bin has no rank.
        words = np.array([len(text.split()) for text in pool.texts])
        groups = equal_bins(words, min(self.length_bins, max(1, len(pool) // 10)), pool.ids)
        hdd = np.where(np.isnan(measured.hdd), measured.mtld, measured.hdd)
        # Within a bin of length HD-D and MTLD must not be mixed: texts with and without HD-D are ranked apart.
        apart = 2 * groups + np.isnan(measured.hdd)
        ranks = [
            _percentiles(measured.ttr, groups, pool),
            _percentiles(measured.mtld, groups, pool),
            _percentiles(hdd, apart, pool),
        ]
        scores = np.asarray(np.mean(ranks, axis=0)).round(9)  # the order of sums must not tell equal texts apart
        ranked = pick_by_score(scores, k, pool.ids, rng, direction=self.direction, cut=self.cut, bins=self.bins)
        columns = {**measured._asdict(), "readability": readability(pool.texts, self.readability), "bin": ranked.bin}
        return Selection(pool.ids[ranked.order], scores, columns)


def _percentiles(values: np.ndarray, groups: np.ndarray, pool: Pool) -> np.ndarray:
    """Ranks within groups; equal values share the mean of theirs, so that equal texts score the same."""
    ranks = percentile_within(values, groups, pool.ids)
    keys = np.stack([groups, np.nan_to_num(values, nan=-1.0)], axis=1)
    _, same = np.unique(keys, axis=0, return_inverse=True)
    same = same.ravel()
    return (np.bincount(same, weights=ranks) / np.bincount(same))[same]
