"""Logs of answers: what was cut off does not count, and what is appended begins a line of its own."""

import json

import pytest

from tithe.models.answer_log import SharedLog, answer_keys, append_log, mend_log, read_log, shard_path, shard_paths


def entry(key, answer="x"):
    return {"key": key, "answer": answer}


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    assert read_log(path, "answer") == {}
    append_log(path, [entry("a", "ein Wörtchen"), entry("b")])
    with open(path, "ab") as file:
        file.write('{"key": "c", "answer": "ü'.encode()[:-1])
    assert read_log(path, "answer") == {"a": entry("a", "ein Wörtchen"), "b": entry("b")}
    mend_log(path)
    append_log(path, [entry("c")])
    assert list(read_log(path, "answer")) == ["a", "b", "c"] and len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("line", ["no json", "[1]", "7", '{"key": "a"}', '{"answer": "a"}'])
def test_other_lines_are_refused(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(entry("a")) + "\n" + line + "\n")
    with pytest.raises(ValueError, match="line 2 is no answer: .*; move the file away"):
        read_log(path, "answer")


def test_keys_tell_settings_texts_and_equals_apart():
    first = answer_keys(["a", "b", "a"], {"n": 1}, [0, 0, 1])
    assert len(set(first)) == 3
    assert answer_keys(["a", "a"], {"n": 1}, [0, 0]) == [first[0]] * 2
    assert not set(first) & set(answer_keys(["a", "b", "a"], {"n": 2}, [0, 0, 1]))


def test_shards_lie_beside_the_file(tmp_path):
    path = tmp_path / "log[1].jsonl"
    assert shard_path(path, 0) == path
    files = [shard_path(path, 1), shard_path(path, 12)]
    for file in (*files, path, tmp_path / "log[1].shard.jsonl", tmp_path / "log1.shard1.jsonl"):
        file.touch()
    assert shard_paths(path) == files and shard_paths(tmp_path / "none" / "log.jsonl") == []


def test_what_shards_have_is_moved_once(tmp_path):
    path = tmp_path / "log.jsonl"
    append_log(path, [entry("a")])
    append_log(shard_path(path, 1), [entry("a"), entry("b")])
    append_log(shard_path(path, 3), [entry("other")])
    log = SharedLog(path, ["a", "b", "c"])
    assert set(log.done) == {"a", "b"}
    log.append([entry("c")])
    log.finish()
    assert set(log.done) == {"a", "b", "c"} and shard_paths(path) == []
    assert sorted(json.loads(line)["key"] for line in path.read_text().splitlines()) == ["a", "b", "c", "other"]


def test_without_a_file(tmp_path):
    log = SharedLog(None, ["a"])
    log.append([entry("a")])
    log.finish()
    assert log.done == {"a": entry("a")}
