"""Facility location at one thread: the neighbour graph, apricot-select, and greedy over all pairs, in one run.

    pip install apricot-select
    python benchmarks/facility.py --quick
    python benchmarks/facility.py --embeddings real.npy --output facility.json

The peer gets the same cosines, computed inside the measured time as its own `metric="cosine"` would compute them.
The agreement is the value of the picks (the sum, over all rows, of the cosine to the most similar pick) relative to
that of exact greedy over all pairs of rows, which is computed once, blocked and lazily, outside the measured time.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tithe.selection import facility_location_greedy


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def clustered(n: int, dimensions: int, seed: int) -> np.ndarray:
    """A mixture of Gaussians with clusters of uneven size, L2-normalised, float32[n, dimensions]."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 100), dimensions), dtype=np.float32)
    of = rng.choice(len(centres), size=n, p=rng.dirichlet(np.ones(len(centres))))
    rows = 0.8 * rng.standard_normal((n, dimensions), dtype=np.float32) + centres[of]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def exact_greedy(rows: np.ndarray, k: int, batch: int = 64) -> np.ndarray:
    """Lazy greedy over all pairs: gains of the most promising `batch` rows at a time, until one is surely the best."""
    best = np.zeros(len(rows), dtype=np.float32)

    def gains(of: np.ndarray) -> np.ndarray:
        return np.maximum(rows[of] @ rows.T - best, 0).sum(axis=1, dtype=np.float64)

    bounds = np.concatenate([gains(np.arange(s, min(s + 512, len(rows)))) for s in range(0, len(rows), 512)])
    order = np.empty(k, dtype=np.int64)
    for pick in range(k):
        fresh = np.zeros(len(rows), dtype=bool)
        while not fresh[bounds.argmax()]:
            stale = np.where(fresh, -np.inf, bounds)
            top = np.argpartition(-stale, batch)[:batch]
            bounds[top] = gains(top)
            fresh[top] = True
        order[pick] = bounds.argmax()
        bounds[order[pick]] = -np.inf
        np.maximum(best, rows @ rows[order[pick]], out=best)
    return order


def apricot(rows: np.ndarray, k: int) -> np.ndarray:
    from apricot import FacilityLocationSelection

    cosines = np.maximum(rows @ rows.T, 0).astype(np.float64)
    chooser = FacilityLocationSelection(k, metric="precomputed", optimizer="two-stage", n_jobs=1, verbose=False)
    return np.asarray(chooser.fit(cosines).ranking)


def value(rows: np.ndarray, picks: np.ndarray) -> float:
    blocks = (rows[s : s + 1024] @ rows[picks].T for s in range(0, len(rows), 1024))
    return float(sum(np.maximum(block.max(axis=1), 0).sum(dtype=np.float64) for block in blocks))


def seconds(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """CPU seconds of the fastest of `repeats` runs, and what the last returned."""
    least, result = np.inf, None
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        least = min(least, time.process_time() - start)
    return float(least), result


def measure(rows: np.ndarray, k: int, repeats: int = 3, peer: bool = True) -> list[dict[str, Any]]:
    """One line: ours against the peer, and what share of exact greedy's value ours keeps."""
    ours_s, ours = seconds(lambda: facility_location_greedy(rows, k).order, repeats)
    exact = value(rows, exact_greedy(rows, k))
    line = {
        "work": "facility location",
        "size": f"{len(rows)} x {rows.shape[1]}, {k} picks",
        "ours_cpu_s": ours_s,
        "peer": "apricot-select FacilityLocationSelection",
        "peer_cpu_s": None,
        "ratio": None,
        "agreement": value(rows, ours) / exact,
        "extrapolated": False,
    }
    if peer and importlib.util.find_spec("apricot") is None:
        print("apricot-select is not installed, so nothing is compared with it: pip install apricot-select")
    elif peer:
        apricot(rows[:500], 10)  # compiles its loops
        peer_s, theirs = seconds(lambda: apricot(rows, k), 1)
        line |= {"peer_cpu_s": peer_s, "ratio": peer_s / ours_s, "peer_value": value(rows, theirs) / exact}
    return [line]


def show(line: dict[str, Any]) -> None:
    print(f"{line['work']}, {line['size']}: {line['ours_cpu_s']:.2f} s, {line['agreement']:.4%} of the exact value")
    if line["ratio"]:
        print(
            f"  {line['peer']}: {line['peer_cpu_s']:.2f} s, {line['ratio']:.1f} times as long, "
            f"{line['peer_value']:.4%} of the exact value"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="facility location against apricot-select, one thread")
    parser.add_argument("--n", type=int, default=20_000, help="rows")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the rows to pick")
    parser.add_argument("--embeddings", type=Path, help=".npy file of float[n, d] to use instead of a mixture")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours; the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peer", action="store_true", help="leave the peer out: it takes n² · 8 bytes")
    parser.add_argument("--quick", action="store_true", help="4,000 rows")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # read once, when the libraries are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    n = min(args.n, 4000) if args.quick else args.n
    if args.embeddings:
        rows = np.ascontiguousarray(np.load(args.embeddings)[:n], dtype=np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    else:
        rows = clustered(n, args.dimensions, args.seed)
    results = measure(rows, max(1, round(args.fraction * len(rows))), args.repeats, not args.no_peer)
    for line in results:
        show(line)
    if args.output:
        args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
