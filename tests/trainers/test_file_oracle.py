"""Queries written to files, filled in by hand, and read back: every fault is told with its line."""

import csv
import json

import numpy as np
import pytest

from tithe.trainers import FileOracle, LabelsWanted, Query


NAMES = ["cat", "dog", "bird"]


@pytest.fixture
def query():
    opinions = np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]]], dtype=np.float32)
    shown = [{"text": 'says "miau"'}, {"text": "flies,\nsings"}, {"text": "лает"}]
    return Query(2, np.array([40, 7, 19]), NAMES, shown, opinions, [1.0])


@pytest.fixture(params=[".jsonl", ".csv"])
def oracle(request, tmp_path):
    return FileOracle(tmp_path / "queries", ending=request.param)


def rows_of(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [dict(row) for row in csv.DictReader(file)]


def rewrite(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fill(oracle, query, labels):
    with pytest.raises(LabelsWanted):
        oracle.label(query)
    path = oracle.path(2)
    rows = rows_of(path)
    for row, label in zip(rows, labels, strict=True):
        row["label"] = label
    rewrite(path, rows)
    return path, rows


def test_says_once_what_to_fill_in(oracle, query):
    with pytest.raises(LabelsWanted, match=r"3 labels wanted: fill in `label` in .*query-002") as raised:
        oracle.label(query)
    assert "\n" not in str(raised.value)
    rows = rows_of(oracle.path(2))
    assert [int(row["row"]) for row in rows] == [40, 7, 19]
    assert [row["text"] for row in rows] == ['says "miau"', "flies,\nsings", "лает"]
    told = rows[0]["teachers"]
    assert told == (
        [{"cat": 0.7, "dog": 0.2, "bird": 0.1}] if isinstance(told, list) else "cat 70%, dog 20%, bird 10%"
    )


def test_reads_the_answers_in_any_order(oracle, query):
    path, rows = fill(oracle, query, ["cat", "bird", "?"])
    rewrite(path, rows[::-1])
    answers = oracle.label(query)
    assert {row: answer.label for row, answer in answers.items()} == {40: 0, 7: 2, 19: None}
    assert {answer.by for answer in answers.values()} == {"person"}


def test_never_writes_over_what_was_filled_in(oracle, query):
    path, _ = fill(oracle, query, ["cat", None, None])
    before = path.read_bytes()
    with pytest.raises(LabelsWanted, match="2 of 3 labels still wanted in .*the first for row 7"):
        oracle.label(query)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].update(label="brid"), r"line [234]: there is no label 'brid'; did you mean 'bird'\?"),
        (lambda rows: rows[1].update(label="xyz"), "there is no label 'xyz'; the labels are cat, dog, bird"),
        (lambda rows: rows[2].update(row=8), "row 8 was not asked for"),
        (lambda rows: rows.append(dict(rows[0])), "row 40 is there twice"),
        (
            lambda rows: rows.append({**rows[0], "label": "dog"}),
            r"row 40 is there as 'cat' in line \d, and here as 'dog'",
        ),
    ],
)
def test_tells_each_fault_with_its_line(oracle, query, change, message):
    path, rows = fill(oracle, query, ["cat", "bird", "dog"])
    change(rows)
    rewrite(path, rows)
    with pytest.raises(ValueError, match=message) as raised:
        oracle.label(query)
    assert "line " in str(raised.value)


def test_broken_json_is_told_with_its_line(tmp_path, query):
    oracle = FileOracle(tmp_path)
    with pytest.raises(LabelsWanted):
        oracle.label(query)
    lines = oracle.path(2).read_text().splitlines()
    lines[1] = lines[1].replace("null", "dog")
    oracle.path(2).write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 2: no JSON"):
        oracle.label(query)


def test_a_spreadsheet_may_save_with_semicolons(tmp_path, query):
    oracle = FileOracle(tmp_path, ending=".csv")
    path, rows = fill(oracle, query, ["cat", "bird", "dog"])
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert [answer.label for answer in oracle.label(query).values()] == [0, 2, 1]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`.jsonl` or `.csv`, got '.xlsx'"):
        FileOracle(tmp_path, ending=".xlsx")
