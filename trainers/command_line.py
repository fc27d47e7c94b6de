"""The command line, which trackers record, and which may have keys in it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def command_line_hidden() -> Iterator[None]:
    """Within the block the process seems to have been started without arguments."""
    before = sys.argv
    sys.argv = before[:1]
    try:
        yield
    finally:
        sys.argv = before
