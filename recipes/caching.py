"""Where recipes keep what can be made again, and how a file gets there in one piece."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset, Features


_BATCH_ROWS = 10_000


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` when the block ends well: readers see the whole file or none.

    Processes that publish the same file at once do not disturb each other; the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, filled by `build` if it is not there yet; killed on the way, it leaves no half of it.

    All processes call it, and the first one builds.
    """
    with PartialState().main_process_first():
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as unfinished:
                built = Path(unfinished) / folder.name
                build(built)
                try:
                    built.replace(folder)
                except OSError:
                    if not folder.exists():  # else a process that was started apart has built the same meanwhile
                        raise
    return folder


def memory_mapped(table: pa.Table, features: Features, folder: Path, name: str) -> Dataset:
    """The table as a dataset on disk, in `folder`, which is named after its content: a file that is there is taken."""
    path = folder / f"{name}.arrow"
    try:
        dataset = Dataset.from_file(str(path))
        if len(dataset) == len(table):
            return dataset
    except (OSError, pa.ArrowInvalid):  # absent, or damaged: written anew
        pass
    schema = features.arrow_schema
    with published(path) as temporary, pa.ipc.new_stream(str(temporary), schema) as writer:
        for start in range(0, len(table), _BATCH_ROWS):
            for batch in table.slice(start, _BATCH_ROWS).combine_chunks().cast(schema).to_batches():
                writer.write_batch(batch)
    return Dataset.from_file(str(path))
