import re

import numpy as np
import pytest

from tithe.selection import readability
from tithe.selection.readability import syllables_of


# textstat 0.7.13, unrounded, with the CMU dictionary: syllables of each word, reading ease, grade, LIX.
TEXTSTAT = [
    ("The cat sat on the mat.", [1, 1, 1, 1, 1, 1], 116.145, -1.45, 6.0),
    (
        "Dr. Smith's well-known theory wasn't accepted in the U.S. until 1999! Why? Nobody knows it...",
        [1, 1, 2, 2, 2, 3, 1, 1, 1, 2, 1, 1, 3, 1, 1],
        69.5025,
        5.428333333333338,
        20.833333333333336,
    ),
    (
        "'Tis a beautiful story , told without any words -- almost .",
        [1, 1, 3, 2, 1, 2, 2, 1, 2],
        56.7,
        7.58666666666667,
        31.22222222222222,
    ),
    ("Readability formulas estimate comprehension difficulty", [5, 3, 3, 4, 4], -119.72, 31.2, 105.0),
    ("Stop!", [1], 121.22, -3.4, 1.0),
    (
        "one two three four. five six. seven eight nine",
        [1, 1, 1, 1, 1, 1, 2, 1, 1],
        108.2675,
        -0.7238888888888866,
        4.5,
    ),
]
FORMULAS = ["flesch_reading_ease", "flesch_kincaid_grade", "script_neutral"]


def words_in(text):
    """A slow reading of the rule: what is left of each run between spaces, if it has a letter or a digit."""
    pieces = [re.sub(r"'(?!t|s|d|ve|ll|re)", "", piece) for piece in text.split()]
    cleaned = ["".join(c for c in piece if c.isalnum() or c in "_'") for piece in pieces]
    return [word.lower() for word in cleaned if word]


@pytest.mark.parametrize("case", TEXTSTAT, ids=lambda case: case[0][:12])
def test_values_are_those_of_textstat_given_its_syllables(case):
    text, syllables, *expected = case
    counts = dict(zip(words_in(text), syllables, strict=True))
    for formula, value in zip(FORMULAS, expected, strict=True):
        np.testing.assert_allclose(readability([text], formula, syllables=counts.__getitem__), [value], atol=1e-9)


def test_a_pool_gives_what_its_texts_give_one_by_one():
    texts = [case[0] for case in TEXTSTAT] + ["", "Мама мыла раму."]
    for formula in FORMULAS:
        alone = [readability([text], formula)[0] for text in texts]
        np.testing.assert_array_equal(readability(texts, formula), alone)


def test_each_distinct_word_is_counted_once():
    asked = []

    def count(word):
        asked.append(word)
        return 1

    readability(["To be or not to be?", "Not to be."], syllables=count)
    assert sorted(asked) == ["be", "not", "or", "to"]


@pytest.mark.parametrize(("formula", "easy_is_high"), zip(FORMULAS, [True, False, False], strict=True))
@pytest.mark.parametrize(
    ("easy", "hard"),
    [
        (
            "The dog ran to me. It was a big dog.",
            "Considerable epistemological sophistication characterises analysis.",
        ),
        (
            "Кот спит. Дом стоит у реки. Он был рад.",
            "Многочисленные исследовательские организации опубликовали отчёты.",
        ),
    ],
    ids=["english", "russian"],
)
def test_the_direction_of_each_formula(formula, easy_is_high, easy, hard):
    values = readability([easy, hard], formula)
    assert (values[0] > values[1]) == easy_is_high


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_text_without_words_has_no_value(formula):
    values = readability(["", " \n\t ", "...", "— ! —", "a"], formula)
    assert np.isnan(values).tolist() == [True, True, True, True, False]
    assert values.dtype == np.float64
    assert readability([], formula).shape == (0,)


def test_lix_by_hand():
    # 7 words, 2 sentences, 2 words of 7 letters or more.
    assert readability(["We like reading books. Reading is good!"], "script_neutral")[0] == 7 / 2 + 100 * 2 / 7
    assert readability(["मैं किताब पढ़ता हूँ। वह घर जाता है।"], "script_neutral")[0] == 8 / 2


@pytest.mark.parametrize(
    ("word", "count"),
    [
        *[("make", 1), ("makes", 1), ("baked", 1), ("wanted", 2), ("table", 2), ("tables", 2), ("boxes", 2)],
        *[("likely", 2), ("something", 2), ("being", 2), ("idea", 3), ("obvious", 3), ("nation", 2), ("movies", 2)],
        *[("isn't", 2), ("don't", 1), ("there's", 1), ("prism", 2), ("rhythm", 1), ("the", 1), ("café", 2)],
        *[("молоко", 3), ("ёлка", 2), ("мой", 1), ("в", 1), ("поэзия", 4), ("їжак", 2), ("naïve", 2), ("λόγος", 2)],
        *[("1999", 1), ("漢字", 1), ("'t", 1)],
    ],
)
def test_syllables_by_rule(word, count):
    assert syllables_of(word) == count


def test_a_decomposed_letter_counts_as_the_composed_one():
    composed, decomposed = "Мой милый край был тихий.", "Мои\u0306 милыи\u0306 краи\u0306 был тихии\u0306."
    assert readability([composed]) == readability([decomposed])


def test_an_unknown_formula_is_refused():
    with pytest.raises(ValueError, match="`formula` must be one of 'flesch_reading_ease'.*got 'gunning_fog'"):
        readability(["a"], "gunning_fog")
