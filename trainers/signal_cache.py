"""Signals of a frozen model, kept on disk: computed once, a shard at a time, and found again by what they follow from.

A frozen model says the same of the same texts every time, and a large one takes hours or days to say it. A signal's
key is a hash of everything it depends on, so nothing is ever found that another model, tokenizer, text or setting
made; a run that is killed goes on after the last shard it finished.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation import atomic_path, to_plain, write_atomic


FORMAT = 1
"""Goes into every key: raise it when a signal's definition or the files change."""

_BYTES_AT_A_TIME = 2**26

Compute = Callable[[NDArray[np.int64]], NDArray[Any]]
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def signal_key(signal: str, **terms: Any) -> str:
    """The name under which a signal is kept: a hash of its name and of all it follows from.

    Args:
        signal: `perplexity`, `ifd`, `embeddings` …
        terms: fingerprints of model, tokenizer and texts, and every setting that changes a value; what JSON can hold.

    >>> signal_key("ifd", model="a", max_length=128) == signal_key("ifd", max_length=128, model="a")
    True
    >>> signal_key("ifd", model="a", max_length=128) == signal_key("ifd", model="a", max_length=64)
    False
    """
    plain = json.dumps(to_plain({"format": FORMAT, "signal": signal, "terms": terms}), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


class SignalCache:
    """Arrays in a folder, by key.

    A key's rows are computed in shards of consecutive rows, each written atomically when it is done, and put together
    at the end. Files that do not carry the key, or whose content is not what was written, are computed again. Several
    runs may use a folder at once, even for one key. Nothing is deleted but a key's shards once it is whole.

    Args:
        folder: where the files lie; made when something is written.
        shard_rows: rows a shard: what a kill loses at most. Shards of another size are not gone on from: which rows
            share a batch, and so the last bits of a value, would depend on when the run was killed.

    >>> import tempfile
    >>> cache = SignalCache(tempfile.mkdtemp(), shard_rows=2)
    >>> cache.fetch("squares", 5, lambda rows: rows**2)
    memmap([ 0.,  1.,  4.,  9., 16.], dtype=float32)
    >>> cache.fetch("squares", 5, lambda rows: 1 / 0)
    memmap([ 0.,  1.,  4.,  9., 16.], dtype=float32)
    """

    def __init__(self, folder: str | Path, shard_rows: int = 2048) -> None:
        if shard_rows < 1:
            raise ValueError(f"`shard_rows` must be 1 or more, got {shard_rows}")
        self.folder, self.shard_rows = Path(folder), shard_rows

    def fetch(
        self,
        key: str,
        rows: int,
        compute: Compute,
        *,
        process_index: int = 0,
        num_processes: int = 1,
        progress: Progress | None = None,
    ) -> NDArray[np.float32] | None:
        """The array of `key`: read if it is there, else computed as far as it is missing.

        Args:
            key: from `signal_key`.
            rows: how many the array has.
            compute: gives the values of the rows whose numbers it is passed, (n) or (n, d), on process 0; the other
                processes' results are ignored. Called by all processes for the same rows.
            process_index: this process's number, of `num_processes` that all call this. Only process 0 reads and
                writes the folder.
            num_processes: 2 and more need an initialised `torch.distributed`.
            progress: wraps an iterable of known length (the shards to compute), for a progress bar.

        Returns:
            float32 (rows) or (rows, d), mapped from the file; None on processes other than 0.

        Raises:
            ValueError: `compute` gave another number of rows.
        """
        first = process_index == 0
        missing = self._missing(key, rows) if first else []
        if num_processes > 1:
            missing = _from_first(missing)
        for start in progress(missing, len(missing)) if progress else missing:
            numbers = np.arange(start, min(start + self.shard_rows, rows))
            values = compute(numbers)
            if first:
                values = np.ascontiguousarray(values, dtype=np.float32)
                if len(values) != len(numbers):
                    raise ValueError(f"{len(numbers)} rows were to be computed, {len(values)} came back")
                _write(self._shard(key, start), _terms(key, rows, start, self.shard_rows), values)
        return self._whole(key, rows) if first else None

    def _missing(self, key: str, rows: int) -> list[int]:
        if _read(self._file(key), _terms(key, rows)) is not None:
            return []
        starts = range(0, max(rows, 1), self.shard_rows)
        return [s for s in starts if _read(self._shard(key, s), _terms(key, rows, s, self.shard_rows)) is None]

    def _whole(self, key: str, rows: int) -> NDArray[np.float32]:
        if (found := _read(self._file(key), _terms(key, rows))) is not None:
            return found
        starts = range(0, max(rows, 1), self.shard_rows)
        shards = [_read(self._shard(key, s), _terms(key, rows, s, self.shard_rows)) for s in starts]
        whole = [shard for shard in shards if shard is not None]
        if len(whole) == len(starts):
            _write(self._file(key), _terms(key, rows), *whole)
            shutil.rmtree(self._shard(key, 0).parent, ignore_errors=True)
        # Where shards are gone, another run has put them together since.
        found = _read(self._file(key), _terms(key, rows))
        if found is None:
            raise OSError(f"{self._file(key)} was changed while it was written")
        return found

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _shard(self, key: str, start: int) -> Path:
        return self.folder / f"{key}.partial" / f"{start}.npy"


def _terms(key: str, rows: int, start: int = 0, shard_rows: int | None = None) -> dict[str, Any]:
    return {"key": key, "rows": rows, "start": start, "shard_rows": shard_rows}


def _write(path: Path, terms: dict[str, Any], *parts: NDArray[np.float32]) -> None:
    """The parts as one array, then a note of what it is: an array whose note is missing or of another is no array."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    with atomic_path(path) as temporary:
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape) if shape[0] else None
        if whole is None:
            np.save(temporary, parts[0])
        else:
            np.concatenate(parts, out=whole)
            whole.flush()
    content = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            content.update(piece)
    write_atomic(path.with_suffix(".json"), json.dumps(terms | {"sha256": content.hexdigest()}))


def _read(path: Path, terms: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """What `_write` wrote at `path` under the same terms, else None."""
    try:
        note = json.loads(path.with_suffix(".json").read_text())
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    expected = terms["rows"] if terms["shard_rows"] is None else None
    if not isinstance(note, dict) or values.dtype != np.float32 or (expected is not None and len(values) != expected):
        return None
    content = hashlib.sha256()
    for piece in _pieces(values):
        content.update(piece)
    return values if note == {**terms, "sha256": content.hexdigest()} else None


def _pieces(values: NDArray[np.float32]) -> Iterator[bytes]:
    flat = values.reshape(-1)
    for start in range(0, len(flat), _BYTES_AT_A_TIME // 4):
        yield flat[start : start + _BYTES_AT_A_TIME // 4].tobytes()


def _from_first(value: list[int]) -> list[int]:
    import torch.distributed as dist

    shared: list[Any] = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]
