"""Scores of short answers against hand-worked cases, and against SQuAD's and InstructQA's formulas written out."""

import re
import string
from collections import Counter

import numpy as np
import pytest

from tithe.evaluation import ANSWER_METRICS, answer_metrics, answer_scores, normalize_answer


def squad_normalize(text):
    """SQuAD's `normalize_answer`, step by step."""
    without = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", without).split())


def squad_f1(prediction, gold):
    ours, golds = squad_normalize(prediction).split(), squad_normalize(gold).split()
    if not ours or not golds:
        return float(ours == golds)
    same = sum((Counter(ours) & Counter(golds)).values())
    if not same:
        return 0.0
    precision, recall = same / len(ours), same / len(golds)
    return 2 * precision * recall / (precision + recall)


def instructqa_recall(prediction, gold):
    ours, golds = squad_normalize(prediction).split(), squad_normalize(gold).split()
    if not golds:
        return 1.0
    return sum((Counter(ours) & Counter(golds)).values()) / len(golds)


def ascii_texts(count, seed):
    """Words, articles, punctuation, and any of ASCII's 128 characters, control characters too."""
    rng = np.random.default_rng(seed)
    parts = [
        "the",
        "a",
        "An",
        "THE",
        "cat",
        "cat",
        "then",
        "o'the",
        "a-b",
        "the.",
        " ",
        "  ",
        "\t",
        "\n",
        "_a_",
        "1,5",
    ]
    texts = []
    for _ in range(count):
        words = [parts[i] for i in rng.integers(len(parts), size=rng.integers(0, 7))]
        noise = [chr(code) for code in rng.integers(128, size=rng.integers(0, 5))]
        texts.append(rng.choice(["", " "]).join(rng.permutation(words + noise)) if words + noise else "")
    return texts


class TestNormalisation:
    def test_ascii_is_squads(self):
        texts = (
            [chr(code) for code in range(128)] + [f"x{chr(code)}y the" for code in range(128)] + ascii_texts(4000, 0)
        )
        for text in texts:
            assert normalize_answer(text) == squad_normalize(text), repr(text)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("«Война и мир» — роман…", "война и мир роман"),
            ("„Москва“, “Moscow” ‘x’ 1941–1945", "москва moscow x 19411945"),
            ("ПУШКИН, А. С.", "пушкин а с"),  # Cyrillic а is no article
            ("The «A» an answer", "answer"),
            ("5 €, № 7, 20 °C", "5 7 20 c"),  # symbols go, as $ does in SQuAD
            ("до\u00adждь\u200b на\u00a0море", "дождь на море"),  # soft hyphen, zero-width and no-break space
            ("и\u0306од Cafe\u0301", "йод café"),  # composed
            ("ёлка", "ёлка"),
            ("", ""),
            ("…!", ""),
        ],
    )
    def test_beyond_ascii(self, text, expected):
        assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),  # token_recall, exact_match, f1, precision, answer_in_text
    [
        ("Paris", ["Paris"], (1, 1, 1, 1, 1)),
        ("It is in Paris, France.", ["paris"], (1, 0, 2 / 6, 1 / 5, 1)),
        ("the Paris of the East", ["a Paris"], (1, 0, 2 / 4, 1 / 3, 1)),
        ("New York", ["New York City"], (2 / 3, 0, 4 / 5, 1, 0)),
        ("York New", ["New York"], (1, 0, 1, 1, 0)),  # not in a row
        ("Newark, York", ["New York"], (1 / 2, 0, 1 / 2, 1 / 2, 0)),
        ("Parisian", ["Paris"], (0, 0, 0, 0, 0)),  # whole tokens
        ("cat cat cat", ["cat dog cat"], (2 / 3, 0, 2 / 3, 2 / 3, 0)),  # a multiset: two of the three
        ("cat", ["cat cat"], (1 / 2, 0, 2 / 3, 1, 0)),
        ("Bora Bora", ["Bora Bora"], (1, 1, 1, 1, 1)),
        # The best gold may be another one for each measure: recall by the second, precision by the first.
        ("red fox here", ["red fox jumps over here", "red"], (1, 0, 6 / 8, 1, 1)),
        ("Роман «Идиот» — Достоевский", ["Ф. М. Достоевский", "Достоевский"], (1, 0, 1 / 2, 1 / 3, 1)),
        ("Лев Толстой.", ["лев николаевич толстой"], (2 / 3, 0, 4 / 5, 1, 0)),
        ("", ["Paris"], (0, 0, 0, 0, 0)),
        ("the", ["Paris"], (0, 0, 0, 0, 0)),
        ("Paris", ["The The"], (1, 0, 0, 0, 0)),  # an empty gold: recall 1, whatever the prediction
        ("", [""], (1, 1, 1, 1, 1)),
        ("Paris", ["—", "Rome"], (1, 0, 0, 0, 0)),
    ],
)
def test_by_hand(prediction, golds, expected):
    found = answer_scores([prediction], [golds])
    assert tuple(found) == ANSWER_METRICS
    assert [float(found[name][0]) for name in ANSWER_METRICS[:-1]] == pytest.approx(expected)


def test_ascii_scores_are_squads_and_instructqas():
    texts = ascii_texts(1500, 1)
    predictions, golds = texts[:500], [list(pair) for pair in zip(texts[500:1000], texts[1000:], strict=True)]
    found = answer_scores(predictions, golds)
    formulas = {
        "f1": squad_f1,
        "token_recall": instructqa_recall,
        "exact_match": lambda text, gold: float(squad_normalize(text) == squad_normalize(gold)),
    }
    for name, formula in formulas.items():
        expected = [max(formula(text, gold) for gold in row) for text, row in zip(predictions, golds, strict=True)]
        assert len(set(expected)) > 1
        np.testing.assert_allclose(found[name], expected, atol=1e-12)


def test_an_oracle_scores_one():
    golds = [["Paris", "Paris, France"], ["«Война и мир»"], ["The The"], ["1,5 %"], ["cat cat"], ["a"], ["Ещё раз…"]]
    for place in (0, -1):
        found = answer_metrics([row[place] for row in golds], golds)
        assert found == {name: float(name != "refusal") for name in ANSWER_METRICS}


def test_rows_and_means():
    predictions, golds = ["Paris", "", "I don't know", "Rome"], ["Paris", "Rome", ["Oslo"], ("Oslo", "Rome, Italy")]
    rows = answer_scores(predictions, golds)
    assert rows["token_recall"].tolist() == [1, 0, 0, 0.5] and rows["refusal"].tolist() == [0, 1, 1, 0]
    assert all(values.shape == (4,) and values.dtype == np.float64 for values in rows.values())
    means = answer_metrics(predictions, golds)
    assert means == {name: pytest.approx(np.mean(values)) for name, values in rows.items()}
    assert means["token_recall"] == 0.375 and means["refusal"] == 0.5


@pytest.mark.parametrize(
    ("predictions", "answers", "error", "message"),
    [
        ([], [], ValueError, "at least one"),
        (["a"], ["a", "b"], ValueError, "got 2 and 1"),
        (["a", "b"], ["a", []], ValueError, "prediction 1 has no accepted answer"),
        (["a", None], ["a", "b"], TypeError, "prediction 1 must be a text, got None"),
        (["a"], [None], TypeError, "answers to row 0 must be a text or a list"),
        (["a"], [{"value": "a"}], TypeError, "answers to row 0 must be a text or a list"),
        (["a"], [["a", 3]], TypeError, "row 0 must be a text, got 3"),
        ("ab", ["a", "b"], TypeError, "one item a row"),
        (["a", "b"], "ab", TypeError, "one item a row"),
    ],
)
def test_bad_input(predictions, answers, error, message):
    with pytest.raises(error, match=message):
        answer_metrics(predictions, answers)
