"""The memory of a run over time: what it held when, beside the exact peaks of its phases."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .drawing import BLUE, GREY, INK, ORANGE, drawing, ensure_png, legend_below
from .files import PathLike
from .memory import PeakMemory, cuda_bytes, resident_bytes


_MOST_SAMPLES = 2000
_ROOM = 0.03  # of the axis that a name takes


class MemoryTimeline:
    """Samples the memory of this process, from a thread, until it is stopped.

    After 2,000 samples every other one is dropped and the interval doubled, so that a run of any length is drawn by
    as many. Short peaks fall between samples: for those see `PeakMemory`.

    Args:
        memory: its open phase is noted beside each sample.
        interval: seconds between samples.

    >>> timeline = MemoryTimeline(PeakMemory(), interval=0.01)
    >>> timeline.stop()[0].keys() >= {"seconds", "resident_bytes", "cuda_bytes", "phase"}
    True
    """

    def __init__(self, memory: PeakMemory, interval: float = 0.5) -> None:
        self._memory, self._interval, self._started = memory, interval, time.perf_counter()
        self._samples: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[dict[str, Any]]:
        """End the sampling. Returns the samples: `seconds` since the start, sizes in bytes, and the open `phase`."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._sample()
        return list(self._samples)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()
            if len(self._samples) > _MOST_SAMPLES:
                del self._samples[1::2]
                self._interval *= 2

    def _sample(self) -> None:
        seconds = round(time.perf_counter() - self._started, 3)
        sizes = {"resident_bytes": resident_bytes(), "cuda_bytes": cuda_bytes()}
        self._samples.append({"seconds": seconds, **sizes, "phase": self._memory.current})


def memory_over_time(path: PathLike, samples: Sequence[Mapping[str, Any]]) -> Path:
    """Draw the samples of a `MemoryTimeline`, and where its phases began, as a PNG. Returns `path`.

    Raises:
        ValueError: there are no samples, or `path` is no PNG.
    """
    path = ensure_png(path)
    if not samples:
        raise ValueError("there are no samples to draw")
    times = [sample["seconds"] for sample in samples]
    with drawing(path, width=7.5, height=3.8) as figure:
        axes = figure.subplots()
        resident = [sample["resident_bytes"] / 2**30 for sample in samples]
        axes.plot(times, resident, color=BLUE, label="resident, CPU")
        if any(sample["cuda_bytes"] is not None for sample in samples):
            cuda = [(sample["cuda_bytes"] or 0) / 2**30 for sample in samples]
            axes.plot(times, cuda, color=ORANGE, label="allocated, GPU")
            legend_below(figure)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel("memory, GiB")
        room, last = _ROOM * max(times), -math.inf
        for start, name in _starts(samples):
            axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
            if start - last >= room:  # names that would lie over each other are left out
                axes.text(start, 0.02, name, rotation=90, fontsize=8, color=INK, transform=axes.get_xaxis_transform())
                last = start
    return path


def _starts(samples: Sequence[Mapping[str, Any]]) -> list[tuple[float, str]]:
    """When each phase was first seen after another one."""
    found, last = [], None
    for sample in samples:
        if sample["phase"] is not None and sample["phase"] != last:
            found.append((sample["seconds"], sample["phase"]))
        last = sample["phase"]
    return found
