import numpy as np
import pytest

from tithe.selection.words import index_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't RE-read it, 'twas fine.", ["don't", "re", "read", "it", "twas", "fine"]),
        ("it’s 2 ½ snake_case", ["it’s", "2", "½", "snake_case"]),
        ("Ёжик — в тумане!", ["ёжик", "в", "тумане"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("naïve café", ["naïve", "café"]),
        ("cafe\u0301", ["café"]),
        ("Ελλάδα, 日本語 です", ["ελλάδα", "日本語", "です"]),
        *[("", []), (" \t\n", []), ("... — !", []), ("a", ["a"])],
    ],
)
def test_words_of_any_script(text, words):
    assert words_of(text) == words


def test_an_ascii_text_has_the_same_words_beside_another_script():
    text = "It's 5 o'clock, isn't it? 'Quoted' words-and_more 3.5 _x_"
    assert words_of(text + " ж")[:-1] == words_of(text)


def test_words_become_numbers_in_order_of_appearance():
    words = index_words([["b", "a", "b"], [], ["c", "a"]])
    assert words.types == ["b", "a", "c"]
    assert words.ids.tolist() == [0, 1, 0, 2, 1]
    assert words.lengths.tolist() == [3, 0, 2]
    assert words.documents().tolist() == [0, 0, 0, 2, 2]
    assert index_words([]).ids.dtype == np.int64
