"""Generated texts in JSON Lines files: appended as they come, found again by key, shared by several processes."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object


Entry = dict[str, Any]


def occurrences(texts: Sequence[str]) -> list[int]:
    """How often each text stands before itself in the list.

    >>> occurrences(["a", "b", "a"])
    [0, 0, 1]
    """
    seen: dict[str, int] = {}
    numbers = []
    for text in texts:
        numbers.append(seen.get(text, 0))
        seen[text] = numbers[-1] + 1
    return numbers


def answer_keys(texts: Sequence[str], settings: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
    """A hash of each text, its number among its equals, and all else that the answer depends on."""
    stem = json.dumps({name: str(value) for name, value in settings.items()}, sort_keys=True)
    parts = (f"{stem}\x1f{number}\x1f{text}" for number, text in zip(numbers, texts, strict=True))
    return [hashlib.sha256(part.encode()).hexdigest()[:24] for part in parts]


def read_log(path: Path, field: str) -> dict[str, Entry]:
    """Key → entry of the lines there are; a last one that was cut off does not count.

    Raises:
        ValueError: another line is no JSON object with a `key` and that `field`.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    found: dict[str, Entry] = {}
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            entry = json.loads(line)
            entry[field]
            found[entry["key"]] = entry
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: line {number} is no {field}: {line[:60]!r}; move the file away") from error
    return found


def mend_log(path: Path) -> None:
    """Take off a last line that was cut off, so that what is appended begins a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)


def append_log(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Append the entries and wait until they are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        file.flush()
        os.fsync(file.fileno())


def shard_path(path: Path, process: int) -> Path:
    """The file that a process appends to: the first one to `path`, the others beside it."""
    return path.with_name(f"{path.stem}.shard{process}{path.suffix}") if process else path


def shard_paths(path: Path) -> list[Path]:
    """The shards beside `path` that there are, whatever the number of processes that left them."""
    form = re.compile(re.escape(path.stem) + r"\.shard[1-9]\d*" + re.escape(path.suffix))
    return sorted(file for file in path.parent.glob("*") if form.fullmatch(file.name))


class SharedLog:
    """Answers by key: what the files have, and what processes that work together append, each to a file of its own.

    Every process makes one with the same arguments, appends, and at the end calls `finish`. Killed at any time, no
    entry is lost: what the shards have is read, and moved to `path`, by the next one, of however many processes.

    Args:
        path: the file that all is in at the end; None keeps the answers in memory.
        keys: of the answers that are asked for; others in the files stay there and are not read into `done`.

    Raises:
        ValueError: a file has a line that is no answer.
    """

    def __init__(self, path: Path | None, keys: Sequence[str]) -> None:
        state = PartialState()
        self.path, self.process, self.processes = path, state.process_index, state.num_processes
        wanted, found = set(keys), self._read()
        own = {key: entry for key, entry in found.items() if key in wanted}
        # Also where their disks differ, all know the same answers, and none writes before all have read.
        self.done: dict[str, Entry] = {key: entry for part in gather_object([own]) for key, entry in part.items()}
        self._new: list[Entry] = []
        if path is not None:
            mend_log(shard_path(path, self.process))

    def _read(self) -> dict[str, Entry]:
        files = [] if self.path is None else [*shard_paths(self.path), self.path]
        return {key: entry for file in files for key, entry in read_log(file, "answer").items()}

    def append(self, entries: Iterable[Entry]) -> None:
        """Keep this process's new answers."""
        new = list(entries)
        if self.path is not None:
            append_log(shard_path(self.path, self.process), new)
        self._new += new
        self.done |= {entry["key"]: entry for entry in new}

    def finish(self) -> None:
        """Give each process the answers of all, and move those of the shards to `path`."""
        everyone = gather_object(self._new)
        self.done |= {entry["key"]: entry for entry in everyone}
        if self.path is None or not (self.processes > 1 or shard_paths(self.path)):
            return
        if self.process == 0:
            there = read_log(self.path, "answer")
            merged = self._read() | {entry["key"]: entry for entry in everyone}
            append_log(self.path, [entry for key, entry in merged.items() if key not in there])
        PartialState().wait_for_everyone()
        for file in shard_paths(self.path):
            file.unlink(missing_ok=True)
        PartialState().wait_for_everyone()  # none begins anew while another takes files away
