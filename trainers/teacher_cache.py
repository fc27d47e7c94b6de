"""What teachers say of a data set, on disk: run once, whole epochs of training read it back.

A folder holds one cache: per item (a row, or a token of one) each teacher's log-probabilities, which serve at any
temperature, or of a large vocabulary the k largest of all teachers together at the temperature of training; the rows'
offsets; and a note of what they follow from, written last. It is computed in shards, each written atomically, so that
a run that is killed goes on after the last it finished.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..evaluation import atomic_path, to_plain, write_atomic
from .distillation_losses import TopK


FORMAT = 2
NOTE_NAME = "cache.json"
_BATCHES_A_SHARD = 32
_BYTES_AT_A_TIME = 2**26

Compute = Callable[[NDArray[np.int64]], tuple[Tensor, "TopK | Tensor"]]
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


class TeacherCache:
    """The soft targets of every row of a data set.

    Args:
        folder: of this cache alone.
        terms: what the targets follow from (teachers, tokenizers, data, temperature, …), as JSON can hold it.
    """

    def __init__(self, folder: str | Path, terms: dict[str, Any]) -> None:
        self.folder, self.terms = Path(folder), to_plain({"format": FORMAT, **terms})
        self._arrays: dict[str, NDArray[Any]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether all targets are there."""
        return (self.folder / NOTE_NAME).is_file()

    @property
    def size_bytes(self) -> int:
        """What the complete cache takes on disk."""
        return sum(array.nbytes for array in self._arrays.values())

    def check(self) -> None:
        """Raise a `ValueError` if the folder holds a cache of something else."""
        if not self.is_complete:
            return
        note = json.loads((self.folder / NOTE_NAME).read_text())
        found = note.get("terms", {})
        differing = sorted(k for k in {*found, *self.terms} if found.get(k) != self.terms.get(k))
        if differing:
            told = "; ".join(f"{k}: {_short(found.get(k))} there, {_short(self.terms.get(k))} here" for k in differing)
            raise ValueError(
                f"the teacher cache in {self.folder} is of something else ({told}): delete it, or choose another "
                "`teacher_cache_dir`"
            )

    def open(self) -> None:
        """Map the arrays of the complete cache.

        Raises:
            ValueError: it is of something else, or its files are not what was written.
        """
        self.check()
        note = json.loads((self.folder / NOTE_NAME).read_text())
        for name, digest in note["sha256"].items():
            path = self.folder / f"{name}.npy"
            try:
                self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
                same = _sha256(path) == digest
            except (OSError, ValueError, EOFError):
                same = False
            if not same:
                raise ValueError(
                    f"the teacher cache is corrupted: {path} is not what was written; delete {self.folder}"
                )

    def fill(
        self,
        batches: Sequence[NDArray[np.int64]],
        rows: int,
        compute: Compute,
        *,
        process_index: int = 0,
        num_processes: int = 1,
        progress: Progress | None = None,
    ) -> None:
        """Compute what is missing, each process its share; `finish` puts it together.

        Args:
            batches: row numbers of the batches in which teachers read, every row once.
            rows: how many there are in all.
            compute: of a batch's rows the number of items of each, and the targets of all items in order.
        """
        partial = self._partial(batches)
        shards = range(0, len(batches), _BATCHES_A_SHARD)
        mine = [s for i, s in enumerate(shards) if i % num_processes == process_index]
        missing = [s for s in mine if not (partial / f"{s}.npz").is_file()]
        for start in progress(missing, len(missing)) if progress else missing:
            found: dict[str, list[NDArray[Any]]] = {"rows": [], "counts": []}
            for batch in batches[start : start + _BATCHES_A_SHARD]:
                counts, targets = compute(batch)
                found["rows"].append(batch)
                found["counts"].append(counts.cpu().numpy())
                for name, values in _arrays(targets).items():
                    found.setdefault(name, []).append(values)
            with atomic_path(partial / f"{start}.npz") as path, open(path, "wb") as file:
                arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in found.items()}
                np.savez(file, **arrays)

    def finish(self, batches: Sequence[NDArray[np.int64]], rows: int) -> None:
        """Put the shards of all processes together; for one process, when all have filled in theirs."""
        partial = self._partial(batches)
        shards = [partial / f"{s}.npz" for s in range(0, len(batches), _BATCHES_A_SHARD)]
        counts = np.zeros(rows, dtype=np.int64)
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {}
        for path in shards:
            with np.load(path) as shard:
                counts[shard["rows"]] = shard["counts"]
                for name in set(shard) - {"rows", "counts"}:
                    shapes[name] = shard[name].dtype, shard[name].shape[1:]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        digests = {"offsets": self._write("offsets", offsets)}
        for name, (dtype, shape) in sorted(shapes.items()):
            with atomic_path(self.folder / f"{name}.npy") as path:
                whole = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(int(offsets[-1]), *shape))
                for shard_path in shards:
                    with np.load(shard_path) as shard:
                        places = _places(offsets, shard["rows"])
                        whole[places] = shard[name]
                whole.flush()
                del whole
                digests[name] = _sha256(path)
        note = {"terms": self.terms, "sha256": digests, "rows": rows, "items": int(offsets[-1])}
        write_atomic(self.folder / NOTE_NAME, json.dumps(note, indent=2))
        shutil.rmtree(partial, ignore_errors=True)

    def read(self, rows: NDArray[np.int64], counts: NDArray[np.int64], device: torch.device | str) -> TopK | Tensor:
        """The targets of all items of these rows, in order: as `fill` was given them, (n, numbers), or the largest.

        Raises:
            ValueError: a row has not as many items as when the teachers read it.
        """
        offsets = self._arrays["offsets"]
        known = offsets[rows + 1] - offsets[rows]
        if (known != counts).any():
            place = int(np.flatnonzero(known != counts)[0])
            raise ValueError(
                f"row {rows[place]} had {known[place]} items when the teachers read it, and has {counts[place]} now: "
                "the collator must give a row the same labels every time; set `cache_teacher` to False"
            )
        places = _places(offsets, rows)
        values = torch.from_numpy(self._arrays["log_probabilities"][places]).to(device)
        if "indices" not in self._arrays:
            return values
        return TopK(torch.from_numpy(self._arrays["indices"][places]).to(device), values)

    def _partial(self, batches: Sequence[NDArray[np.int64]]) -> Path:
        """Shards are gone on from only where the batches are the same: they decide the last bits of a value."""
        digest = hashlib.sha256(json.dumps(self.terms, sort_keys=True).encode())
        for batch in batches:
            digest.update(np.ascontiguousarray(batch, dtype=np.int64).tobytes() + b"|")
        return self.folder / f"partial-{digest.hexdigest()[:16]}"

    def _write(self, name: str, values: NDArray[Any]) -> str:
        with atomic_path(self.folder / f"{name}.npy") as path:
            with open(path, "wb") as file:
                np.save(file, values)
            return _sha256(path)


def _arrays(targets: TopK | Tensor) -> dict[str, NDArray[Any]]:
    if isinstance(targets, TopK):
        indices = targets.indices.to(torch.int32).cpu().numpy()
        return {"indices": indices, "log_probabilities": targets.log_probabilities.float().cpu().numpy()}
    return {"log_probabilities": targets.float().cpu().numpy()}


def _places(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of all items of `rows`, in order."""
    starts, counts = offsets[rows], offsets[rows + 1] - offsets[rows]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_BYTES_AT_A_TIME):
            digest.update(part)
    return digest.hexdigest()


def _short(value: Any, longest: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"
