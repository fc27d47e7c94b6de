"""Telling that memory has run out, on a device or on the CPU, from other errors."""

import torch


_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
_KERNEL = "could not create a primitive"  # of oneDNN, which says no more where memory runs out


def ran_out_of_memory(error: BaseException, *, small_ones_work: bool = False) -> bool:
    """Whether `error` says so, by its type or by PyTorch's words.

    Args:
        small_ones_work: the same has worked on less: then a kernel that could not be made has run out of memory, too.

    >>> ran_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> ran_out_of_memory(RuntimeError("could not create a primitive"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    found = str(error).lower()
    return any(words in found for words in _WORDS) or (small_ones_work and _KERNEL in found)
