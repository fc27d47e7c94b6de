"""What a tagger gets wrong: entities matched with the right ones, kinds of errors, confusion of labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .entities import Entity, TagRows, check_tag_rows, entity_spans
from .metrics import confusion_counts


CORRECT = "correct"
ERROR_KINDS = ("wrong_type", "wrong_boundary", "missed", "spurious")


class EntityMatch(NamedTuple):
    """A predicted entity and the right one it stands for, either of them None, and which kind of match that is."""

    kind: str
    prediction: Entity | None
    reference: Entity | None


def match_entities(prediction: Sequence[str], reference: Sequence[str]) -> list[EntityMatch]:
    """Match the entities of one row of predicted labels with those of the right ones, each at most once.

    First those of the same words: "correct", or "wrong_type". Of the others those that share words, pairs that share
    most of them first: "wrong_boundary", whatever their types. What is left was "missed" (reference only) or is
    "spurious" (prediction only). In the order of their first words. Labels are read strictly, as by `entity_spans`.

    >>> [match.kind for match in match_entities(["B-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O"])]
    ['wrong_boundary', 'spurious']
    """
    found, wanted = entity_spans(prediction), entity_spans(reference)
    same_words = {(entity.start, entity.end): entity for entity in wanted}
    matches = []
    for entity in found:
        other = same_words.get((entity.start, entity.end))
        if other is not None:
            matches.append(EntityMatch(CORRECT if entity == other else "wrong_type", entity, other))
    found, wanted = _left(found, wanted, matches)
    overlaps = [(_shared(a, b), a, b) for a in found for b in wanted if _shared(a, b)]
    for _, entity, other in sorted(overlaps, key=lambda pair: (-pair[0], pair[1].start, pair[2].start)):
        if all(entity != match.prediction and other != match.reference for match in matches):
            matches.append(EntityMatch("wrong_boundary", entity, other))
    found, wanted = _left(found, wanted, matches)
    matches += [EntityMatch("missed", None, entity) for entity in wanted]
    matches += [EntityMatch("spurious", entity, None) for entity in found]
    return sorted(matches, key=lambda match: min(entity.start for entity in match[1:] if entity is not None))


def entity_errors(predictions: TagRows, references: TagRows) -> dict[str, int]:
    """How many entities are correct, and how many are wrong in which way, with the kinds of `match_entities` as keys.

    All but "spurious" add up to the entities of the references, all but "missed" to those predicted. Raises
    `ValueError` as `entity_metrics` does, but for empty input, which has no errors.

    >>> entity_errors([["B-PER", "O", "B-LOC"]], [["B-ORG", "O", "O"]])
    {'correct': 0, 'wrong_type': 1, 'wrong_boundary': 0, 'missed': 0, 'spurious': 1}
    """
    check_tag_rows(predictions, references)
    counts = dict.fromkeys((CORRECT, *ERROR_KINDS), 0)
    for prediction, reference in zip(predictions, references, strict=True):
        for match in match_entities(prediction, reference):
            counts[match.kind] += 1
    return counts


def token_confusion(predictions: TagRows, references: TagRows, names: Sequence[str]) -> NDArray[np.int64]:
    """Count [c, c] how often each label (row) was predicted as each label (column), in the order of `names` [c].

    `confusion_matrix` draws it from `token_ids` of both. Raises `ValueError` for rows that differ in length, naming
    them, and for labels that `names` lacks.

    >>> token_confusion([["B-PER", "O"]], [["O", "O"]], ["O", "B-PER"]).tolist()
    [[1, 1], [0, 0]]
    """
    check_tag_rows(predictions, references)
    return confusion_counts(token_ids(references, names), token_ids(predictions, names), len(names))


def token_ids(rows: TagRows, names: Sequence[str]) -> NDArray[np.int64]:
    """The labels of all rows, one after the other, as positions [n] in `names`; `ValueError` for one it lacks."""
    ids = {name: number for number, name in enumerate(names)}
    try:
        return np.array([ids[tag] for row in rows for tag in row], dtype=np.int64)
    except KeyError as error:
        raise ValueError(f"label {error.args[0]!r} is not among the {len(ids)} `names`") from None


def _left(found: list[Entity], wanted: list[Entity], matches: list[EntityMatch]) -> tuple[list[Entity], list[Entity]]:
    taken, given = {match.prediction for match in matches}, {match.reference for match in matches}
    return [entity for entity in found if entity not in taken], [entity for entity in wanted if entity not in given]


def _shared(a: Entity, b: Entity) -> int:
    return max(0, min(a.end, b.end) - max(a.start, b.start))
