"""Entity scores: hand-worked rows, seqeval on random and malformed labels, and a `Trainer`'s predictions."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2, Entities

from tithe.evaluation import (
    ENTITY_METRICS,
    EntityMetrics,
    entity_metrics,
    entity_spans,
    entity_table,
    keep_predictions,
)


NAMES = ["O", "B-PER", "I-PER", "B-creative-work", "I-creative-work", "B-LOC", "I-LOC"]


def random_rows(seed, rows=60, errors=0.3):
    """References of any labels, malformed ones among them, and predictions that differ in a share of the words."""
    rng = np.random.default_rng(seed)
    references = [rng.choice(NAMES, rng.integers(0, 15)).tolist() for _ in range(rows)]
    predictions = [[str(rng.choice(NAMES)) if rng.random() < errors else tag for tag in row] for row in references]
    return predictions, references


REFERENCES = [
    ["B-PER", "I-PER", "O", "B-LOC", "O"],
    ["O", "B-LOC", "I-LOC", "B-LOC"],
]
PREDICTIONS = [
    ["B-PER", "I-PER", "O", "B-PER", "O"],
    ["O", "B-LOC", "O", "B-LOC"],
]


def test_hand_worked_scores():
    # 4 entities, 4 predicted: Ann Lee and the last LOC are right. PER: 1 of 2 predicted, 1 of 1; LOC: 1 of 2, 1 of 3
    scores = entity_metrics(PREDICTIONS, REFERENCES)
    assert scores == pytest.approx(
        {
            "f1": 0.5,
            "precision": 0.5,
            "recall": 0.5,
            "f1_macro": (2 / 3 + 2 / 5) / 2,
            "precision_macro": 0.5,
            "recall_macro": (1 + 1 / 3) / 2,
            "accuracy": 7 / 9,
            "entities": 4,
        }
    )
    assert all(type(value) is float for value in scores.values())
    loc, per = entity_table(PREDICTIONS, REFERENCES)
    assert loc == {
        "type": "LOC",
        "precision": 0.5,
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(0.4),
        "support": 3,
    }
    assert per == {"type": "PER", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}


def test_spans_are_read_strictly():
    assert entity_spans(["I-PER", "I-PER", "B-LOC", "I-PER", "I-LOC", "B-PER", "B-PER", "I-PER"]) == [
        ("LOC", 2, 3), ("PER", 5, 6), ("PER", 6, 8),
    ]  # fmt: skip
    assert entity_spans([]) == entity_spans(["O", "I-PER"]) == []


@pytest.mark.parametrize("seed", range(5))
def test_spans_and_scores_are_those_of_seqeval(seed):
    predictions, references = random_rows(seed)
    for rows in (predictions, references):
        expected = [[(e.tag, e.start, e.end) for e in row] for row in Entities(rows, IOB2).entities]
        assert [entity_spans(row) for row in rows] == expected
    scores = entity_metrics(predictions, references)
    for average, suffix in (("micro", ""), ("macro", "_macro")):
        p, r, f, support = precision_recall_fscore_support(references, predictions, average=average, scheme=IOB2)
        assert [scores[f"{name}{suffix}"] for name in ("precision", "recall", "f1")] == pytest.approx([p, r, f])
        assert scores["entities"] == support


def test_scores_are_those_of_sets_of_entities():
    predictions, references = random_rows(9)
    found = {(row, *e) for row, tags in enumerate(predictions) for e in entity_spans(tags)}
    wanted = {(row, *e) for row, tags in enumerate(references) for e in entity_spans(tags)}
    scores = entity_metrics(predictions, references)
    assert scores["precision"] == pytest.approx(len(found & wanted) / len(found))
    assert scores["recall"] == pytest.approx(len(found & wanted) / len(wanted))
    table = {row["type"]: row for row in entity_table(predictions, references)}
    for kind in ("PER", "LOC", "creative-work"):
        of_kind = {e for e in wanted if e[1] == kind}
        assert table[kind]["support"] == len(of_kind)
        assert table[kind]["recall"] == pytest.approx(len(found & of_kind) / len(of_kind))


@pytest.mark.parametrize(
    ("prediction", "reference", "entities"),
    [("O", "B-PER", 1), ("B-PER", "O", 0), ("O", "O", 0), ("I-PER", "I-PER", 0)],
)
def test_no_denominator_is_zero_without_a_warning(prediction, reference, entities):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = entity_metrics([[prediction]], [[reference]])
        table = entity_table([[prediction]], [[reference]])
    assert (scores["f1"], scores["f1_macro"], scores["entities"]) == (0, 0, entities)
    assert scores["accuracy"] == (prediction == reference)
    assert len(table) == (prediction != reference)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([["O"]], [["O"], ["O"]], "as many rows, got 1 and 2"),
        ([["O"], ["O"]], [["O"], ["O", "O"]], "row 1: 1 predicted labels but 2"),
        ([["S-PER"]], [["O"]], "`predictions` has 'S-PER'"),
        ([["O"]], [["PER"]], "`references` has 'PER'"),
        ([["O"]], [["B-"]], "`references` has 'B-'"),
        ([], [], "nothing to score"),
        ([[]], [[]], "nothing to score"),
    ],
)
def test_bad_rows_are_refused(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        entity_metrics(predictions, references)
    with pytest.raises(ValueError, match="no label in IOB2"):
        entity_spans(["B-"])


def padded(rows):
    width = max(map(len, rows)) + 2
    return np.array([[-100, *(NAMES.index(tag) for tag in row), *[-100] * (width - 1 - len(row))] for row in rows])


def test_a_trainers_predictions_in_every_form():
    predictions, references = random_rows(3)
    expected = entity_metrics(predictions, references)
    labels = padded(references)
    ids = padded(predictions)
    rng = np.random.default_rng(0)
    ids[labels == -100] = rng.integers(-100, len(NAMES), (labels == -100).sum())  # whatever a model says there
    logits = rng.random((*labels.shape, len(NAMES)))
    logits[ids >= 0, ids[ids >= 0]] = 2
    metrics = EntityMetrics(NAMES)
    kept = keep_predictions(torch.tensor(logits), torch.tensor(labels)).numpy()
    for form in (ids, logits, (logits, "hidden states"), kept, keep_predictions((logits,), labels)):
        assert metrics(SimpleNamespace(predictions=form, label_ids=labels)) == expected
    assert metrics.primary_metric in expected and metrics.greater_is_better


def test_bad_arrays_are_refused():
    labels = np.array([[1, -100]])
    metrics = EntityMetrics(NAMES)
    for predictions, message in [
        (np.zeros((1, 3), int), "must fit the labels"),
        (np.zeros((1, 3, 7)), "must fit the labels"),
        (np.zeros(2, int), "must fit the labels"),
        (np.zeros((1, 2, 5)), "logits of 5 classes do not fit the 7"),
        (np.full((1, 2, 7), np.nan), "logits of 1 tokens hold NaN"),
        (np.full((1, 2), 7), "predictions must be from 0 to 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            metrics(SimpleNamespace(predictions=predictions, label_ids=labels))
    with pytest.raises(ValueError, match="labels must be from 0 to 6"):
        metrics(SimpleNamespace(predictions=labels, label_ids=labels + 106))


def test_the_names_of_the_metrics_are_known_beforehand():
    assert tuple(entity_metrics([["B-X"]], [["B-X"]])) == ENTITY_METRICS
