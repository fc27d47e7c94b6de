import pytest

from tithe.trainers.checkpoints import (
    MARKER,
    finished_checkpoints,
    is_finished,
    last_finished_checkpoint,
    mark_finished,
    remove_checkpoint,
    rotate_finished,
)


def make(root, step, finished=True):
    folder = root / f"checkpoint-{step}"
    (folder / "global_step").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 10)
    (folder / "global_step" / "shard").write_bytes(b"y" * 5)
    if finished:
        mark_finished(folder)
    return folder


def test_only_what_is_marked_and_whole_is_finished(tmp_path):
    folder = make(tmp_path, 10, finished=False)
    assert not is_finished(folder)
    mark_finished(folder)
    assert is_finished(folder)
    (folder / "global_step" / "shard").write_bytes(b"y" * 4)
    assert not is_finished(folder)
    (folder / "global_step" / "shard").unlink()
    assert not is_finished(folder)


def test_a_torn_marker_is_none(tmp_path):
    folder = make(tmp_path, 10)
    (folder / MARKER).write_text('{"files": {"mod')
    assert not is_finished(folder)


def test_the_last_finished_one(tmp_path):
    assert last_finished_checkpoint(tmp_path) is None
    first, second = make(tmp_path, 90), make(tmp_path, 100)
    make(tmp_path, 110, finished=False)
    make(tmp_path, 200).rename(tmp_path / "checkpoint-200-backup")
    assert finished_checkpoints(tmp_path) == [first, second]
    assert last_finished_checkpoint(tmp_path) == second


def test_removal_takes_the_marker_first(tmp_path, monkeypatch):
    folder = make(tmp_path, 10)
    monkeypatch.setattr("tithe.trainers.checkpoints.shutil.rmtree", lambda *_, **__: None)  # killed right then
    remove_checkpoint(folder)
    assert (folder / "model.safetensors").exists() and not is_finished(folder)


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(None, None, [1, 2, 3]), (2, None, [2, 3]), (2, 1, [1, 3]), (1, 1, [1, 3]), (1, None, [3]), (5, None, [1, 2, 3])],
)
def test_rotation_counts_finished_ones_and_spares_last_and_best(tmp_path, limit, best, left):
    for step in (1, 2, 3):
        make(tmp_path, step)
    make(tmp_path, 4, finished=False)
    rotate_finished(tmp_path, limit, f"somewhere/checkpoint-{best}" if best else None)
    assert [p.name for p in finished_checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in left]
    assert (tmp_path / "checkpoint-4").exists()
