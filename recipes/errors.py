"""Mistakes of the user: one line each, that names what was found and what to do."""

import difflib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tithe.evaluation import mask


_USER_ERRORS = (ValueError, ImportError, FileNotFoundError, NotADirectoryError, PermissionError)


@contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn mistakes of the user inside the block into one line, `error: …`, and exit status 2.

    Put it around parsing and loading, before training: without `kinds` it catches `ValueError`, `ImportError` and
    missing or forbidden files. One process per machine prints. TITHE_TRACEBACK=1 in the environment prints the
    traceback too.
    """
    caught = kinds or _USER_ERRORS
    try:
        yield
    except caught as error:
        fail(str(error), 2)


def fail(message: str, status: int) -> None:
    """Print `message` in one line, on one process per machine, and exit; inside `except`, with the traceback if asked.

    Both are masked: an error may quote an argument that holds a key.

    Raises:
        SystemExit: always, with `status`.
    """
    if os.environ.get("TITHE_TRACEBACK") == "1":
        print(mask(traceback.format_exc()), file=sys.stderr, end="")
    if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
        print("error:", mask(" ".join(message.split())), file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What to add to an error about `name`: the known name that it is nearest to, or what lists those there are.

    >>> nearest("--budgte", ["--budget", "--rounds"], "--help")
    '; did you mean `--budget`?'
    """
    matches = difflib.get_close_matches(name, list(known), n=1)
    if matches:
        return f"; did you mean `{matches[0]}`?"
    return f"; {otherwise} lists those known" if otherwise else ""
