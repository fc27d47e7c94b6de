"""Memory over time: what is held is seen, with the phase that holds it, in a bounded number of samples."""

import time

import pytest

from tithe.evaluation import MemoryTimeline, PeakMemory, memory_over_time
from tithe.evaluation import memory_timeline as module


def test_sees_what_a_phase_holds():
    memory = PeakMemory()
    timeline = MemoryTimeline(memory, interval=0.01)
    with memory.phase("outer"):
        with memory.phase("inner"):
            block = bytearray(64 * 2**20)
            time.sleep(0.15)
        time.sleep(0.1)
    del block
    samples = timeline.stop()
    inner = [sample["resident_bytes"] for sample in samples if sample["phase"] == "inner"]
    assert max(inner) - samples[0]["resident_bytes"] > 50 * 2**20
    assert [sample["phase"] for sample in samples][0] is None and samples[-1]["phase"] is None
    assert {sample["phase"] for sample in samples} == {None, "outer", "inner"}
    times = [sample["seconds"] for sample in samples]
    assert times == sorted(times) and timeline.stop() == samples, "stopped once, it adds nothing"


def test_samples_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MOST_SAMPLES", 10)
    timeline = MemoryTimeline(PeakMemory(), interval=0.001)
    time.sleep(0.3)
    samples = timeline.stop()
    assert 3 < len(samples) <= 12
    assert samples[-1]["seconds"] >= 0.3, "the whole time is covered"


def test_is_drawn(tmp_path):
    samples = [
        {"seconds": n / 2, "resident_bytes": 2**30 + n, "cuda_bytes": None, "phase": "load" if n < 3 else "answer"}
        for n in range(6)
    ]
    cpu = memory_over_time(tmp_path / "a.png", samples).read_bytes()
    gpu = memory_over_time(tmp_path / "b.png", [sample | {"cuda_bytes": 2**29} for sample in samples]).read_bytes()
    assert cpu != gpu
    with pytest.raises(ValueError, match="no samples"):
        memory_over_time(tmp_path / "c.png", [])
