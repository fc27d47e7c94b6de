"""`results.json`, the machine-readable record of a run, and the environment it ran in."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import PathLike, to_plain, write_atomic


VERSIONED = ("tithe", "torch", "transformers", "accelerate", "datasets", "peft", "scikit-learn", "numpy")
GIT_TIMEOUT = 5.0  # seconds


def write_results(path: PathLike, results: Mapping[str, Any]) -> Path:
    """Write the results as JSON, in one step, keys in the order given and values as in `to_plain`. Returns `path`.

    NaN and the infinities, which JSON has no words for, become null. Raises `TypeError` on a value JSON cannot hold;
    an older file then stays as it is.
    """
    text = json.dumps(to_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, text + "\n")


def read_results(path: PathLike) -> dict[str, Any]:
    """The results that `write_results` wrote to `path`; what was NaN is None."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def environment() -> dict[str, Any]:
    """What a result depends on besides its arguments. Never fails: what cannot be found out is None.

    Keys: `versions` (of python and the libraries, None where not installed), `platform`, `device` (name of the GPU or
    the processor), `devices` (GPUs this process sees), `processes` (of the distributed run), `cpu_count` (processors
    this process may use), `git` (commit of the working directory's checkout, with "-dirty" if tracked files differ).
    """
    device, devices = _device()
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONED},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "devices": devices,
        "processes": _processes(),
        "cpu_count": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "git": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> tuple[str | None, int]:
    """Name of the device that computes, and the number of GPUs."""
    try:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(), torch.cuda.device_count()
        if torch.backends.mps.is_available():
            return "Apple GPU (mps)", 1
    except (ImportError, OSError, RuntimeError):
        pass
    return _processor(), 0


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.processor() or platform.machine() or None


def _processes() -> int:
    """Number of processes of the distributed run: as torch knows it once started, else as the launcher said."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() else 1


def _git_commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
