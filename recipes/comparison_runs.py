"""The runs of a comparison as processes: so many at a time, each in its folder, stopped together."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tithe.evaluation import read_results
from tithe.trainers.checkpoints import remove_checkpoint
from tithe.trainers.ledger import LEDGER_NAME


COMMAND = (sys.executable, "-m", "tithe.recipes.data_selection")
POLL_SECONDS = 0.25
GRACE_SECONDS = 30.0  # between asking a run to end and killing it
LOG_NAME = "run.log"
LOG_LINES = 5
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
# What a launcher tells its processes of each other. A run that inherits it waits for the others for ever.
_LAUNCHER = re.compile(
    r"(LOCAL_|NODE_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)$|ROLE_NAME$|MASTER_(ADDR|PORT)$|TORCHELASTIC_|FSDP_|"
    r"ACCELERATE_(USE_(DEEPSPEED|FSDP|MEGATRON_LM)$|DEEPSPEED_|CPU_AFFINITY$)|(OMPI|MV2)_COMM_WORLD_|PMI_"
)
# What only serves to go on or to use the model, and is most of what a run weighs.
_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "tokenizer*", "vocab.*", "merges.txt", "*.model")
_MODEL_FOLDERS = ("checkpoint-*", "initial_model")


@dataclass
class Run:
    """One cell of the comparison, and how far it has come.

    Attributes:
        strategy, budget, seed: which; the budget is None for `all`.
        folder: its `output_dir`.
        flags: of `data_selection`, all of them.
        state: waiting, running, done or failed.
        seconds: how long its process took, or has taken yet; None where it was complete before.
        reason: why it failed: the last lines of its log.
    """

    strategy: str
    budget: float | None
    seed: int
    folder: Path
    flags: list[str]
    state: str = WAITING
    seconds: float | None = None
    reason: str = ""
    results: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def find_results(self) -> bool:
        """Whether the run is complete; its results are then read."""
        complete = (self.folder / "results.json").is_file()
        if complete:
            self.results, self.state = read_results(self.folder / "results.json"), DONE
        return complete


def leave_launcher(environment: dict[str, str] | os._Environ[str]) -> None:
    """Forget that a launcher started this process as one of several."""
    for name in [name for name in environment if _LAUNCHER.match(name)]:
        del environment[name]


def slim(folder: Path) -> None:
    """Delete the weights, the tokenizer and the checkpoints of a complete run: its results and its ledger stay."""
    for pattern in _MODEL_FOLDERS:
        for path in folder.glob(pattern):
            remove_checkpoint(path)
    for pattern in _MODEL_FILES:
        for path in folder.glob(pattern):
            if path.name != LEDGER_NAME:
                path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Hold `folder` for this process and the runs that inherit the descriptor it yields.

    Raises:
        ValueError: another comparison holds it, or a run that outlived one that was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # has no such locks
        yield None
        return
    import fcntl

    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another comparison runs in {folder}, or a run of one that was killed is about to end there: wait "
                "for it, or end it"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a lost terminal end the block by `SystemExit`, so that it can end its runs."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as SIGHUP is under nohup
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class RunPool:
    """Runs the waiting ones of `runs`, in their order, `processes` at a time.

    Args:
        on_change: called with a run when it starts and when it ends, and with None at every poll.
        extra_flags: for every run, and written nowhere.
        keep_models: leave the weights and checkpoints of a complete run where they are.
        devices: names of the GPUs to share out, one for each process; empty leaves them as they are.
        lock: descriptor that the processes inherit.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        processes: int,
        on_change: Callable[[Run | None], None],
        *,
        extra_flags: Sequence[str] = (),
        keep_models: bool = False,
        devices: Sequence[str] = (),
        lock: int | None = None,
    ) -> None:
        self.waiting = [run for run in runs if run.state == WAITING]
        self.processes, self.on_change, self.keep_models = processes, on_change, keep_models
        self.extra_flags, self.devices, self.lock = list(extra_flags), devices, lock
        self.running: dict[int, tuple[Run, subprocess.Popen, float]] = {}  # by slot

    def run(self) -> None:
        """Return when all have ended; where this is interrupted, end them first: they go on at the next start."""
        try:
            while self.waiting or self.running:
                for slot in range(self.processes):
                    if self.waiting and slot not in self.running:
                        self._start(slot, self.waiting.pop(0))
                time.sleep(POLL_SECONDS)
                for slot in list(self.running):
                    self._poll(slot)
                self.on_change(None)
        finally:
            self._stop()

    def _start(self, slot: int, run: Run) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        command = [*COMMAND, *run.flags, *self.extra_flags]
        with open(run.folder / LOG_NAME, "ab") as log:
            process = self._spawn(slot, command, log)
        run.state = RUNNING
        self.running[slot] = run, process, time.monotonic()
        self.on_change(run)

    def _spawn(self, slot: int, command: list[str], log: BinaryIO) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=run_environment(self.processes, self.devices[slot % len(self.devices)] if self.devices else None),
            pass_fds=() if self.lock is None else (self.lock,),
            start_new_session=True,  # Ctrl-C reaches the comparison alone, which then ends its runs
        )

    def _poll(self, slot: int) -> None:
        run, process, start = self.running[slot]
        run.seconds = time.monotonic() - start
        code = process.poll()
        if code is None:
            return
        del self.running[slot]
        if code == 0 and run.find_results():
            if not self.keep_models:
                slim(run.folder)
        else:
            run.state, run.reason = FAILED, _reason(run.folder / LOG_NAME, code)
        self.on_change(run)

    def _stop(self) -> None:
        for _, process, _ in self.running.values():
            _signal_group(process, signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS
        try:
            for _, process, _ in self.running.values():
                process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for run, process, _ in self.running.values():
                _signal_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))
                process.wait()
                run.state = WAITING
            self.running.clear()


def run_environment(processes: int, device: str | None = None) -> dict[str, str]:
    """The environment of a run that shares the machine with `processes` - 1 others, and has the GPU `device`."""
    environment = dict(os.environ)
    leave_launcher(environment)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    environment.setdefault("TOKENIZERS_PARALLELISM", "false" if processes > 1 else "true")
    environment["PYTHONUNBUFFERED"] = "1"  # what a killed run said last is in its log
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return environment


def visible_devices() -> list[str]:
    """The GPUs to share out among runs, where there are several: a Trainer that sees them all would take them all."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    if count < 2:
        return []
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]


def _signal_group(process: subprocess.Popen, number: int) -> None:
    """Signal a process and those it started, such as the workers of a data loader."""
    if process.poll() is not None:
        return
    if os.name == "nt":
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)


def _reason(log: Path, code: int) -> str:
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ended = f"ended by signal {-code}" if code < 0 else f"exit status {code}"
    return "\n".join([f"{ended}; the last lines of {log}:", *(f"  {line[:300]}" for line in lines[-LOG_LINES:])])
