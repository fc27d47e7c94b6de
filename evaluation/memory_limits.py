"""How much memory this process may still take, and who says so."""

import contextlib
import ctypes
import ctypes.util
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .memory import resident_bytes, status_bytes


_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryLeft:
    """How many `bytes` a process may take beside what it holds, and the `source` of that limit.

    `of_addresses`: the limit is of address space, which a process mostly keeps when it frees memory, and not of
    resident memory.
    """

    bytes: int
    source: str
    of_addresses: bool = False


def memory_left(limit: int | None = None) -> MemoryLeft:
    """The least that any limit leaves this process: of the kernel, its control groups, the shell, or the caller.

    Looks at the free memory of the machine, at `memory.max` of the process's control groups and of those above them
    (version 2, or 1), at `ulimit -v` and `ulimit -d`, and at `limit`. Page cache that a group can give up counts as
    free. Without any of these (not Linux), it is the machine's free memory.

    Args:
        limit: bytes that the process may hold in all.

    >>> memory_left(limit=resident_bytes()).bytes < 2**20
    True
    """
    found = [_machine(), *_resource_limits(), *_control_groups()]
    if limit is not None:
        found.append(MemoryLeft(limit - resident_bytes(), "the limit given"))
    least = min(found, key=lambda left: left.bytes)
    return replace(least, bytes=max(least.bytes, 0))


def address_bytes() -> tuple[int, int]:
    """The address space of this process, now and at most since it began; the same where the system does not tell."""
    import psutil

    now = psutil.Process().memory_info().vms
    return now, max(status_bytes("VmPeak") or now, now)


def give_back_memory() -> None:
    """Free what nobody refers to, and return freed memory to the system and to the GPU, as far as they let us."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without `malloc_trim`
            ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _machine() -> MemoryLeft:
    import psutil

    return MemoryLeft(psutil.virtual_memory().available, "the machine's free memory")


def _resource_limits() -> Iterator[MemoryLeft]:
    if sys.platform == "win32":
        return
    import resource

    import psutil

    used = psutil.Process().memory_info()
    for number, name, size in (
        (resource.RLIMIT_AS, "ulimit -v", used.vms),
        (resource.RLIMIT_DATA, "ulimit -d", getattr(used, "data", used.vms)),
    ):
        soft, _ = resource.getrlimit(number)
        if soft != resource.RLIM_INFINITY:
            yield MemoryLeft(soft - size, f"`{name}`", of_addresses=True)


def _control_groups(root: Path = _CGROUPS, listed: Path = Path("/proc/self/cgroup")) -> Iterator[MemoryLeft]:
    """What each control group that holds this process leaves it. Paths are those of the group's namespace."""
    with contextlib.suppress(OSError):
        for line in listed.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                yield from _up(root, group, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _up(root / "memory", group, *names)


def _up(root: Path, group: str, limit: str, used: str, reclaimable: str) -> Iterator[MemoryLeft]:
    place = root / group.strip("/")
    for folder in (place, *place.parents):
        if (most := _number(folder / limit)) is not None:
            free = most - (_number(folder / used) or 0) + _statistic(folder / "memory.stat", reclaimable)
            yield MemoryLeft(free, f"`{limit}` of the control group {'/' + str(folder.relative_to(root)).strip('.')}")
        if folder == root:
            return


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file, or it says `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
