"""Labels that are put away: no row, table or map-style data set gives them until they are known."""

import numpy as np
import pytest
from datasets import Dataset as Table
from torch.utils.data import Dataset

from tithe.trainers.hidden_labels import LabelledRows, hide_labels, label_column


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


ROWS = [{"input_ids": [n], "label": n % 3} for n in range(6)]


@pytest.mark.parametrize("make", [Rows, Table.from_list])
def test_hides_them_and_gives_what_is_known(make):
    pool, labels = hide_labels(make(ROWS))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(pool) == 6 and all("label" not in pool[n] for n in range(6))
    known = np.full(6, -100)
    rows = LabelledRows(pool, known, "label")
    assert rows[4] == {"input_ids": [4], "label": -100}
    known[4] = 1
    assert rows[4] == {"input_ids": [4], "label": 1}


@pytest.mark.parametrize("make", [Rows, Table.from_list])
def test_a_pool_without_labels_stays_as_it_is(make):
    pool = make([{"input_ids": [n]} for n in range(3)])
    assert hide_labels(pool) == (pool, None) and label_column(pool) is None


@pytest.mark.parametrize("labels", [[[0, 1], [1, 1]], [0.5, 1.5]])
def test_labels_that_are_no_class_are_refused(labels):
    with pytest.raises(ValueError, match="one class index per row; column `labels`"):
        hide_labels(Table.from_dict({"input_ids": [[1], [2]], "labels": labels}))
