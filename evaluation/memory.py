"""Peak memory of the phases of a run, exact where the kernel allows it.

Sampling misses short peaks. Linux keeps the highest resident size of a process (`VmHWM`) and lets the process set it
back to the present size by writing 5 to `/proc/self/clear_refs`, so the peak of a phase can be read and not guessed.
The counter is one per process: opening a phase inside another would wipe out the outer one's peak, so all open phases
of the process, of every `PeakMemory`, take in the counter before it is set back.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import PathLike, write_atomic


EXACT = "VmHWM"
LIFETIME = "ru_maxrss"

_open: list["_Phase"] = []
_lock = threading.Lock()


@dataclass(eq=False)
class _Phase:
    """An open phase: what it has seen so far."""

    start_bytes: int
    exact: bool
    peak_bytes: int
    cuda_peak_bytes: int | None = None
    started: float = field(default_factory=time.perf_counter)


class PeakMemory:
    """Records the peak memory and the time of named phases of this process; children are not counted.

    `with memory.phase(name):` may be nested, repeated and left by an exception. `to_dict()` has, for each name:

    - `peak_bytes`: highest resident size within the phase; of a repeated name the highest of all;
    - `start_bytes`: resident size when the phase that set the peak began;
    - `seconds`: wall-clock time, summed over repetitions, and their number `count`;
    - `method`: "VmHWM", exact, or "ru_maxrss" where the counter cannot be set back (not Linux, some containers): the
      highest of the whole life of the process, so an upper bound for the phase;
    - `cuda_peak_bytes`: the most that torch had allocated on any one GPU, None without CUDA. `torch` is never
      imported for it. Opening a phase resets torch's own peak statistics.

    >>> memory = PeakMemory()
    >>> with memory.phase("allocate"):
    ...     block = bytearray(50 * 2**20)
    >>> memory.to_dict()["allocate"]["peak_bytes"] > 50 * 2**20
    True
    """

    def __init__(self) -> None:
        self._phases: dict[str, dict[str, Any]] = {}
        self._names: list[str] = []

    @property
    def current(self) -> str | None:
        """The phase that is open, the inner one of several; None between phases."""
        return self._names[-1] if self._names else None

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block as the phase `name`."""
        opened = _begin()
        self._names.append(name)
        try:
            yield
        finally:
            self._names.pop()
            _end(opened)
            self._record(name, opened)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The phases ended so far by name, in the order they first ended; the values are listed at the class."""
        return {name: dict(record) for name, record in self._phases.items()}

    def write(self, path: PathLike) -> Path:
        """Write `to_dict()` as JSON, in one step. Returns `path`."""
        return write_atomic(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def _record(self, name: str, ended: _Phase) -> None:
        seconds = time.perf_counter() - ended.started
        record = {
            "peak_bytes": ended.peak_bytes,
            "start_bytes": ended.start_bytes,
            "seconds": seconds,
            "count": 1,
            "method": EXACT if ended.exact else LIFETIME,
            "cuda_peak_bytes": ended.cuda_peak_bytes,
        }
        known = self._phases.get(name)
        if known is not None:
            if known["peak_bytes"] >= ended.peak_bytes:
                record.update({key: known[key] for key in ("peak_bytes", "start_bytes", "method")})
            cuda = [peak for peak in (known["cuda_peak_bytes"], ended.cuda_peak_bytes) if peak is not None]
            record["cuda_peak_bytes"] = max(cuda, default=None)
            record["seconds"] = known["seconds"] + seconds
            record["count"] = known["count"] + 1
        self._phases[name] = record


def resident_bytes() -> int:
    """What this process holds of the machine's memory now."""
    return status_bytes("VmRSS") or _lifetime_peak()


def cuda_bytes() -> int | None:
    """The most that torch holds on any one GPU now, None without CUDA."""
    cuda = _cuda()
    return None if cuda is None else max(cuda.memory_allocated(device) for device in range(cuda.device_count()))


def _begin() -> _Phase:
    with _lock:
        _take_in()
        exact = _reset_peak()
        _reset_cuda_peak()
        resident = resident_bytes()
        opened = _Phase(start_bytes=resident, exact=exact, peak_bytes=resident)
        _open.append(opened)
        return opened


def _end(opened: _Phase) -> None:
    with _lock:
        _take_in()
        _open.remove(opened)


def _take_in() -> None:
    """Let every open phase see the highest size since the counters were last set back."""
    peak, cuda = status_bytes("VmHWM"), _cuda_peak()
    for phase in _open:
        phase.peak_bytes = max(phase.peak_bytes, peak if phase.exact and peak else _lifetime_peak())
        if cuda is not None:
            phase.cuda_peak_bytes = max(phase.cuda_peak_bytes or 0, cuda)


def _reset_peak() -> bool:
    """Set the counter back to the present resident size; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return status_bytes("VmHWM") is not None


def status_bytes(name: str) -> int | None:
    """A size of this process in bytes from `/proc/self/status`, None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _lifetime_peak() -> int:
    """The highest resident size of the process in bytes, ever."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cuda() -> Any:
    """`torch.cuda` if this process uses a GPU through it, else None; asking must not start CUDA."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _cuda_peak() -> int | None:
    cuda = _cuda()
    return None if cuda is None else max(cuda.max_memory_allocated(device) for device in range(cuda.device_count()))


def _reset_cuda_peak() -> None:
    cuda = _cuda()
    for device in range(cuda.device_count() if cuda else 0):
        cuda.reset_peak_memory_stats(device)
