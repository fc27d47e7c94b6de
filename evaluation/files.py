"""Files that are either the old version or the new one, never half of each.

A run is killed at any moment (a scheduler, a full disk, a power cut), and the next run reads what it left. Every file
of a run is therefore written beside its place, flushed to disk and moved there in one step.
"""

import contextlib
import enum
import errno
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


PathLike = str | os.PathLike[str]

# Some network file systems do not know fsync; moving a file into place is atomic there all the same.
FSYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """For writers that want a path (`savefig`, parquet): yields a temporary one that is moved to `path` at the end.

    The temporary file lies in the same folder (made if missing) and has the same suffix, as writers choose their
    format by it. Leaving the block normally flushes it to disk and moves it to `path`; leaving by an exception removes
    it and leaves an older `path` untouched. Raises `FileNotFoundError` if the block wrote nothing.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}{target.suffix}")
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {target}: the block must write to the path it is given")
        _flush_to_disk(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_to_disk(target.parent)


def write_atomic(path: PathLike, data: str | bytes) -> Path:
    """Write a whole file in one step; text is encoded as UTF-8. Returns `path`.

    The file gets the permissions the process's umask gives any new file. After a return the data is on disk, not only
    in the page cache.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_json_lines(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON object a line, in one step. Values as in `to_plain`. Returns `path`."""
    lines = (json.dumps(to_plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    return write_atomic(path, "".join(lines))


def to_plain(value: Any) -> Any:
    """Turn a value into what JSON can hold: dict, list, str, int, float, bool or None.

    NaN and the infinities become None, NumPy scalars and arrays numbers and lists, paths text, enum members their
    values, sets sorted lists, keys text. The order of keys is kept. Raises `TypeError` on anything else, naming its
    type.

    >>> to_plain({"f1": np.float32(0.5), "auc": float("nan"), "at": (Path("a/b"), {2, 1})})
    {'f1': 0.5, 'auc': None, 'at': ['a/b', [1, 2]]}
    """
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(to_plain(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [to_plain(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


def _flush_to_disk(path: Path) -> None:
    """Ask the system to write `path`, a file or a folder, to the disk itself."""
    if os.name == "nt":  # a folder cannot be opened there, nor a file flushed through a read-only descriptor
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in FSYNC_UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
