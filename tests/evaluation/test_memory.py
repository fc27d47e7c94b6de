import json
import mmap
import sys
from types import SimpleNamespace

import pytest

from tithe.evaluation import PeakMemory, memory


MIB = 2**20
needs_counter = pytest.mark.skipif(not memory._reset_peak(), reason="this kernel does not let VmHWM be set back")


def allocate(mebibytes):
    """Touch every page, so that the memory is resident, and give it back to the system on return.

    Straight from the system: `malloc` would hand out what earlier tests freed, and nothing would grow.
    """
    with mmap.mmap(-1, mebibytes * MIB) as pages:
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1


def growth(record):
    return (record["peak_bytes"] - record["start_bytes"]) / MIB


@needs_counter
def test_peak_of_memory_that_is_freed_again():
    peak = PeakMemory()
    with peak.phase("training"):
        allocate(200)
    record = peak.to_dict()["training"]
    assert growth(record) == pytest.approx(200, rel=0.1)
    assert record["method"] == "VmHWM" and record["count"] == 1 and record["seconds"] > 0


@needs_counter
def test_earlier_peaks_do_not_leak_into_a_phase():
    allocate(200)
    peak = PeakMemory()
    with peak.phase("small"):
        allocate(20)
    assert growth(peak.to_dict()["small"]) < 60


@needs_counter
@pytest.mark.parametrize("owner", ["same", "other"])
def test_inner_phase_does_not_wipe_out_the_outer_peak(owner):
    outer = PeakMemory()
    inner = outer if owner == "same" else PeakMemory()
    with outer.phase("outer"):
        allocate(160)
        with inner.phase("inner"):
            allocate(40)
    assert growth(outer.to_dict()["outer"]) == pytest.approx(160, rel=0.1)
    assert growth(inner.to_dict()["inner"]) == pytest.approx(40, abs=20)


@needs_counter
def test_inner_peak_belongs_to_the_outer_phase_too():
    peak = PeakMemory()
    with peak.phase("outer"):
        with peak.phase("inner"):
            allocate(160)
        with peak.phase("second"):
            allocate(10)
    phases = peak.to_dict()
    assert growth(phases["outer"]) == pytest.approx(160, rel=0.1)
    assert growth(phases["second"]) < 60


@needs_counter
def test_repeated_phase_keeps_the_highest_peak_and_adds_up_time():
    peak = PeakMemory()
    for size in (20, 160, 40):
        with peak.phase("round"):
            allocate(size)
    record = peak.to_dict()["round"]
    assert growth(record) == pytest.approx(160, rel=0.1)
    assert record["count"] == 3


def test_phase_left_by_an_exception_is_recorded_and_closed():
    peak = PeakMemory()
    with pytest.raises(KeyError), peak.phase("broken"):
        raise KeyError
    assert peak.to_dict()["broken"]["count"] == 1
    assert memory._open == []


def test_without_the_counter_the_lifetime_peak_is_given_and_named(monkeypatch):
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    peak = PeakMemory()
    with peak.phase("a"):
        pass
    record = peak.to_dict()["a"]
    assert record["method"] == "ru_maxrss"
    assert record["peak_bytes"] >= record["start_bytes"] > 0


def test_gpu_peak_is_the_largest_of_the_devices_and_survives_an_inner_reset(monkeypatch):
    peaks = {0: 0, 1: 0}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        max_memory_allocated=peaks.__getitem__,
        reset_peak_memory_stats=lambda device: peaks.update({device: 0}),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    peak = PeakMemory()
    with peak.phase("outer"):
        peaks[1] = 700
        with peak.phase("inner"):
            peaks[0] = 300
    phases = peak.to_dict()
    assert phases["outer"]["cuda_peak_bytes"] == 700 and phases["inner"]["cuda_peak_bytes"] == 300


def test_written_file_holds_the_phases(tmp_path):
    peak = PeakMemory()
    with peak.phase("load"):
        pass
    assert json.loads(peak.write(tmp_path / "memory_usage.json").read_text()) == peak.to_dict()
