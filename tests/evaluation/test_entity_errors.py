"""Kinds of errors on hand-worked rows and their sums on random ones; confusion of labels against a plain count."""

import numpy as np
import pytest

from tithe.evaluation import (
    confusion_matrix,
    entity_errors,
    entity_metrics,
    entity_spans,
    match_entities,
    token_confusion,
    token_ids,
)


NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def row(text):
    """`P p o L` for B-PER I-PER O B-LOC."""
    return [{"P": "B-PER", "p": "I-PER", "L": "B-LOC", "l": "I-LOC", "o": "O"}[letter] for letter in text.split()]


@pytest.mark.parametrize(
    ("prediction", "reference", "kinds"),
    [
        ("P p o L", "P p o L", ["correct", "correct"]),
        ("P p", "L l", ["wrong_type"]),
        ("P p o", "P o o", ["wrong_boundary"]),
        ("o P p", "L l o", ["wrong_boundary"]),
        ("P o o", "o o o", ["spurious"]),
        ("o o o", "o P p", ["missed"]),
        ("P o", "o P", ["spurious", "missed"]),
        ("P P p p", "P p p p", ["wrong_boundary", "spurious"]),
        ("P p p p", "P P p p", ["wrong_boundary", "missed"]),
        ("P P P", "P p p", ["wrong_boundary", "spurious", "spurious"]),  # of equal overlaps the first
        ("P p L", "o P L", ["wrong_boundary", "correct"]),
        ("p p o", "P p o", ["missed"]),  # I-PER after nothing is no entity
        ("", "", []),
    ],
)
def test_hand_worked_kinds(prediction, reference, kinds):
    assert [match.kind for match in match_entities(row(prediction), row(reference))] == kinds


def test_the_longer_overlap_is_the_match():
    boundary, spurious = match_entities(row("P P p p"), row("P p p p"))
    assert (boundary.prediction, spurious.prediction) == (("PER", 1, 4), ("PER", 0, 1))


def test_a_match_names_both_entities():
    (match,) = match_entities(row("o P p o"), row("L l o o"))
    assert match == ("wrong_boundary", ("PER", 1, 3), ("LOC", 0, 2))


@pytest.mark.parametrize("seed", range(3))
def test_every_entity_is_counted_once(seed):
    rng = np.random.default_rng(seed)
    references = [rng.choice(NAMES, rng.integers(1, 12)).tolist() for _ in range(80)]
    predictions = [[str(rng.choice(NAMES)) if rng.random() < 0.3 else tag for tag in tags] for tags in references]
    counts = entity_errors(predictions, references)
    assert sum(counts.values()) - counts["spurious"] == sum(len(entity_spans(tags)) for tags in references)
    assert sum(counts.values()) - counts["missed"] == sum(len(entity_spans(tags)) for tags in predictions)
    assert min(counts.values()) > 0
    scores = entity_metrics(predictions, references)
    assert counts["correct"] == pytest.approx(scores["recall"] * scores["entities"])
    swapped = entity_errors(references, predictions)
    assert (swapped["missed"], swapped["correct"]) == (counts["spurious"], counts["correct"])


def test_confusion_of_labels(tmp_path):
    predictions, references = [row("P p o"), [], row("o L")], [row("P l o"), [], row("L L")]
    counts = token_confusion(predictions, references, NAMES)
    assert counts.dtype == np.int64
    expected = np.zeros((5, 5), int)
    for right, found in [(1, 1), (4, 2), (0, 0), (3, 0), (3, 3)]:
        expected[right, found] += 1
    assert counts.tolist() == expected.tolist()
    assert token_ids(references, NAMES).tolist() == [1, 4, 0, 3, 3]
    path = confusion_matrix(
        tmp_path / "labels.png", token_ids(references, NAMES), token_ids(predictions, NAMES), NAMES
    )
    assert path.read_bytes().startswith(b"\x89PNG")


def test_bad_rows_are_refused():
    with pytest.raises(ValueError, match="'B-LOC' is not among the 2 `names`"):
        token_confusion([row("L")], [row("P")], ["O", "B-PER"])
    with pytest.raises(ValueError, match="row 0: 2 predicted labels but 1"):
        entity_errors([row("o o")], [row("o")])
    with pytest.raises(ValueError, match="`predictions` has 'X'"):
        token_confusion([["X"]], [["O"]], ["O", "X"])
