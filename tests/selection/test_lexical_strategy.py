import numpy as np
import pytest

from tithe.selection import LexicalDiversity, Pool


WORDS = [f"word{i}" for i in range(400)]
СЛОВА = ["дом", "лес", "река", "поле", "небо", "город", "снег", "ветер", "книга", "песня", "море", "гора"]


def texts_of(words, types, length, count, seed=0):
    """`count` texts of `length` words out of `types` different ones."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(rng.choice(words, types, replace=False), length)) for _ in range(count)]


def select(texts, k, **options):
    pool = Pool(ids=np.arange(len(texts)), texts=texts)
    return LexicalDiversity(**options).select(pool, k, np.random.default_rng(0))


@pytest.mark.parametrize("length", [20, 60])
def test_each_direction_takes_its_texts(length):
    """Repetitive, usual and list-like texts of one length, below and above the 42 words of HD-D."""
    texts = [t for types in (3, 15, 200) for t in texts_of(WORDS, types, length, 20)]
    for direction, expected in (("low", 0), ("mid", 1), ("high", 2)):
        chosen = select(texts, 20, direction=direction, length_bins=1).indices
        assert (chosen // 20 == expected).mean() >= 0.9


def test_russian_is_read_as_well():
    texts = texts_of(СЛОВА, 2, 30, 20) + texts_of(СЛОВА, 12, 30, 20)
    assert (select(texts, 20, direction="high", length_bins=1).indices >= 20).mean() >= 0.9


def test_texts_are_compared_with_those_of_their_length():
    """The short ones are the less diverse half: within bins of length that does not count."""
    texts = texts_of(WORDS, 30, 50, 50) + texts_of(WORDS, 60, 200, 50)
    short = [(select(texts, 20, direction="low", length_bins=bins).indices < 50).sum() for bins in (1, 2)]
    assert short[0] >= 17 and 7 <= short[1] <= 13


def test_texts_without_words_come_last_and_equal_texts_score_the_same():
    texts = ["", "a b c a", "...", "x y z w", "a b c a"]
    chosen = select(texts, 5)
    assert set(chosen.indices[-2:]) == {0, 2} and np.isnan(chosen.scores[[0, 2]]).all()
    assert chosen.scores[1] == chosen.scores[4]
    assert np.isnan(chosen.columns["hdd"]).all() and chosen.columns["ttr"][3] == 1


def test_an_unknown_formula_is_refused():
    with pytest.raises(ValueError, match="`readability` must be one of flesch_reading_ease"):
        LexicalDiversity(readability="fog")
