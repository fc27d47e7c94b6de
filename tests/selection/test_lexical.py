from fractions import Fraction
from math import comb

import numpy as np
import pytest

from tithe.selection import lexical_diversity


def slow_hdd(words, draws):
    total = len(words)
    drawn = [1 - Fraction(comb(total - words.count(w), draws), comb(total, draws)) for w in set(words)]
    return float(sum(drawn) / draws)


def slow_factors(words, threshold):
    factors, stretch = 0.0, []
    for word in words:
        stretch.append(word)
        if len(set(stretch)) / len(stretch) <= threshold:
            factors, stretch = factors + 1, []
    if stretch:
        factors += (1 - len(set(stretch)) / len(stretch)) / (1 - threshold)
    return factors or 1.0


def slow_mtld(words, threshold=0.72):
    return sum(len(words) / slow_factors(w, threshold) for w in (words, words[::-1])) / 2


def random_documents(seed=0, n=60):
    source = np.random.default_rng(seed)
    sizes = source.integers(1, 200, n)
    return [[f"w{i}" for i in source.zipf(1.3, size) % source.integers(2, 90)] for size in sizes]


@pytest.mark.parametrize("threshold", [0.5, 0.66, 0.72])
@pytest.mark.parametrize("draws", [1, 10, 42])
def test_a_pool_is_measured_as_each_document_by_its_definition(threshold, draws):
    documents = random_documents()
    ttr, mtld, hdd = lexical_diversity(documents, threshold, draws)
    np.testing.assert_allclose(ttr, [len(set(d)) / len(d) for d in documents], rtol=1e-12)
    np.testing.assert_allclose(mtld, [slow_mtld(d, threshold) for d in documents], rtol=1e-12)
    long = [len(d) >= draws for d in documents]
    assert np.isfinite(hdd).tolist() == long
    np.testing.assert_allclose(
        hdd[long], [slow_hdd(d, draws) for d, enough in zip(documents, long, strict=True) if enough], rtol=1e-9
    )


def test_mtld_by_hand():
    # Forwards: a b a | b a b | a, the TTR of each three is 2/3; the one word left adds nothing. Backwards the same.
    assert lexical_diversity([list("abababa")]).mtld[0] == 7 / 2
    # Forwards a a | b c d: one stretch, then no repetition. Backwards d c b a a has a TTR of 4/5, a part of 0.2/0.28.
    np.testing.assert_allclose(lexical_diversity([list("aabcd")]).mtld, [(5 / 1 + 5 / (0.2 / 0.28)) / 2])
    # No repetition at all.
    assert lexical_diversity([list("abcdef")]).mtld[0] == 6


def test_hdd_by_hand():
    # Two draws of a a b: both differ with probability 2/3, so 5/3 types are expected, over 2 draws.
    np.testing.assert_allclose(lexical_diversity([list("aab")], draws=2).hdd, [5 / 6])
    # Drawing all of 42 words gives their TTR.
    words = [str(i % 30) for i in range(42)]
    np.testing.assert_allclose(lexical_diversity([words]).hdd, [30 / 42])


def test_under_42_words_hdd_is_undefined():
    hdd = lexical_diversity(["слово " * 41, "слово " * 42]).hdd
    assert np.isnan(hdd[0])
    np.testing.assert_allclose(hdd[1], 1 / 42)


def test_documents_without_words_and_of_one_word():
    ttr, mtld, hdd = lexical_diversity(["", " \n", "— ...", "one"])
    assert np.isnan(ttr).tolist() == np.isnan(mtld).tolist() == [True, True, True, False]
    assert np.isnan(hdd).all()
    assert ttr[3] == mtld[3] == 1
    assert all(len(values) == 0 for values in lexical_diversity([]))
    assert np.isnan(lexical_diversity(["", ""]).mtld).all()


def test_texts_are_split_into_words_whatever_the_script():
    ours = lexical_diversity(["Быть или не быть, вот в чём вопрос: быть!", "To be or not to be"])
    given = lexical_diversity(["быть или не быть вот в чём вопрос быть".split(), "to be or not to be".split()])
    np.testing.assert_array_equal(ours.ttr, given.ttr)
    np.testing.assert_array_equal(ours.mtld, given.mtld)
    np.testing.assert_allclose(ours.ttr, [7 / 9, 4 / 6])


def test_the_order_of_documents_does_not_matter():
    documents = random_documents(seed=1)
    order = np.random.default_rng(2).permutation(len(documents))
    for ours, other in zip(
        lexical_diversity(documents), lexical_diversity([documents[i] for i in order]), strict=True
    ):
        np.testing.assert_array_equal(ours[order], other)


def test_repetition_lowers_every_measure():
    source = np.random.default_rng(3)
    varied, repetitive = source.integers(0, 500, 80).astype(str), source.integers(0, 8, 80).astype(str)
    for values in lexical_diversity([varied.tolist(), repetitive.tolist()]):
        assert values[0] > values[1]


@pytest.mark.parametrize("bad", [{"threshold": 0.0}, {"threshold": 1.0}, {"draws": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
        lexical_diversity(["a"], **bad)
