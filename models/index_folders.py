"""Indexes on disk: folders that are whole or not there, and that say by which retriever they were made."""

import errno
import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .retrieval import Passage, Retriever, as_passages


logger = logging.getLogger(__name__)

DESCRIPTION = "retriever.json"
"""The file of an index that says what made it."""
_MANIFEST = "files.json"
_FORMAT = 1  # of the built-in retrievers' files: raise it when they change
_BYTES_AT_A_TIME = 2**24

SomeRetriever = TypeVar("SomeRetriever", bound=Retriever)


def indexed(
    retriever: SomeRetriever, passages: Sequence[Passage | Mapping[str, Any]], cache_folder: str | Path
) -> SomeRetriever:
    """`retriever` with `passages` indexed: read from `cache_folder` if it is there, else built and written to it.

    An index lies in a folder of its own, named after the retriever's class and a hash of its `settings`, of the
    passages and of their order. A call that is killed leaves none; one whose files are not what was written is built
    anew, which takes a read of them all to know (about a second per GB).

    Raises:
        ValueError, TypeError: the passages are no corpus, as `as_passages` says.
    """
    corpus = as_passages(passages)
    folder = Path(cache_folder) / f"{type(retriever).__name__.lower()}-{_key(retriever, corpus)}"
    if _is_whole(folder):
        retriever.load(folder / "index")
        return retriever
    if folder.exists():
        logger.warning(f"{folder} is damaged: the index is built anew")
    retriever.index(corpus)
    with whole_folder(folder, marker=None) as unfinished:
        retriever.save(unfinished / "index")
        (unfinished / _MANIFEST).write_text(json.dumps(_manifest(unfinished), indent=1), encoding="utf-8")
    return retriever


@contextmanager
def whole_folder(folder: str | Path, marker: str | None = DESCRIPTION) -> Iterator[Path]:
    """A folder to write to that becomes `folder` when the block ends well, in place of one that was there.

    Args:
        marker: a file that an older folder must have to be replaced, unless it is empty; None for none.

    Raises:
        ValueError: there is such a folder without `marker`: it holds something else.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file: an index needs a folder")
    if marker and target.exists() and any(target.iterdir()) and not (target / marker).exists():
        raise ValueError(f"{target} holds something else than an index, which would be lost: name another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent) as scratch:
        built = Path(scratch) / "new"
        built.mkdir()
        yield built
        for path in [*built.rglob("*"), built]:
            _flush_to_disk(path)
        if target.exists():
            os.replace(target, Path(scratch) / "old")
        try:
            os.replace(built, target)
        except OSError:  # another process put its own there in this moment: of the same save, it is as good
            if not target.is_dir():
                raise
    _flush_to_disk(target.parent)


def describe(folder: Path, retriever: Retriever, passages: int, note: str = "") -> None:
    """Write the file that `check_description` reads. `note` is for people: it is shown where settings differ."""
    content = {
        "format": _FORMAT,
        "retriever": type(retriever).__name__,
        "settings": dict(retriever.settings),
        "passages": passages,
        "note": note,
    }
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def check_description(folder: str | Path, retriever: Retriever) -> int:
    """How many passages the index in `folder` has.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it was made by another retriever, or under other settings.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {DESCRIPTION}: it is no index that was saved")
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"format": _FORMAT, "retriever": type(retriever).__name__} | dict(retriever.settings)
    wanted = json.loads(json.dumps(wanted))
    there = {"format": found["format"], "retriever": found["retriever"]} | found["settings"]
    differing = [
        f"`{name}` is {_short(there.get(name))} in the index and {_short(wanted.get(name))} here"
        for name in {**wanted, **there}
        if there.get(name) != wanted.get(name)
    ]
    if differing:
        made = f" (made with {found['note']})" if found["note"] else ""
        raise ValueError(
            f"the index in {folder}{made} fits another retriever: {'; '.join(differing)}. Give the retriever the "
            "settings of the index, or index the passages again"
        )
    return int(found["passages"])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:45]}… ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _key(retriever: Retriever, passages: Sequence[Passage]) -> str:
    settings = {"format": _FORMAT, "retriever": type(retriever).__name__, "settings": dict(retriever.settings)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for passage in passages:
        for field in (passage.id, passage.title, passage.text):
            data = field.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def _manifest(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file below `folder`, but for the manifest itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, _crc(path)] for path in files}


def _is_whole(folder: Path) -> bool:
    try:
        noted = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in noted}
        return all(sizes[name] == size for name, (size, _) in noted.items()) and noted == _manifest(folder)
    except (OSError, ValueError, TypeError):
        return False


def _crc(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while part := file.read(_BYTES_AT_A_TIME):
            value = zlib.crc32(part, value)
    return value


def _flush_to_disk(path: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, nor a file flushed through a read-only descriptor
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems do not know it
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)
