"""A cached signal is what an uninterrupted run computes, or it is computed again."""

import json
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from tithe.evaluation import files
from tithe.trainers import signal_cache as module
from tithe.trainers.signal_cache import SignalCache, signal_key


class Rows:
    """Values by row, and which rows were asked for; `fail_after` calls it is interrupted."""

    def __init__(self, width=None, fail_after=None):
        self.width, self.fail_after, self.asked = width, fail_after, []

    def __call__(self, rows):
        if len(self.asked) == self.fail_after:
            raise KeyboardInterrupt
        self.asked.append(rows.tolist())
        values = np.sqrt(rows + 0.1)
        return values if self.width is None else values[:, None] * np.arange(1, self.width + 1)


@pytest.mark.parametrize("width", [None, 3])
def test_an_interrupted_run_goes_on_after_its_last_shard(tmp_path, width):
    whole = SignalCache(tmp_path / "whole", 4).fetch("k", 10, Rows(width))
    np.testing.assert_array_equal(whole, Rows(width)(np.arange(10)).astype(np.float32))
    cache = SignalCache(tmp_path / "killed", 4)
    with pytest.raises(KeyboardInterrupt):
        cache.fetch("k", 10, Rows(width, fail_after=2))
    after = Rows(width)
    np.testing.assert_array_equal(cache.fetch("k", 10, after), whole)
    assert after.asked == [[8, 9]]
    again = Rows(width)
    found = cache.fetch("k", 10, again)
    np.testing.assert_array_equal(found, whole)
    assert again.asked == [] and isinstance(found, np.memmap) and found.dtype == np.float32
    assert sorted(f.name for f in (tmp_path / "killed").iterdir()) == ["k.json", "k.npy"]


def fetch_until(folder, move):
    """Fetches, and is gone before the file number `move` is put into its place."""
    moves, real = [], os.replace

    def replace(*paths):
        if len(moves) == move:
            os.kill(os.getpid(), signal.SIGKILL)
        moves.append(real(*paths))

    files.os.replace = replace
    SignalCache(folder, 4).fetch("k", 10, Rows())


@pytest.mark.parametrize("move", range(8))
def test_killed_at_any_moment(tmp_path, move):
    """Three shards and the whole are two files each, an array and its note."""
    process = multiprocessing.get_context("fork").Process(target=fetch_until, args=(tmp_path, move))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    after = Rows()
    got = SignalCache(tmp_path, 4).fetch("k", 10, after)
    np.testing.assert_array_equal(got, np.sqrt(np.arange(10) + 0.1).astype(np.float32))
    assert len(after.asked) == 3 - min(3, move // 2)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[-3] ^= 1
    path.write_bytes(data[:-5] if how == "cut" else b"" if how == "emptied" else bytes(data))
    if how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "cut", "emptied", "gone"])
@pytest.mark.parametrize("file", ["k.npy", "k.json", "k.partial/4.npy", "k.partial/4.json"])
def test_damaged_files_are_computed_again(tmp_path, file, how):
    cache = SignalCache(tmp_path, 4)
    expected = Rows()(np.arange(10)).astype(np.float32)
    try:
        cache.fetch("k", 10, Rows(fail_after=2 if "partial" in file else None))
    except KeyboardInterrupt:
        pass
    damage(tmp_path / file, how)
    after = Rows()
    np.testing.assert_array_equal(cache.fetch("k", 10, after), expected)
    assert after.asked == ([[4, 5, 6, 7], [8, 9]] if "partial" in file else [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])


def test_foreign_files_are_not_taken(tmp_path):
    cache = SignalCache(tmp_path, 4)
    cache.fetch("other", 10, lambda rows: rows * 0)
    for suffix in (".npy", ".json"):
        (tmp_path / f"other{suffix}").rename(tmp_path / f"k{suffix}")
    np.save(tmp_path / "l.npy", np.zeros(10, dtype=np.float32))
    for key in "kl":
        after = Rows()
        np.testing.assert_array_equal(cache.fetch(key, 10, after), np.sqrt(np.arange(10) + 0.1).astype(np.float32))
        assert len(after.asked) == 3
    after = Rows()
    assert cache.fetch("k", 11, after).shape == (11,) and len(after.asked) == 3


def test_shards_of_another_size_are_not_gone_on_from(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        SignalCache(tmp_path, 4).fetch("k", 10, Rows(fail_after=2))
    after = Rows()
    assert SignalCache(tmp_path, 5).fetch("k", 10, after).shape == (10,)
    assert after.asked == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_another_run_may_finish_first(tmp_path):
    def overtaken(rows):
        if rows[0] == 8:
            SignalCache(tmp_path, 4).fetch("k", 10, Rows())
        return Rows()(rows)

    got = SignalCache(tmp_path, 4).fetch("k", 10, overtaken)
    np.testing.assert_array_equal(got, np.sqrt(np.arange(10) + 0.1).astype(np.float32))


def test_no_rows_and_wrong_rows(tmp_path):
    assert SignalCache(tmp_path).fetch("k", 0, lambda rows: np.empty((0, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match="10 rows were to be computed, 3 came back"):
        SignalCache(tmp_path).fetch("l", 10, lambda rows: np.zeros(3))
    with pytest.raises(ValueError, match="`shard_rows` must be 1 or more"):
        SignalCache(tmp_path, 0)


def test_processes_compute_the_same_shards(tmp_path, monkeypatch):
    """Process 1 knows nothing of the folder; what is missing comes from process 0."""
    with pytest.raises(KeyboardInterrupt):
        SignalCache(tmp_path, 4).fetch("k", 10, Rows(fail_after=1))
    told, ready = [], threading.Event()
    shared = {"MainThread": lambda value: (told.append(value), ready.set(), value)[-1]}
    monkeypatch.setattr(
        module,
        "_from_first",
        lambda v: shared.get(threading.current_thread().name, lambda _: ready.wait(9) and told[0])(v),
    )
    other, results = Rows(), []
    cache = SignalCache(tmp_path / "elsewhere", 4)
    thread = threading.Thread(
        target=lambda: results.append(cache.fetch("k", 10, other, process_index=1, num_processes=2))
    )
    thread.start()
    own = Rows()
    got = SignalCache(tmp_path, 4).fetch("k", 10, own, num_processes=2)
    thread.join()
    assert got.shape == (10,) and results == [None] and other.asked == own.asked == [[4, 5, 6, 7], [8, 9]]
    assert not (tmp_path / "elsewhere").exists()


def test_keys_know_their_terms():
    terms = {"model": "m", "texts": "t", "max_length": 8}
    keys = {signal_key("ifd", **terms), signal_key("perplexity", **terms)}
    keys |= {signal_key("ifd", **terms | change) for change in ({"model": "n"}, {"texts": "u"}, {"max_length": None})}
    assert len(keys) == 5
    assert json.dumps(sorted(keys)).isascii()
