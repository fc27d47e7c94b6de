"""BADGE at one thread: drawn in blocks from factorised gradients, and two ways to do it pick by pick.

    python benchmarks/badge.py
    python benchmarks/badge.py --quick

"k-means++, factorised" hears of every pick at once, by one product of all rows with it; "k-means++, materialised" does
the same with gradients of classes · width entries that are really made, for a few picks: the rest is extrapolated,
each pick costing the same. Both are written here from the definition. Picks are random, so what must agree is their
distribution, which `tests/selection/test_badge.py` checks; shown here is the mean distance of all rows to the nearest
pick, ours divided by the peer's.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tithe.selection import Badge, Pool
from tithe.selection.badge import Gradients


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def make_pool(n: int, classes: int, width: int) -> Pool:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.3), n).astype(np.float32)
    return Pool(
        ids=np.arange(n),
        probabilities=probabilities,
        head_inputs=rng.standard_normal((n, width), dtype=np.float32),
    )


def errors_of(pool: Pool) -> np.ndarray:
    assert pool.probabilities is not None
    errors = pool.probabilities.copy()
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    return errors


def pick_by_pick(squares: np.ndarray, products: Callable[[int], np.ndarray], k: int) -> np.ndarray:
    """k-means++ given |g|² and the products of all rows with one."""
    rng = np.random.default_rng(0)
    order = [int(squares.argmax())]
    least = np.full(len(squares), np.inf, dtype=np.float32)
    while True:
        last = order[-1]
        np.minimum(least, np.maximum(squares + squares[last] - 2 * products(last), 0), out=least)
        least[last] = 0
        if len(order) == k:
            return np.array(order)
        cumulative = np.cumsum(least, dtype=np.float64)
        order.append(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")))


def factorised(pool: Pool, k: int) -> np.ndarray:
    errors, inputs = errors_of(pool), np.asarray(pool.head_inputs)
    squares = (errors**2).sum(axis=1) * (inputs**2).sum(axis=1)
    return pick_by_pick(squares, lambda i: (errors @ errors[i]) * (inputs @ inputs[i]), k)


def materialised(pool: Pool, k: int) -> np.ndarray:
    errors, inputs = errors_of(pool), np.asarray(pool.head_inputs)
    gradients = (errors[:, :, None] * inputs[:, None, :]).reshape(len(errors), -1)
    squares = np.einsum("ij,ij->i", gradients, gradients)
    return pick_by_pick(squares, lambda i: gradients @ gradients[i], k)


def seconds(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.process_time()
    picks = run()
    return time.process_time() - start, picks


def mean_distance(pool: Pool, picks: np.ndarray) -> float:
    view = Gradients(np.asarray(pool.probabilities), np.asarray(pool.head_inputs))
    least = np.full(len(pool), np.inf, dtype=np.float32)
    for start in range(0, len(picks), 256):
        view.lower(least, view.take(picks[start : start + 256]))
    return float(np.sqrt(least).mean())


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """One line per peer."""
    n, k, classes, width = (4_000, 400, 10, 384) if quick else (20_000, 2_000, 10, 384)
    pool = make_pool(n, classes, width)
    runs = [seconds(lambda: Badge().select(pool, k, np.random.default_rng(0)).indices) for _ in range(3)]
    ours_s, ours = min(runs, key=lambda timed: timed[0])
    lines = []
    few = 40
    for name, peer, picks in (("factorised", factorised, k), ("materialised", materialised, few)):
        peer_s, theirs = seconds(lambda peer=peer, picks=picks: peer(pool, picks))
        agreement: str | float = "not compared"
        if picks < k:
            half, _ = seconds(lambda peer=peer: peer(pool, few // 2))
            peer_s += (peer_s - half) / (few - few // 2) * (k - few)
        else:
            agreement = mean_distance(pool, ours) / mean_distance(pool, theirs)
        lines.append(
            {
                "work": "BADGE",
                "size": f"{n // 1000}k / {k}, {classes} classes, {width} d",
                "ours_cpu_s": ours_s,
                "peer": f"k-means++, {name}",
                "peer_cpu_s": peer_s,
                "ratio": peer_s / ours_s,
                "agreement": agreement,
                "extrapolated": picks < k,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="BADGE against k-means++ pick by pick, one thread")
    parser.add_argument("--quick", action="store_true", help="4,000 rows")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # BLAS reads these once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    results = measure(args.quick)
    for line in results:
        print(
            f"{line['work']}, {line['size']}: {line['ours_cpu_s']:.2f} s; {line['peer']}: "
            f"{'~' if line['extrapolated'] else ''}{line['peer_cpu_s']:.2f} s, {line['ratio']:.1f} times as long; "
            f"mean distance, ours to theirs: {line['agreement']}"
        )
    if args.output:
        args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
