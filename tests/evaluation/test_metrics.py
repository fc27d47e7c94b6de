import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as sk

from tithe.evaluation import (
    CLASSIFICATION_METRICS,
    ClassificationMetrics,
    classification_metrics,
    confused_pairs,
    expected_calibration_error,
    per_class_table,
    softmax,
)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def one_hot(predictions, classes, confidence=1.0):
    p = np.full((len(predictions), classes), (1 - confidence) / (classes - 1))
    p[np.arange(len(predictions)), predictions] = confidence
    return p


def random_scores(n=400, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.0
    return softmax(logits), labels


def test_hand_worked_example_of_three_classes():
    # labels      0 0 0 1 1 2     per class: 0: tp 2, fp 1, fn 1 -> P 2/3, R 2/3, F 2/3
    # predictions 0 0 1 1 0 2                1: tp 1, fp 1, fn 1 -> 1/2;  2: all right -> 1
    p = one_hot([0, 0, 1, 1, 0, 2], 3, confidence=0.8)
    scores = classification_metrics(p, [0, 0, 0, 1, 1, 2])
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["f1_weighted"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1 * 1) / 6)
    assert scores["precision_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["recall_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["log_loss"] == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6)
    assert scores["ece"] == pytest.approx(abs(4 / 6 - 0.8))


def test_hand_worked_binary_ranking():
    # by falling score the labels are 1 0 1 0: 3 of 4 pairs in order; precision 1 at recall 1/2 and 2/3 at recall 1
    p = np.array([[0.1, 0.9], [0.3, 0.7], [0.6, 0.4], [0.8, 0.2]])
    scores = classification_metrics(p, [1, 0, 1, 0])
    assert scores["roc_auc"] == pytest.approx(3 / 4)
    assert scores["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["accuracy"] == 0.5


def test_complete_splits_agree_with_scikit_learn():
    p, y = random_scores()
    scores, predictions = classification_metrics(p, y), p.argmax(axis=1)
    binary = np.eye(5)[y]
    expected = {
        "accuracy": sk.accuracy_score(y, predictions),
        "f1_macro": sk.f1_score(y, predictions, average="macro"),
        "f1_weighted": sk.f1_score(y, predictions, average="weighted"),
        "precision_macro": sk.precision_score(y, predictions, average="macro"),
        "recall_macro": sk.recall_score(y, predictions, average="macro"),
        "roc_auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "pr_auc": sk.average_precision_score(binary, p, average="macro"),
        "log_loss": sk.log_loss(y, p),
    }
    assert set(scores) == {*expected, "ece"}
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_class_missing_from_the_split_is_left_out_of_the_averages():
    p, y = random_scores(classes=3)
    with_two_empty = np.column_stack([p[:, :1], np.zeros(len(y)), p[:, 1:], np.zeros(len(y))])
    moved = np.array([0, 2, 3])[y]
    assert classification_metrics(with_two_empty, moved) == pytest.approx(classification_metrics(p, y))


def test_class_predicted_but_never_labelled_counts_as_zero():
    scores = classification_metrics(one_hot([0, 2, 1, 1], 3), [0, 0, 1, 1])
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["precision_macro"] == pytest.approx(2 / 3)
    assert scores["recall_macro"] == pytest.approx((1 / 2 + 1 + 0) / 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_areas_are_nan_where_one_class_is_all_there_is(classes):
    scores = classification_metrics(one_hot([1, 1, 0], classes, 0.9), [1, 1, 1])
    assert np.isnan(scores["roc_auc"]) and np.isnan(scores["pr_auc"])
    assert scores["accuracy"] == pytest.approx(2 / 3) and np.isfinite(scores["log_loss"])


def test_log_loss_of_a_certain_mistake_is_clipped():
    assert classification_metrics([[1.0, 0.0]], [1])["log_loss"] == pytest.approx(-np.log(1e-15))


def test_calibration_error_by_hand():
    # bins of a fifth: (0.4, 0.6] holds 0.55 and 0.6, one right: |0.5 - 0.575|; (0.8, 1] holds 0.9 and 1, both right
    p = np.array([[0.55, 0.45], [0.4, 0.6], [0.9, 0.1], [0.0, 1.0]])
    labels = [0, 0, 0, 1]
    assert expected_calibration_error(p, labels, bins=5) == pytest.approx((2 * 0.075 + 2 * 0.05) / 4)
    assert expected_calibration_error(p, labels, bins=1) == pytest.approx(abs(0.75 - 0.7625))


def test_calibration_error_keeps_opposite_errors_of_different_bins_apart():
    p = one_hot([0] * 4, 2, 0.6).tolist() + one_hot([0] * 4, 2, 0.8).tolist()
    labels = [0, 0, 0, 0, 0, 0, 1, 1]  # 0.6 is right always, 0.8 half of the time: +0.4 and -0.3
    assert expected_calibration_error(p, labels) == pytest.approx(0.35)


def test_per_class_table_has_nan_for_what_is_undefined():
    rows = per_class_table(one_hot([0, 0, 1, 3], 5, 0.9), [0, 1, 1, 1], names=list("abcde"))
    assert [row["label"] for row in rows] == list("abcde")
    assert [row["support"] for row in rows] == [1, 3, 0, 0, 0]
    a, b, c, d, _ = rows
    assert (a["precision"], a["recall"], a["f1"]) == pytest.approx((1 / 2, 1, 2 / 3))
    assert (b["precision"], b["recall"], b["f1"]) == pytest.approx((1, 1 / 3, 1 / 2))
    assert np.isnan([c["precision"], c["recall"], c["f1"], c["roc_auc"]]).all()
    assert d["precision"] == 0 and np.isnan(d["recall"]) and d["f1"] == 0
    assert a["roc_auc"] == pytest.approx(5 / 6)  # 0.9 against 0.9 (tie), 0.025, 0.025
    macro = classification_metrics(one_hot([0, 0, 1, 3], 5, 0.9), [0, 1, 1, 1])["f1_macro"]
    assert np.nanmean([row["f1"] for row in rows]) == pytest.approx(macro)


def test_confused_pairs_are_the_most_frequent_mistakes():
    labels, predictions = [0, 0, 0, 0, 1, 1, 2], [0, 1, 1, 2, 0, 1, 2]
    rows = confused_pairs(labels, predictions, ["a", "b", "c"], top=2)
    assert rows == [
        {"label": "a", "prediction": "b", "count": 2, "share_of_label": 0.5},
        {"label": "a", "prediction": "c", "count": 1, "share_of_label": 0.25},
    ]
    assert confused_pairs([0, 1], [0, 1], ["a", "b"]) == []


@pytest.mark.parametrize("extra", [None, np.zeros((3, 7, 4))])
def test_trainer_callable_takes_logits_alone_or_first_of_a_tuple(extra):
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    predictions = logits if extra is None else (logits, extra)
    metrics = ClassificationMetrics()
    scores = metrics(SimpleNamespace(predictions=predictions, label_ids=np.array([0, 1, 0])))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["log_loss"] == pytest.approx(np.log1p(np.e) / 3)
    assert metrics.primary_metric in scores and metrics.greater_is_better is True


def test_softmax_is_exact_in_float64_and_blind_to_a_shift():
    logits = np.array([[0.0, np.log(3.0)]], dtype=np.float64)
    assert softmax(logits) == pytest.approx(np.array([[0.25, 0.75]]))
    assert softmax(logits + 1e4) == pytest.approx(softmax(logits), rel=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "0 rows"),
        ([0.5, 0.5], [0, 1], r"shape \(2,\)"),
        ([[1.0], [1.0]], [0, 0], r"shape \(2, 1\)"),
        ([[0.5, 0.5]], [0, 1], "got 1 and 2"),
        ([[0.5, 0.5]], [2], "from 0 to 1, got from 2 to 2"),
        ([[0.5, 0.5]], [-100], "got from -100"),
        ([[0.5, 0.5]], [0.0], "float64"),
        ([[2.0, -1.0]], [0], "softmax"),
        ([[3.0, 1.0]], [0], "sums from 4 to 4"),
        ([[np.nan, 1.0]], [0], "nan"),
    ],
)
def test_errors_say_what_was_got(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(probabilities, labels)


def test_diverged_model_is_named():
    with pytest.raises(ValueError, match="1 of 2 rows of logits hold NaN"):
        softmax([[0.0, 1.0], [np.nan, 0.0]])


def test_names_must_match_the_classes():
    with pytest.raises(ValueError, match="each of the 2 classes, got 3"):
        per_class_table([[0.5, 0.5]], [0], names=["a", "b", "c"])


def test_the_names_of_the_metrics_are_known_beforehand():
    assert tuple(classification_metrics(np.eye(2), np.arange(2))) == CLASSIFICATION_METRICS
