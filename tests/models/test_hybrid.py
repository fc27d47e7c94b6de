"""Ranks and scores of several retrievers, by hand."""

import numpy as np
import pytest
from retrievers import Overlap

from tithe.models import Hits, HybridRetriever, Passage


PASSAGES = [Passage(str(i), f"w{i}") for i in range(6)]


class Fixed(Overlap):
    """Scores that are given, in the order of the passages."""

    def __init__(self, *scores):
        self.scores, self.asked = np.array(scores, np.float32), []

    def search(self, queries, k):
        self.asked.append(k)
        rows = np.argsort(-self.scores, kind="stable")[:k]
        return Hits(np.tile(rows, (len(queries), 1)), np.tile(self.scores[rows], (len(queries), 1)))


def fused(*retrievers, k=6, **options):
    hybrid = HybridRetriever(retrievers, **options)
    hybrid.index(PASSAGES)
    rows, scores = hybrid.search(["any"], k)
    return rows[0].tolist(), scores[0]


def test_ranks_are_fused_by_hand():
    one, other = Fixed(6, 5, 4, 3, 2, 1), Fixed(0.1, 0.3, 0.2, -1, -2, -3)
    rows, scores = fused(one, other)
    wanted = [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62, 2 / 64, 2 / 65, 2 / 66]
    assert rows == [1, 0, 2, 3, 4, 5]
    np.testing.assert_allclose(scores, np.array(wanted)[rows], rtol=1e-6)
    rows, scores = fused(one, other, rank_constant=0, weights=[3, 1], k=3)
    assert rows == [0, 1, 2]
    np.testing.assert_allclose(scores, [3 + 1 / 3, 3 / 2 + 1, 1 + 1 / 2], rtol=1e-6)


def test_scores_are_fused_by_hand():
    one, other = Fixed(10, 5, 0, 0, 0, 0), Fixed(0.1, 0.9, 0.5, -0.1, 0.3, 0.2)
    rows, scores = fused(one, other, fusion="scores", weights=[0.5, 2])
    assert rows == [1, 2, 0, 4, 5, 3]
    np.testing.assert_allclose(scores, [0.25 + 2, 1.2, 0.5 + 0.4, 0.8, 0.6, 0], rtol=1e-6, atol=1e-7)
    rows, scores = fused(Fixed(2, 2, 2, 2, 2, 2), fusion="scores", k=2)
    assert rows == [0, 1] and scores.tolist() == [1, 1]


def test_equal_sums_come_in_the_order_of_the_corpus():
    rows, scores = fused(Fixed(0, 0, 0, 0, 2, 1), Fixed(0, 0, 0, 0, 1, 2))
    assert rows == [4, 5, 0, 1, 2, 3] and scores[0] == scores[1] > 0 and not scores[2:].any()


@pytest.mark.parametrize("fusion", ["ranks", "scores"])
def test_one_that_knows_nothing_changes_nothing(fusion):
    some, none = Fixed(1, 6, 2, 5, 3, 4), Fixed(0, 0, 0, 0, 0, 0)
    with_it, without = fused(some, none, fusion=fusion), fused(some, fusion=fusion)
    assert with_it[0] == without[0] == [1, 3, 5, 4, 2, 0]
    np.testing.assert_array_equal(with_it[1], without[1])


def test_each_is_read_to_the_depth():
    one, other = Fixed(6, 5, 4, 3, 2, 1), Fixed(1, 2, 3, 4, 5, 6)
    rows, scores = fused(one, other, depth=2, k=2)
    assert rows == [0, 5] and one.asked == other.asked == [2]
    assert fused(one, other, depth=2, k=5)[0] == [1, 4, 2, 3, 0] and one.asked[-1] == 5


@pytest.mark.parametrize(
    "retrievers, options, words",
    [
        ([], {}, "0 `retrievers`"),
        ([Overlap(), Overlap()], {"weights": [1]}, "2 `retrievers` and 1 `weights`"),
        ([Overlap()], {"weights": [-1]}, "`weights` must not be negative"),
        ([Overlap()], {"weights": [float("nan")]}, "`weights`"),
        ([Overlap()], {"weights": [0]}, "nor all 0"),
        ([Overlap()], {"rank_constant": -1}, "`rank_constant`"),
        ([Overlap()], {"depth": 0}, "`depth`"),
        ([Overlap()], {"fusion": "rrf"}, "`fusion` must be 'ranks' or 'scores', got 'rrf'"),
    ],
)
def test_arguments_are_checked(retrievers, options, words):
    with pytest.raises(ValueError, match=words):
        HybridRetriever(retrievers, **options)
