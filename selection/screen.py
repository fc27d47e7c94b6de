"""A first pass in bfloat16 that says which rows a float32 pass can leave out, without changing any result.

Where the processor multiplies bfloat16 matrices itself, that is four times as fast as float32. A product of two
vectors is then off by at most `_ERROR · ‖x‖ ‖c‖`, so a row whose distance in bfloat16, less that much, is not below
the one it has already need not be looked at again.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


# Both factors and the product are rounded to 8 bits: 3 · 2⁻⁹, and a quarter of that again for all smaller terms.
_ERROR = np.float32(2.0**-7)
_FEWEST_CENTRES = 16


class Screen:
    """The centres `columns` (d, c), with half of their squared norms, in bfloat16."""

    def __init__(self, torch: Any, columns: np.ndarray, half_squares: np.ndarray) -> None:
        self._torch = torch
        self._columns = torch.from_numpy(columns).bfloat16()
        self._half = half_squares
        self._longest = np.float32(np.sqrt(2 * half_squares.max()))
        self._same = float(np.ptp(half_squares)) < 1e-3 * self._longest**2

    @classmethod
    def over(cls, columns: np.ndarray, half_squares: np.ndarray) -> "Screen | None":
        """A screen where it pays: with many centres, bfloat16 in hardware, and PyTorch imported by somebody else."""
        torch = sys.modules.get("torch")
        if torch is None or columns.shape[1] < _FEWEST_CENTRES or not multiplies_bfloat16():
            return None
        return cls(torch, columns, half_squares)

    def may_be_nearer(
        self, block: np.ndarray, scales: np.ndarray | None, squares: np.ndarray, least: np.ndarray
    ) -> np.ndarray:
        """Positions in `block` (rows, d) of all rows, and of few others, that are nearer to a centre than `least`.

        `scales` are what the rows are multiplied with, `squares` their squared norms after it.
        """
        writable = block if block.flags.writeable else block.copy()  # PyTorch warns of a read-only memory map
        product = self._torch.from_numpy(writable).bfloat16() @ self._columns
        if self._same:
            best = product.amax(dim=1).float().numpy()
            best = (best if scales is None else best * scales) - self._half.min()
        else:
            full = product.float().numpy()
            best = ((full if scales is None else full * scales[:, None]) - self._half).max(axis=1)
        slack = _ERROR * np.sqrt(squares) * self._longest
        return np.flatnonzero(squares - 2 * (best + slack) < least)


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 matrices."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
