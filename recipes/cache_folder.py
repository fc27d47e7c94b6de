"""Where what can be made again is kept."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder named by TITHE_CACHE, else `tithe` under XDG_CACHE_HOME, else `~/.cache/tithe`; made if missing."""
    named = os.environ.get("TITHE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(named).expanduser() if named else Path(base) / "tithe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the cache folder {folder} ({error.strerror}): name another in the environment variable "
            "`TITHE_CACHE`"
        ) from None
    return folder
