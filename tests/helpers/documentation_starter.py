"""Imports what recipes import, once, and runs commands and pages of the documentation in forks of itself."""

import array
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
import types
from typing import Any

from accelerate.commands import launch
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from tithe.recipes.cli import RECIPES


def serve(path: str) -> None:
    """Answer requests at the socket `path`, each in a fork, until this process is ended."""
    for name in RECIPES:
        importlib.import_module(f"tithe.recipes.{name}")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # forks then share these pages for longer
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, parts, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    files = array.array("i", parts[0][2])
    request = json.loads(connection.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("helpers")]
    status = 0
    try:
        _run(request["argv"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"{status}\n".encode())
    os._exit(status)


def _run(argv: list[str]) -> None:
    name, *rest = argv
    if name == "page":
        _page(json.loads(rest[0]))
    elif name == "tithe":
        sys.argv = argv
        importlib.import_module("tithe.recipes.cli").main()
    elif name == "accelerate" and rest[0] == "launch":
        launch.simple_launcher = _simple_launcher
        launch.launch_command(launch.launch_command_parser().parse_args(rest[1:]))
    elif name == "python" and rest[0] == "-m":
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    elif name == "python" and rest[0].endswith(".py"):
        _script(rest)
    else:
        module = {"python": [], "accelerate": ["-m", "accelerate.commands.accelerate_cli"]}[name]
        sys.exit(subprocess.run([sys.executable, *module, *rest]).returncode)


def _simple_launcher(args: Any) -> None:
    """What Accelerate's own does, without a new interpreter."""
    command, environment = prepare_simple_launcher_cmd_env(args)
    os.environ.update(environment)
    _script(command[1:])


def _script(argv: list[str]) -> None:
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(os.path.abspath(argv[0])))
    runpy.run_path(argv[0], run_name="__main__")


def _page(blocks: list[dict[str, Any]]) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.path.insert(0, "")
    for block in blocks:
        place = f"{block['page']}:{block['line']}"
        print(f"--- {place} ({block['language']})", flush=True)
        if block["language"] == "bash":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block["text"]])
            if done.returncode:
                sys.exit(f"{place} ended with {done.returncode}")
        else:  # lines before it are blank, so that tracebacks say the page's
            source = "\n" * (block["line"] - 1) + block["text"]
            exec(compile(source, block["page"], "exec"), module.__dict__)


if __name__ == "__main__":
    serve(sys.argv[1])
