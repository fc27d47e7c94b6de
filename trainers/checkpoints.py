"""Checkpoints that are either whole or not there.

`Trainer` writes the files of a checkpoint straight into `checkpoint-N`, and takes the highest N for the newest
checkpoint whatever is in it. Here a marker with the size of every file is written last, after all of them are on disk:
a folder without it, or whose files do not fit it, is no checkpoint.
"""

import json
import os
import re
import shutil
from pathlib import Path

from ..evaluation import write_atomic


MARKER = "complete.json"
_FOLDER = re.compile(r"^checkpoint-(\d+)$")


def mark_finished(folder: Path) -> None:
    """Flush every file of `folder` to disk, then write the marker."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MARKER)
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    write_atomic(folder / MARKER, json.dumps({"files": sizes}, indent=1))


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint with all its files, each of the size it was written with."""
    try:
        sizes = json.loads((folder / MARKER).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def finished_checkpoints(output_dir: str | Path) -> list[Path]:
    """The finished checkpoints below `output_dir`, from the first step to the last."""
    root = Path(output_dir)
    found = [(int(m[1]), p) for p in root.glob("checkpoint-*") if (m := _FOLDER.match(p.name)) and is_finished(p)]
    return [path for _, path in sorted(found)]


def last_finished_checkpoint(output_dir: str | Path) -> Path | None:
    """The finished checkpoint of the highest step below `output_dir`, or None."""
    found = finished_checkpoints(output_dir)
    return found[-1] if found else None


def remove_checkpoint(folder: Path) -> None:
    """Delete `folder`, its marker first: killed at any moment, what is left does not pass for a checkpoint."""
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def rotate_finished(output_dir: str | Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest finished checkpoints until `limit` are left; the last and the best one always stay."""
    if limit is None or limit <= 0:
        return
    found = finished_checkpoints(output_dir)
    kept = {p for p in found[-1:]} | {p for p in found if best is not None and p.name == Path(best).name}
    for folder in [p for p in found if p not in kept][: max(0, len(found) - max(limit, len(kept)))]:
        remove_checkpoint(folder)
