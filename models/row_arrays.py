"""Arrays of a row for each of a pool's: on disk where they are large, and put together from several processes."""

import tempfile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


_ON_DISK_ABOVE = 2**30  # bytes
_ROWS_AT_A_TIME = 16384


class ShardRows:
    """Collects the rows of one process, and on process 0, if asked to, those of all.

    `rows` are this process's, rising, and `arrays` what was read of them.
    """

    def __init__(self, length: int, batches: list[NDArray[np.int64]], process_index: int, num_processes: int) -> None:
        self._length, self._process_index, self._num_processes = length, process_index, num_processes
        none = np.empty(0, np.int64)
        self._of = [np.sort(np.concatenate([none, *batches[p::num_processes]])) for p in range(num_processes)]
        self.rows = self._of[process_index]
        self._ended = np.append(self.rows, -1)  # so that a row behind the last one has a place, too
        self.arrays: dict[str, NDArray[np.float32]] = {}

    def put(self, name: str, rows: NDArray[np.int64], values: Tensor) -> None:
        """Keep what was read of `rows`; those of a batch that is read twice are another process's."""
        if name not in self.arrays:
            self.arrays[name] = allocate((len(self.rows), *values.shape[1:]))
        place = np.searchsorted(self.rows, rows)
        own = self._ended[place] == rows
        self.arrays[name][place[own]] = values.cpu().numpy()[own]

    def gather(self) -> dict[str, NDArray[np.float32]]:
        if self._num_processes == 1:
            return self.arrays
        found = {name: self._gathered(self.arrays[name]) for name in sorted(self.arrays)}
        return {name: array for name, array in found.items() if array is not None}

    def _gathered(self, array: NDArray[np.float32], chunk: int = _ROWS_AT_A_TIME) -> NDArray[np.float32] | None:
        """Send every process's rows to process 0, some at a time; all chunks have one shape, as collectives want."""
        import torch.distributed as dist

        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
        whole = allocate((self._length, *array.shape[1:])) if self._process_index == 0 else None
        longest = max(len(rows) for rows in self._of)
        for start in range(0, longest, chunk):
            size = min(chunk, longest - start)
            own = array[start : start + size]
            sent = torch.zeros((size, *array.shape[1:]), device=device)
            sent[: len(own)] = torch.from_numpy(own).to(device)
            received = [torch.empty_like(sent) for _ in range(self._num_processes)]
            dist.all_gather(received, sent)
            if whole is not None:
                for of, part in zip(self._of, received, strict=True):
                    rows = of[start : start + size]
                    whole[rows] = part[: len(rows)].cpu().numpy()
        return whole


def take_rows(values: NDArray[np.float32], rows: NDArray[np.int64], axis: int = 0) -> NDArray[np.float32]:
    """`values.take(rows, axis)` for ascending `rows`, on disk where `values` is; no copy where that is all of them."""
    if len(rows) == values.shape[axis]:
        return values
    taken = allocate((*values.shape[:axis], len(rows), *values.shape[axis + 1 :]))
    source, target = np.moveaxis(values, axis, 0), np.moveaxis(taken, axis, 0)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        target[start : start + _ROWS_AT_A_TIME] = source[rows[start : start + _ROWS_AT_A_TIME]]
    return taken


def allocate(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array that is to be filled: in memory, or above 1 GiB in a file that goes away with it."""
    if 4 * int(np.prod(shape)) <= _ON_DISK_ABOVE:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive after its name and handle are gone
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
