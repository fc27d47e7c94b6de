"""Classification metrics from class probabilities, and the callable that gives them to a `Trainer`.

Nothing here warns or fails because a split lacks a class: small validation sets of many classes often do. An average
runs over the classes for which its terms are defined, and what is not defined at all is NaN. scikit-learn, a second to
import, is imported on first use: not every process of a run scores.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


LOG_LOSS_FLOOR = 1e-15
ROW_SUM_TOLERANCE = 1e-2  # probabilities that went through bfloat16 sum to one only to about 0.4 %


# The keys of `classification_metrics`.
CLASSIFICATION_METRICS = (
    *("accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro"),
    *("roc_auc", "pr_auc", "log_loss", "ece"),
)


class ClassificationMetrics:
    """`compute_metrics` for a `Trainer` of a sequence classifier: logits and labels in, `classification_metrics` out.

    Takes an `EvalPrediction` (any object with `predictions` and `label_ids`). `predictions` is the logits array [n, c]
    or a tuple whose first item it is, as models that also return hidden states give. `primary_metric` and
    `greater_is_better` are what `metric_for_best_model` and `greater_is_better` should be set to.

    >>> from types import SimpleNamespace
    >>> scored = SimpleNamespace(predictions=np.array([[2.0, 0.0], [0.0, 1.0]]), label_ids=np.array([0, 1]))
    >>> ClassificationMetrics()(scored)["accuracy"]
    1.0
    """

    primary_metric = "f1_macro"
    greater_is_better = True

    def __call__(self, prediction: Any) -> dict[str, float]:
        logits = prediction.predictions
        if isinstance(logits, tuple | list):
            logits = logits[0]
        return classification_metrics(softmax(logits), prediction.label_ids)


def classification_metrics(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Score the class probabilities [n, c] against the integer labels [n], in [0, c).

    The prediction is the class of the largest probability, the first of equals. Keys:

    - `accuracy`;
    - `f1_macro`, `precision_macro`, `recall_macro`: plain means over the classes present in the labels or in the
      predictions; a class never predicted has precision 0, a class never in the labels recall 0;
    - `f1_weighted`: mean of F1 weighted by the number of labels;
    - `roc_auc`, `pr_auc` (average precision): with two classes those of class 1; with more the plain mean of
      one-against-the-rest over the classes that have both positives and negatives here; NaN if there is none;
    - `log_loss`: mean negative log-likelihood in nats, clipped at 1e-15; `ece`: see `expected_calibration_error`.

    Raises `ValueError` on empty input, shapes that do not match, labels out of range or not integers, and rows that
    are not probabilities.

    >>> scores = classification_metrics([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], [0, 0, 1])
    >>> round(scores["accuracy"], 4), round(scores["f1_macro"], 4), scores["roc_auc"]
    (0.6667, 0.6667, 1.0)
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    p, y = check_scores(probabilities, labels)
    predictions = p.argmax(axis=1)
    present = np.union1d(y, predictions)
    precision, recall, f1, support = precision_recall_fscore_support(y, predictions, labels=present, zero_division=0)
    likelihood = np.clip(p[np.arange(len(y)), y], LOG_LOSS_FLOOR, 1.0)
    scores = {
        "accuracy": np.mean(predictions == y),
        "f1_macro": f1.mean(),
        "f1_weighted": np.average(f1, weights=support),
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "roc_auc": _mean_over_classes(roc_auc_score, p, y),
        "pr_auc": _mean_over_classes(average_precision_score, p, y),
        "log_loss": -np.log(likelihood).mean(),
        "ece": expected_calibration_error(p, y),
    }
    return {name: float(value) for name, value in scores.items()}


def per_class_table(
    probabilities: ArrayLike, labels: ArrayLike, names: Sequence[str] | None = None
) -> list[dict[str, str | int | float]]:
    """One row for each of the c classes, in class order: label, precision, recall, f1, support, roc_auc.

    `names` [c] are the labels' names, their numbers by default. A value without a denominator is NaN: the precision of
    a class never predicted, the recall of a class without labels, the F1 of one with neither. The mean of the F1 that
    are defined is therefore `f1_macro`. Inputs and errors as in `classification_metrics`.
    """
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    p, y = check_scores(probabilities, labels)
    labels_of = class_names(names, p.shape[1])
    precision, recall, f1, support = precision_recall_fscore_support(
        y, p.argmax(axis=1), labels=np.arange(p.shape[1]), zero_division=np.nan
    )
    defined = set(scorable_classes(y, p.shape[1]))
    return [
        {
            "label": labels_of[k],
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(support[k]),
            "roc_auc": float(roc_auc_score(y == k, p[:, k])) if k in defined else float("nan"),
        }
        for k in range(p.shape[1])
    ]


def confused_pairs(
    labels: ArrayLike, predictions: ArrayLike, names: Sequence[str], top: int = 10
) -> list[dict[str, str | int | float]]:
    """The `top` most frequent mistakes: rows label, prediction, count, share_of_label (of all rows with that label).

    What a confusion matrix of many classes cannot show in print. `labels` and `predictions` are integers [n] in
    [0, len(names)). Ties are broken by class order; pairs that never occur are left out.
    """
    counts = confusion_counts(labels, predictions, len(names))
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:top]
    return [
        {
            "label": names[true],
            "prediction": names[predicted],
            "count": int(mistakes[true, predicted]),
            "share_of_label": float(mistakes[true, predicted] / counts[true].sum()),
        }
        for true, predicted in zip(*np.unravel_index(order, mistakes.shape), strict=True)
        if mistakes[true, predicted]
    ]


def confusion_counts(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count [classes, classes] the pairs of label (row) and prediction (column), both integers [n] in [0, classes)."""
    y, predicted = check_labels(labels, classes), check_labels(predictions, classes, "predictions")
    if len(y) != len(predicted):
        raise ValueError(f"labels and predictions must have one length, got {len(y)} and {len(predicted)}")
    return np.bincount(y * classes + predicted, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error, in [0, 1]: how far confidence is from accuracy (arXiv:1706.04599, eq. 3).

    The rows are put in `bins` equal-width bins of their largest probability; the result is the mean over rows of the
    gap |accuracy - mean confidence| of their bin. Inputs and errors as in `classification_metrics`.

    >>> round(expected_calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1]), 4)
    0.4
    """
    counts, confidence, accuracy = calibration_bins(probabilities, labels, bins)
    filled = counts > 0
    return float(np.average(np.abs(accuracy - confidence)[filled], weights=counts[filled]))


def calibration_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean confidence and accuracy [bins] of the rows by confidence; bin i is (i / bins, (i + 1) / bins].

    An empty bin has NaN for both means. Inputs and errors as in `classification_metrics`.
    """
    p, y = check_scores(probabilities, labels)
    confidence = p.max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, weights=confidence, minlength=bins) / counts
        accuracy = np.bincount(place, weights=p.argmax(axis=1) == y, minlength=bins) / counts
    return counts, mean_confidence, accuracy


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities [n, c] of the logits [n, c], in float64 and safe for logits of any size.

    Raises `ValueError` if the logits are not a finite matrix.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"logits must be a matrix of n rows and c classes, got shape {z.shape}")
    broken = ~np.isfinite(z).all(axis=1)
    if broken.any():
        raise ValueError(f"{broken.sum()} of {len(z)} rows of logits hold NaN or infinity: the model has diverged")
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def check_scores(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities [n, c] as float64 and labels [n] as int64, or the `ValueError` of `classification_metrics`."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"probabilities must be a matrix of n rows and at least 2 classes, got shape {p.shape}")
    y = check_labels(labels, p.shape[1])
    if len(y) != len(p):
        raise ValueError(f"probabilities and labels must have one length, got {len(p)} and {len(y)}")
    if not len(y):
        raise ValueError("there is nothing to score: probabilities and labels have 0 rows")
    sums = p.sum(axis=1)
    if not (p.min() >= 0 and np.abs(sums - 1).max() <= ROW_SUM_TOLERANCE):
        raise ValueError(
            f"rows of probabilities must be non-negative and sum to 1, got sums from {sums.min():.4g} to "
            f"{sums.max():.4g} and a smallest value of {p.min():.4g}; pass logits through softmax first"
        )
    return p, y


def check_labels(labels: ArrayLike, classes: int, what: str = "labels") -> NDArray[np.int64]:
    """Integers [n] in [0, classes) as int64, or a `ValueError` that says what was got instead."""
    y = np.asarray(labels)
    if y.ndim != 1 or (y.size and y.dtype.kind not in "iub"):
        raise ValueError(f"{what} must be a vector of integers, got {y.dtype} of shape {y.shape}")
    if y.size and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"{what} must be from 0 to {classes - 1}, got from {y.min()} to {y.max()}")
    return y.astype(np.int64)


def class_names(names: Sequence[str] | None, classes: int) -> list[str]:
    """The names as text, or "0", "1", … where there are none; a `ValueError` if their number is not `classes`."""
    if names is None:
        return [str(k) for k in range(classes)]
    if len(names) != classes:
        raise ValueError(f"`names` must name each of the {classes} classes, got {len(names)}")
    return [str(name) for name in names]


def scorable_classes(labels: NDArray[np.int64], classes: int) -> list[int]:
    """The classes with at least one positive and one negative among the labels [n]."""
    counts = np.bincount(labels, minlength=classes)
    return [int(k) for k in np.flatnonzero((counts > 0) & (counts < len(labels)))]


def _mean_over_classes(score: Any, p: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """`score(is positive [n], probability [n])` of class 1 of two, or its mean over the scorable classes of many."""
    classes = scorable_classes(y, p.shape[1])
    if p.shape[1] == 2:
        classes = [k for k in classes if k == 1]
    return float(np.mean([score(y == k, p[:, k]) for k in classes])) if classes else float("nan")
