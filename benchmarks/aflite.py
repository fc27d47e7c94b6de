"""One iteration of AFLite at one thread: closed-form ridge against scikit-learn's logistic regression, in one run.

    python benchmarks/aflite.py --quick
    python benchmarks/aflite.py --output aflite.json

Both predict the same random partitions. The agreement is Spearman's rank correlation of the predictabilities;
`logistic_to_itself` is that of logistic regression with itself on other partitions, which bounds what can be expected.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tithe.selection import predictability


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def labelled(n: int, dimensions: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that overlap between the classes, centred and with a variance of 1, and a tenth of them mislabelled."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    spectrum = np.arange(1, dimensions + 1, dtype=np.float32) ** -0.5  # embeddings have a few strong directions
    rows = rng.standard_normal((n, dimensions), dtype=np.float32) * spectrum
    rows += 0.6 * (rng.standard_normal((classes, dimensions), dtype=np.float32) * spectrum)[labels]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    wrong = rng.random(n) < 0.1
    labels[wrong] = rng.integers(0, classes, int(wrong.sum()))
    return rows / rows.std(), labels


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Ties, of which predictabilities have many, get their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, of, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[of]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def run(data: tuple[np.ndarray, np.ndarray], model: str, partitions: int, seed: int) -> tuple[float, np.ndarray]:
    """CPU seconds of one iteration, and the predictabilities."""
    start = time.process_time()
    votes = predictability(*data, np.random.default_rng(seed), model, partitions)
    return time.process_time() - start, votes


def measure(
    n: int = 20_000, dimensions: int = 384, classes: int = 2, partitions: int = 64, peer_partitions: int = 64
) -> list[dict[str, Any]]:
    """One line. With fewer `peer_partitions` the peer's seconds are extrapolated, each partition costing the same."""
    data = labelled(n, dimensions, classes, 0)
    run(data, "logistic", 1, 0)  # its import is not part of the time
    ours_s, ours = min((run(data, "ridge", partitions, 1) for _ in range(3)), key=lambda timed: timed[0])
    peer_s, theirs = run(data, "logistic", peer_partitions, 1)
    _, again = run(data, "logistic", peer_partitions, 2)
    peer_s *= partitions / peer_partitions
    _, same = run(data, "ridge", peer_partitions, 1)
    return [
        {
            "work": "AFLite iteration",
            "size": f"{n} x {dimensions}, {classes} classes, m {partitions}, t {n // 2}",
            "ours_cpu_s": ours_s,
            "peer": "scikit-learn LogisticRegression",
            "peer_cpu_s": peer_s,
            "ratio": peer_s / ours_s,
            "agreement": spearman(same, theirs),
            "extrapolated": peer_partitions < partitions,
            "logistic_to_itself": spearman(theirs, again),
            "ours_right": float(np.nanmean(ours)),
            "peer_right": float(np.nanmean(theirs)),
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="AFLite: ridge against logistic regression, one thread")
    parser.add_argument("--n", type=int, default=20_000, help="rows")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=64)
    parser.add_argument("--peer-partitions", type=int, default=64, help="partitions that the peer really fits")
    parser.add_argument("--quick", action="store_true", help="4,000 rows, 8 partitions of the peer")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # BLAS reads these once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    if args.quick:
        args.n, args.peer_partitions = min(args.n, 4000), 8
    results = measure(args.n, args.dimensions, args.classes, args.partitions, args.peer_partitions)
    for line in results:
        print(
            f"{line['work']}, {line['size']}: {line['ours_cpu_s']:.2f} s, {line['ours_right']:.1%} right; "
            f"{line['peer']}: {line['peer_cpu_s']:.2f} s{' (extrapolated)' if line['extrapolated'] else ''}, "
            f"{line['peer_right']:.1%} right, {line['ratio']:.1f} times as long; Spearman {line['agreement']:.3f}, "
            f"logistic with itself {line['logistic_to_itself']:.3f}"
        )
    if args.output:
        args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
