"""BLEU, chrF, ROUGE and METEOR against examples worked by hand, in English and Russian."""

import math
import sys

import pytest

from tithe.evaluation import GENERATION_METRICS, generation_metrics, metric_signatures
from tithe.evaluation import generation_metrics as module_function


module = sys.modules[module_function.__module__]

# Seven words, six of the reference in the same order; "sat" for "lay", and of the pairs the two around it are lost.
ENGLISH = ("the small cat sat on the mat", "the small cat lay on the mat")
RUSSIAN = ("маленькая кошка сидела на старом сером ковре", "маленькая кошка лежала на старом сером ковре")


def score(pair, language, **more):
    return generation_metrics([pair[0]], [pair[1]], language=language)


class TestByHand:
    @pytest.mark.parametrize(("pair", "language"), [(ENGLISH, "en"), (RUSSIAN, "ru")])
    def test_rouge(self, pair, language):
        found = score(pair, language)
        assert found["rouge1"] == pytest.approx(6 / 7)
        assert found["rouge2"] == pytest.approx(4 / 6)
        assert found["rougeL"] == pytest.approx(6 / 7)

    @pytest.mark.parametrize(("pair", "language"), [(ENGLISH, "en"), (RUSSIAN, "ru")])
    def test_bleu(self, pair, language):
        """n-grams in common: 6 of 7, 4 of 6, 2 of 5, 1 of 4 (Russian) or 0 (English, smoothed to half a one)."""
        words = pair[0].split(), pair[1].split()
        precisions = []
        for n in range(1, 5):
            ours, theirs = ([tuple(w[i : i + n]) for i in range(len(w) - n + 1)] for w in words)
            common = sum(gram in theirs for gram in ours)
            precisions.append((common or 0.5) / len(ours))
        assert score(pair, language)["bleu"] == pytest.approx(math.prod(precisions) ** 0.25)
        assert precisions[:3] == [6 / 7, 4 / 6, 2 / 5]

    @pytest.mark.parametrize(("pair", "language"), [(ENGLISH, "en"), (RUSSIAN, "ru")])
    def test_chrf(self, pair, language):
        """F₂ of character n-grams up to 6, spaces left out, the mean over n."""
        texts = [text.replace(" ", "") for text in pair]
        totals = []
        for n in range(1, 7):
            ours, theirs = ([t[i : i + n] for i in range(len(t) - n + 1)] for t in texts)
            common = sum(min(ours.count(gram), theirs.count(gram)) for gram in set(ours))
            totals.append((common / len(ours), common / len(theirs)))
        precision, recall = (sum(values) / 6 for values in zip(*totals, strict=True))
        expected = 5 * precision * recall / (4 * precision + recall)
        assert score(pair, language)["chrf"] == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(
        ("text", "reference", "language", "matches", "chunks"),
        [
            (*ENGLISH, "en", 6, 2),
            (*RUSSIAN, "ru", 6, 2),
            ("two cats slept", "two cat sleeps", "en", 2, 1),  # cats and cat by their stem
            ("старые книги", "старая книга", "ru", 2, 1),  # both by their stems
            ("книги старые", "старая книга", "ru", 2, 2),
            ("ничего общего", "другие слова", "ru", 0, 0),
        ],
    )
    def test_meteor(self, text, reference, language, matches, chunks, monkeypatch):
        monkeypatch.setattr(module, "_synonyms", lambda language: module._NoSynonyms())
        precision, recall = matches / len(text.split()), matches / len(reference.split())
        expected = 0.0
        if matches:
            mean = precision * recall / (0.9 * precision + 0.1 * recall)
            expected = (1 - 0.5 * (chunks / matches) ** 3) * mean
        assert score((text, reference), language)["meteor"] == pytest.approx(expected)


def test_equal_texts_score_one_in_both_languages():
    for pair, language in ((ENGLISH, "english"), (RUSSIAN, "Russian")):
        found = generation_metrics([pair[0]], [pair[0]], language=language)
        assert tuple(found) == GENERATION_METRICS
        assert all(found[name] == pytest.approx(1) for name in GENERATION_METRICS[:-1])
        assert found["meteor"] == pytest.approx(1 - 0.5 / 7**3)


def test_synonyms_count_where_there_are_any(monkeypatch):
    """Of words that are their own stems: NLTK stems before it looks."""

    class Lemma:
        def name(self):
            return "tom"

    class Synset:
        def lemmas(self):
            return [Lemma()]

    class Synonyms:
        def synsets(self, word):
            return [Synset()] if word == "cat" else []

    pair = ("the cat", "the tom")
    monkeypatch.setattr(module, "_synonyms", lambda language: module._NoSynonyms())
    without = score(pair, "en")["meteor"]
    monkeypatch.setattr(module, "_synonyms", lambda language: Synonyms())
    assert score(pair, "en")["meteor"] == pytest.approx(1 - 0.5 / 8) and without < 0.6


def test_the_best_of_several_references_counts():
    other = "nothing in common"
    alone = score(ENGLISH, "en")
    found = generation_metrics([ENGLISH[0], "x y"], [[other, ENGLISH[1]], "x y"], language="en")
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx((alone[name] + 1) / 2)


def test_empty_predictions_score_nothing():
    assert set(generation_metrics(["", ""], ["one two", "три"], language="ru").values()) == {0.0}


def test_signatures_name_version_and_settings():
    found = metric_signatures()
    assert "tok:13a" in found["bleu"] and "version:" in found["bleu"] and "nc:6" in found["chrf"]
    assert "nrefs:1|" in found["bleu"] and "nrefs:2|" in metric_signatures([["a", "b"]])["bleu"]
    assert "nrefs:var|" in metric_signatures(["a", ["a", "b"]])["chrf"]


@pytest.mark.parametrize(
    ("predictions", "references", "language", "message"),
    [
        ([], [], "en", "at least one"),
        (["a"], ["a", "b"], "en", "got 2 and 1"),
        (["a"], [[]], "en", "prediction 0 has no reference"),
        (["a"], ["a"], "klingon", r"en \(english\)"),
    ],
)
def test_bad_input(predictions, references, language, message):
    with pytest.raises(ValueError, match=message):
        generation_metrics(predictions, references, language=language)
