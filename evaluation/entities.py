"""Entity-level scores of token classifiers, and the callable that gives them to a `Trainer`.

Labels are in IOB2: B-X opens an entity of type X, I-X goes on with it, O is outside. Scores are seqeval's in its
strict mode: an entity counts if its type and both its ends are right, and an I-X that continues nothing is no entity.
seqeval, seconds to import, is imported on first use.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import check_labels


IGNORED = -100  # the label of special tokens, padding and whatever else is not scored
_TAG = re.compile(r"O|[BI]-.+", re.DOTALL)

TagRows = Sequence[Sequence[str]]


class Entity(NamedTuple):
    """An entity of the words `start` to `end`, the last not included."""

    type: str
    start: int
    end: int


# The keys of `entity_metrics`.
ENTITY_METRICS = ("f1", "precision", "recall", "f1_macro", "precision_macro", "recall_macro", "accuracy", "entities")


class EntityMetrics:
    """`compute_metrics` for a `Trainer` of a token classifier: `entity_metrics`, with the labels' `names` [c].

    Takes an `EvalPrediction` (any object with `predictions` and `label_ids`). `predictions` are logits [n, t, c] or
    class ids [n, t], or a tuple whose first item they are; `label_ids` [n, t] has -100 where nothing is scored. Give
    `keep_predictions` to the trainer as `preprocess_logits_for_metrics`, and no logits are kept. Each scored
    sub-token counts as a word: label the first sub-token of each word only, for scores of words. Raises `ValueError`
    on shapes that do not match, ids out of range, NaN and infinite logits.

    >>> from types import SimpleNamespace
    >>> scored = SimpleNamespace(predictions=np.array([[0, 1, 2]]), label_ids=np.array([[-100, 1, 2]]))
    >>> EntityMetrics(["O", "B-PER", "I-PER"])(scored)["f1"]
    1.0
    """

    primary_metric = "f1"
    greater_is_better = True

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __call__(self, prediction: Any) -> dict[str, float]:
        return entity_metrics(*tag_rows(prediction.predictions, prediction.label_ids, self.names))


def keep_predictions(logits: Any, labels: Any = None) -> Any:
    """The class ids [n, t] of the logits [n, t, c], a tensor or array: a `preprocess_logits_for_metrics`.

    A `Trainer` then keeps one integer per token of an evaluation, not c floats. Of a tuple the first item counts.

    >>> keep_predictions(np.array([[[0.1, 0.9], [0.8, 0.2]]]))
    array([[1, 0]])
    """
    first = logits[0] if isinstance(logits, tuple | list) else logits
    return first.argmax(-1)


def tag_rows(predictions: Any, label_ids: ArrayLike, names: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """The names of predictions and references of n rows, where the labels are not -100. Inputs as in `EntityMetrics`.

    A row without labels gives an empty one, so rows keep their numbers.
    """
    labels = np.asarray(label_ids)
    first = np.asarray(predictions[0] if isinstance(predictions, tuple | list) else predictions)
    if first.ndim not in (2, 3) or first.shape[:2] != labels.shape:
        raise ValueError(
            f"predictions [n, t] or logits [n, t, c] must fit the labels [n, t], got {first.shape} and {labels.shape}"
        )
    scored = labels != IGNORED
    wanted = check_labels(labels[scored], len(names))
    found = _class_ids(first[scored], len(names))
    kinds = np.array(names, dtype=object)
    ends = np.cumsum(scored.sum(axis=1))[:-1]
    return (
        [part.tolist() for part in np.split(kinds[found], ends)],
        [part.tolist() for part in np.split(kinds[wanted], ends)],
    )


def entity_spans(tags: Sequence[str]) -> list[Entity]:
    """The entities of one row of labels [n] in IOB2, in order; they do not overlap.

    Strict: an I-X after nothing, or after another type, belongs to no entity. Raises `ValueError` for a label that is
    neither O nor B-X nor I-X.

    >>> entity_spans(["B-PER", "I-PER", "B-PER", "I-LOC"])
    [Entity(type='PER', start=0, end=2), Entity(type='PER', start=2, end=3)]
    """
    found: list[Entity] = []
    kind, start = "", -1
    for at, tag in enumerate([*tags, "O"]):
        if start >= 0 and tag != f"I-{kind}":
            found.append(Entity(kind, start, at))
            start = -1
        if tag[:2] == "B-" and len(tag) > 2:
            kind, start = tag[2:], at
        elif not _TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is no label in IOB2: wanted O, B-TYPE or I-TYPE")
    return found


def entity_metrics(predictions: TagRows, references: TagRows) -> dict[str, float]:
    """Score rows of predicted labels against the right ones, row by row of one length. Keys:

    - `f1`, `precision`, `recall`: of entities, over all types together (micro);
    - `f1_macro`, `precision_macro`, `recall_macro`: plain means over the types that occur on either side;
    - `accuracy`: share of the labels that are right, O included;
    - `entities`: number of entities in the references.

    A ratio without a denominator is 0, so a model that predicts nothing scores 0, and so does a set without entities.
    Raises `ValueError` where there is nothing to score, where lengths differ (naming the row) or a label is not IOB2.

    >>> scores = entity_metrics([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-ORG"]])
    >>> scores["f1"], scores["accuracy"]
    (0.5, 0.75)
    """
    report = _report(predictions, references)
    pairs = [
        (tag, right)
        for tags, rights in zip(predictions, references, strict=True)
        for tag, right in zip(tags, rights, strict=True)
    ]
    scores = {
        f"{name.removesuffix('-score')}{suffix}": float(report[average][name]) if report else 0.0
        for average, suffix in (("micro avg", ""), ("macro avg", "_macro"))
        for name in ("f1-score", "precision", "recall")
    }
    scores["accuracy"] = sum(tag == right for tag, right in pairs) / len(pairs)
    return {**scores, "entities": float(report["micro avg"]["support"]) if report else 0.0}


def entity_table(predictions: TagRows, references: TagRows) -> list[dict[str, str | int | float]]:
    """One row per type that occurs on either side, by name: type, precision, recall, f1, support.

    `support` is the number of entities of the type in the references. Inputs, ratios without a denominator and errors
    as in `entity_metrics`.
    """
    report = _report(predictions, references)
    return [
        {
            "type": kind,
            "precision": float(scores["precision"]),
            "recall": float(scores["recall"]),
            "f1": float(scores["f1-score"]),
            "support": int(scores["support"]),
        }
        for kind, scores in list(report.items())[:-3]  # the last three are averages
    ]


def check_tag_rows(predictions: TagRows, references: TagRows) -> None:
    """Raise the `ValueError` of `entity_metrics` unless both have the same rows of the same lengths, in IOB2."""
    if len(predictions) != len(references):
        raise ValueError(
            f"`predictions` and `references` must have as many rows, got {len(predictions)} and {len(references)}"
        )
    for row, (tags, right) in enumerate(zip(predictions, references, strict=True)):
        if len(tags) != len(right):
            raise ValueError(f"row {row}: {len(tags)} predicted labels but {len(right)} in `references`")
    for what, rows in (("predictions", predictions), ("references", references)):
        for tag in sorted({tag for row in rows for tag in row}):
            if not _TAG.fullmatch(tag):
                raise ValueError(f"`{what}` has {tag!r}, which is no label in IOB2: wanted O, B-TYPE or I-TYPE")


def _class_ids(scored: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Of logits [m, c], or ids [m], the class ids [m]."""
    if scored.ndim == 1:
        return check_labels(scored, classes, "predictions")
    if scored.shape[1] != classes:
        raise ValueError(f"logits of {scored.shape[1]} classes do not fit the {classes} `names`")
    broken = ~np.isfinite(scored).all(axis=1)
    if broken.any():
        raise ValueError(f"the logits of {broken.sum()} tokens hold NaN or infinity: the model has diverged")
    return scored.argmax(axis=1)


def _report(predictions: TagRows, references: TagRows) -> dict[str, dict[str, Any]]:
    """seqeval's report by type, followed by its averages; empty where neither side has an entity."""
    from seqeval.metrics.v1 import classification_report
    from seqeval.scheme import IOB2

    check_tag_rows(predictions, references)
    if not any(len(row) for row in references):
        raise ValueError("there is nothing to score: `references` has no labels")
    wanted, found = [list(row) for row in references], [list(row) for row in predictions]
    if not any(tag[0] == "B" for rows in (wanted, found) for row in rows for tag in row):
        return {}
    return classification_report(wanted, found, scheme=IOB2, output_dict=True, zero_division=0)
