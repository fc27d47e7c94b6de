"""Labelling at the terminal: keys, going back, stopping, and what the file holds after every answer."""

import io
import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from tithe.recipes.label import label
from tithe.trainers import FileOracle, LabelsWanted, Query


@pytest.fixture(params=[".jsonl", ".csv"])
def queries(request, tmp_path):
    return put(tmp_path, request.param, ["cat", "dog", "bird"])


def put(folder, ending, names):
    opinions = np.full((1, 4, len(names)), 1 / len(names), dtype=np.float32)
    opinions[0, 0, 1] = 0.9
    shown = [{"text": f"[bold]text {n}"} for n in range(4)]
    query = Query(0, np.array([5, 3, 8, 1]), names, shown, opinions, [1.0])
    oracle = FileOracle(folder, ending=ending)
    with pytest.raises(LabelsWanted):
        oracle.label(query)
    return oracle, query


def run(oracle, typed, **options):
    text, typed = io.StringIO(), iter(typed)
    left = label(oracle.path(0), lambda: next(typed, ""), Console(file=text, width=100), **options)
    return left, text.getvalue()


def test_takes_a_key_for_each_label(queries):
    oracle, query = queries
    left, text = run(oracle, "213?")
    assert left == 0 and "all 4 rows have a label" in text
    assert {r: a.label for r, a in oracle.label(query).items()} == {5: 1, 3: 0, 8: 2, 1: None}
    assert "[bold]text 0" in text and "dog 90%" in text


def test_saves_after_every_answer(queries):
    oracle, query = queries
    left, _ = run(oracle, "2q")
    assert left == 3
    with pytest.raises(LabelsWanted, match="3 of 4 labels still wanted"):
        oracle.label(query)
    left, text = run(oracle, "111")  # goes on where it was left
    assert left == 0 and "text 0" not in text


def test_goes_back(queries):
    oracle, query = queries
    run(oracle, "12<3112")
    assert [oracle.label(query)[row].label for row in (5, 3, 8, 1)] == [0, 2, 0, 0]


def test_a_key_of_no_label_is_asked_again(queries):
    left, text = run(queries[0], "9z1q")
    assert left == 3 and text.count("there is no such label") == 2


def test_more_labels_than_keys_are_typed(tmp_path):
    names = [f"label {n:02d}" for n in range(40)]
    oracle, query = put(tmp_path, ".jsonl", names)
    left, text = run(oracle, "label 3\nlabel 07\nlabel 12\nlabel 3x\x7f9\n?\n")
    assert left == 0 and "begin so" in text
    assert [oracle.label(query)[row].label for row in (5, 3, 8, 1)] == [7, 12, 39, None]


def test_what_is_no_query_file_is_refused(tmp_path):
    (tmp_path / "query-000.jsonl").write_text("")
    for path in (tmp_path / "nothing.jsonl", tmp_path, tmp_path / "query-000.jsonl"):
        with pytest.raises(ValueError, match="no query file|no labels.json"):
            label(path, lambda: "", Console(file=io.StringIO()))


def test_at_a_real_terminal(tmp_path):
    """Keys act without Enter, and the terminal is left as it was."""
    oracle, query = put(tmp_path, ".jsonl", ["cat", "dog", "bird"])
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tithe.recipes.cli", "label", str(oracle.path(0))]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.STDOUT)
    os.close(slave)
    seen = b""
    for key in b"1231":
        seen += until(master, b"q stop): ")
        os.write(master, bytes([key]))
    until(master, b"start the run again")
    assert process.wait(60) == 0
    assert [oracle.label(query)[row].label for row in (5, 3, 8, 1)] == [0, 1, 2, 0]
    assert b"text 0" in seen and json.loads((tmp_path / "labels.json").read_text()) == ["cat", "dog", "bird"]


def until(descriptor, wanted):
    found = b""
    while wanted not in found.replace(b"\r\n", b""):
        found += os.read(descriptor, 1024)
    return found
