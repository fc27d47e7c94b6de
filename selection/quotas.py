"""How a budget is divided between classes or bins: whole numbers that fill it exactly."""

import numpy as np


def apportion(shares: np.ndarray, k: int) -> np.ndarray:
    """Divide k in proportion to `shares` by largest remainders, the first of equal remainders going first.

    >>> apportion(np.array([0.4, 0.4, 0.2]), 4).tolist()
    [2, 1, 1]
    """
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * k
    quotas = np.floor(exact).astype(np.int64)
    # Rounded, so that remainders that are equal on paper are equal here.
    order = np.argsort(-np.round(exact - quotas, 9), kind="stable")
    quotas[order[: k - quotas.sum()]] += 1
    return quotas


def spill_over(quotas: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Move what a bin of `sizes` cannot fill to the nearest bin with room, the lower of two at equal distance.

    >>> spill_over(np.array([4, 4, 2]), np.array([9, 1, 9])).tolist()
    [7, 1, 2]
    """
    quotas = quotas.copy()
    for short in range(len(quotas)):
        for other in sorted(range(len(quotas)), key=lambda o: (abs(o - short), o)):
            moved = min(quotas[short] - sizes[short], sizes[other] - quotas[other])
            if moved > 0:
                quotas[short] -= moved
                quotas[other] += moved
    return quotas
