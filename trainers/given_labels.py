"""Labels that are known before the first query: whose they are, and the iteration that they make."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..selection import Selection
from .choosing import Choice
from .oracles import Answer


GIVEN = "given"


def given_answers(rows: Sequence[int] | NDArray[np.int64], labels: NDArray[np.int64] | None) -> dict[int, Answer]:
    """The labels of `rows`, as answers.

    Args:
        rows: dataset indices.
        labels: one class index per row of the pool, negative where there is none; None for a pool without labels.

    Raises:
        ValueError: `rows` are none, repeat, or lie outside of the pool, or one of them has no label.
    """
    wanted = np.asarray(rows)
    if labels is None:
        raise ValueError("`labelled_rows` are given, and `train_dataset` has no column `label` or `labels`")
    if wanted.ndim != 1 or not len(wanted) or not np.issubdtype(wanted.dtype, np.integer):
        raise ValueError(f"`labelled_rows` must be dataset indices, at least one; got {str(rows)[:60]}")
    if len(np.unique(wanted)) < len(wanted):
        raise ValueError(f"`labelled_rows` must be distinct; {len(wanted) - len(np.unique(wanted))} of them repeat")
    if wanted.min() < 0 or wanted.max() >= len(labels):
        raise ValueError(f"`labelled_rows` must be from 0 to {len(labels) - 1}; got {wanted.min()} to {wanted.max()}")
    without = wanted[labels[wanted] < 0]
    if len(without):
        raise ValueError(f"{len(without)} of `labelled_rows` have no label: the first is row {without[0]}")
    return {int(row): Answer(int(labels[row]), GIVEN) for row in wanted}


def given_choice(answers: Mapping[int, Answer], rows: int) -> Choice:
    """The rows of `answers` as the choice of an iteration, of a pool of `rows`; nothing was scored."""
    return Choice(Selection(np.array(list(answers)), np.full(rows, np.nan)), radius=None, strategy=GIVEN)
