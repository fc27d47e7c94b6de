import json
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from tithe.evaluation import atomic_path, to_plain, write_atomic, write_json_lines


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_text_and_bytes_and_makes_the_folder(tmp_path):
    path = write_atomic(tmp_path / "a" / "b.txt", "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    assert write_atomic(path, b"\x00\xff").read_bytes() == b"\x00\xff"
    assert names(path.parent) == ["b.txt"]


def test_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    path = write_atomic(tmp_path / "atomic", "")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failure_before_the_move_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "results.json", "old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["results.json"]


def test_failure_in_the_block_keeps_the_old_file(tmp_path):
    path = write_atomic(tmp_path / "figure.png", "old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and names(tmp_path) == ["figure.png"]


def test_process_killed_while_writing_keeps_the_old_file(tmp_path):
    path = write_atomic(tmp_path / "results.json", "old")
    script = (
        "import os, sys; from tithe.evaluation import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    assert path.read_text() == "old"


def test_temporary_path_keeps_the_suffix_and_is_beside_the_target(tmp_path):
    with atomic_path(tmp_path / "table.parquet") as temporary:
        assert temporary.suffix == ".parquet" and temporary.parent == tmp_path and temporary.name != "table.parquet"
        temporary.write_text("x")
    assert names(tmp_path) == ["table.parquet"]


def test_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="table.parquet"), atomic_path(tmp_path / "table.parquet"):
        pass
    assert names(tmp_path) == []


def test_file_system_without_fsync_still_gets_the_file(tmp_path, monkeypatch):
    def unsupported(descriptor):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)
    assert write_atomic(tmp_path / "a", "text").read_text() == "text"


def test_json_lines_are_one_object_a_line(tmp_path):
    rows = [{"round": np.int64(0), "scores": np.array([0.5, np.nan])}, {"text": "a\nb é"}]
    lines = write_json_lines(tmp_path / "rounds.jsonl", rows).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"round": 0, "scores": [0.5, None]}, {"text": "a\nb é"}]
    assert "é" in lines[1]


def test_failing_row_keeps_the_old_lines(tmp_path):
    path = write_json_lines(tmp_path / "rounds.jsonl", [{"round": 0}])
    with pytest.raises(TypeError, match="object"):
        write_json_lines(path, [{"round": 1}, {"round": object()}])
    assert path.read_text() == '{"round": 0}\n' and names(tmp_path) == ["rounds.jsonl"]


def test_plain_values():
    class Mode(str, Enum):
        FAST = "fast"

    values = {
        "z": float("inf"),
        "a": (np.float32(0.5), np.bool_(True), np.arange(2)),
        3: Path("x/y"),
        "mode": Mode.FAST,
        "set": {3, 1},
        None: None,
    }
    plain = to_plain(values)
    assert plain == {"z": None, "a": [0.5, True, [0, 1]], "3": "x/y", "mode": "fast", "set": [1, 3], "None": None}
    assert list(plain)[:2] == ["z", "a"]
    assert type(plain["mode"]) is str and type(plain["a"][1]) is bool
