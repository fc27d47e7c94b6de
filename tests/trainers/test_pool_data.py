"""What identifies a pool."""

import pytest
from datasets import Dataset

from tithe.trainers.pool_data import PoolData


def fingerprint(**columns):
    return PoolData(Dataset.from_dict(columns), "text", "length").fingerprint()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([[[1], [2, 3]]], [[[1, 2], [3]]]),  # the choices of a question, of several lengths
        ([["ab", "c"]], [["a", "bc"]]),
        ([["w", "x"]], [["w", "x"], ["w", "x"]]),
        ([[1, 2]], [[2, 1]]),
    ],
)
def test_other_rows_are_another_pool(one, other):
    assert fingerprint(input_ids=one) == fingerprint(input_ids=one)
    assert fingerprint(input_ids=one) != fingerprint(input_ids=other)
