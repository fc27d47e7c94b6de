import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tithe.evaluation import SplitPredictions, write_predictions


P = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])


def test_columns_of_several_splits(tmp_path):
    splits = [
        SplitPredictions("validation", np.array([4, 9]), ["a", "b"], P, [0, 1]),
        SplitPredictions("test", [7, 8], ["c", "d"], P[::-1], [-1, 0]),
    ]
    table = pq.read_table(write_predictions(tmp_path / "predictions.parquet", splits, names=["x", "y", "z"]))
    assert json.loads(table.schema.metadata[b"labels"]) == ["x", "y", "z"]
    columns = table.to_pydict()
    assert columns.pop("probabilities") == [pytest.approx(row) for row in [*P.tolist(), *P[::-1].tolist()]]
    assert columns.pop("probability") == pytest.approx([0.7, 0.6, 0.6, 0.7])
    assert columns == {
        "split": ["validation", "validation", "test", "test"],
        "id": [4, 9, 7, 8],
        "text": ["a", "b", "c", "d"],
        "label": ["x", "y", None, "x"],
        "prediction": ["x", "z", "z", "x"],
        "correct": [True, False, None, True],
    }


def test_text_ids_no_labels_and_numbered_classes(tmp_path):
    splits = [SplitPredictions("none", [], [], P[:0]), SplitPredictions("pool", ["q-1", "q-2"], ["a", "b"], P)]
    columns = pq.read_table(write_predictions(tmp_path / "p.parquet", splits)).to_pydict()
    assert columns["id"] == ["q-1", "q-2"] and columns["prediction"] == ["0", "2"]
    assert columns["label"] == [None, None] == columns["correct"]


def test_long_and_empty_splits(tmp_path):
    n = 150_000
    p = np.random.default_rng(0).dirichlet(np.ones(2), size=n)
    splits = [
        SplitPredictions("empty", [], [], np.zeros((0, 2)), []),
        SplitPredictions("long", np.arange(n), ["t"] * n, p, np.zeros(n, dtype=int)),
    ]
    table = pq.read_table(write_predictions(tmp_path / "p.parquet", splits))
    assert table["id"].to_pylist() == list(range(n))
    assert np.array(table["correct"].to_pylist()).mean() == np.mean(p[:, 0] >= p[:, 1])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([], "empty"),
        ([SplitPredictions("a", [1], ["t", "u"], P)], "'ids': 1, 'texts': 2"),
        ([SplitPredictions("a", [1, 2], ["t", "u"], P, [0])], "'labels': 1"),
        ([SplitPredictions("a", [1, 2], ["t", "u"], P, [0, 3])], "labels of split 'a' must be from 0 to 2"),
        ([SplitPredictions("a", [], [], P[:0]), SplitPredictions("b", [], [], P[:0, :2])], r"\[2, 3\]"),
    ],
)
def test_errors_leave_no_file(tmp_path, splits, message):
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "p.parquet", splits)
    assert list(tmp_path.iterdir()) == []
