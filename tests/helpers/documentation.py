"""The blocks of the documentation, and the processes that run them as they are written.

Blocks of one page run in order: Python in one namespace, Bash in one folder, where the checkout's folders lie and the
files of `documentation_files`. What a page names on the hub is a tiny model of `documentation_hub`. A block that can't
run says why in the line before it, `<!-- not run: REASON -->`; one that takes long, `<!-- slow: REASON -->`.
"""

import array
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from documentation_files import write_corpus, write_files
from documentation_hub import write_hub


ROOT = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
LANGUAGES = ("python", "bash")
# What a command of the documentation finds in its folder: the checkout, but for what nobody runs from there.
LINKED = ("recipes", "accelerate_configs", "benchmarks", "selection", "models", "trainers", "evaluation", "examples")
COMMANDS = ("accelerate", "tithe", "python")
START_SECONDS, PAGE_SECONDS = 180, 1200

_FENCE = re.compile(r"^(?P<indent>\s*)(?P<ticks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")
_COMMENT = re.compile(r"^<!-- (?P<kind>not run|slow): (?P<reason>.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `line` is that of its first line; `kind` is `not run` or `slow`, else None."""

    page: str
    line: int
    language: str
    text: str
    kind: str | None = None
    reason: str | None = None


def blocks_of(path: Path, name: str) -> list[Block]:
    """All blocks of the page at `path` that are Python or Bash, in order; indented ones, as in lists, too.

    Raises:
        ValueError: a block does not end, or a comment on one stands before something else.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        comment = _COMMENT.match(lines[number].strip())
        if comment and not (number + 1 < len(lines) and _FENCE.match(lines[number + 1])):
            raise ValueError(f"{name}:{number + 1}: the comment must stand in the line before its block")
        if opening is None:
            number += 1
            continue
        mark = _COMMENT.match(lines[number - 1].strip()) if number else None
        start, indent, ticks = number + 1, opening["indent"], opening["ticks"]
        while (number := number + 1) < len(lines) and lines[number].strip() != ticks:
            pass
        if number == len(lines):
            raise ValueError(f"{name}:{start}: the block does not end")
        text = "\n".join(line.removeprefix(indent) for line in lines[start:number])
        if opening["language"] in LANGUAGES:
            kind, reason = (mark["kind"], mark["reason"]) if mark else (None, None)
            found.append(Block(name, start + 1, opening["language"], text, kind, reason))
        number += 1
    return found


class Runner:
    """Runs pages, each in a process and a folder of its own.

    One process imports everything once; pages, and the commands of their Bash blocks, are forks of it: that saves each
    of them the ten seconds that the imports take. With `fork` False commands are started as anybody would.
    """

    def __init__(self, home: Path, fork: bool = True) -> None:
        self.home = home
        write_hub(home / "hub")
        write_corpus(home / "cache")
        self._run_dir = Path(tempfile.mkdtemp(prefix="tithe-"))  # short: names of sockets have 108 bytes at most
        self._socket = self._run_dir / "starter"
        commands = self._run_dir / "bin"
        commands.mkdir()
        for name in COMMANDS if fork else ():
            shim = commands / name
            shim.write_text(f'#!/bin/sh\nexec {sys.executable} -S {HELPERS / "documentation_shim.py"} {name} "$@"\n')
            shim.chmod(0o755)
        self.environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "TITHE_CACHE": str(home / "cache"),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "TITHE_STARTER": str(self._socket),
            "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._server = subprocess.Popen(
            [sys.executable, str(HELPERS / "documentation_starter.py"), str(self._socket)],
            env=self.environment,
            start_new_session=True,  # a group of its own, so that it can be ended with all forks
        )

    def close(self) -> None:
        """End the process that the others are forks of, and what is left of these."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        shutil.rmtree(self._run_dir)

    def run(self, blocks: list[Block], name: str) -> tuple[int, str]:
        """Run the blocks of one page; the exit status, and all that they printed.

        Raises:
            TimeoutError: they took longer than `PAGE_SECONDS`.
        """
        folder = self.home / name
        folder.mkdir()
        for linked in LINKED:
            if (ROOT / linked).exists():
                (folder / linked).symlink_to(ROOT / linked)
        write_files(folder)
        page = [{"page": b.page, "line": b.line, "language": b.language, "text": b.text} for b in blocks]
        with open(self.home / f"{name}.log", "w+") as log, open(os.devnull) as nothing:
            request = {"argv": ["page", json.dumps(page)], "cwd": str(folder), "env": self.environment}
            status = ask(self._connected(), request, [nothing.fileno(), log.fileno(), log.fileno()])
            log.seek(0)
            return status, log.read()

    def _connected(self) -> socket.socket:
        begun = time.monotonic()
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._socket))
                return connection
            except OSError:
                connection.close()
                if self._server.poll() is not None or time.monotonic() - begun > START_SECONDS:
                    raise
                time.sleep(0.1)


def ask(connection: socket.socket, request: dict[str, object], files: list[int]) -> int:
    """Have `request` run with `files` as standard input, output and error; its exit status."""
    with connection:
        connection.settimeout(PAGE_SECONDS)
        connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile().readline()
    return int(answer) if answer else 1  # what is killed says nothing
