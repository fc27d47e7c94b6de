"""Greedy k-centre at one thread: the blocked kernel, with and without its bfloat16 screen, and four peers, in one run.

    python benchmarks/kcenter.py --quick
    python benchmarks/kcenter.py --embeddings real.npy --json kcenter.json

All start from the same row. CPU seconds are of the process; peak memory is what a run adds at its highest point to
what the process held before it (the array is not in it). Slow peers run for a few picks only, and the rest is
extrapolated from two such runs: CoreSet pays the same for each pick, DeepCore's algorithm and small-text look at all
earlier picks again at each, so their time grows with the square of the picks.
"""

import argparse
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tithe.selection.screen
from tithe.selection import coverage_radius, k_center_greedy


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def clustered(n: int, dimensions: int, seed: int) -> np.ndarray:
    """A mixture of Gaussians with clusters of uneven size, L2-normalised, float32[n, dimensions]."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 100), dimensions), dtype=np.float32)
    of = rng.choice(len(centres), size=n, p=rng.dirichlet(np.ones(len(centres))))
    rows = rng.standard_normal((n, dimensions), dtype=np.float32)
    rows *= 0.8
    rows += centres[of]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def numpy_loop(rows: np.ndarray, k: int, start: int) -> np.ndarray:
    """One matrix-vector product per pick, everything else in place."""
    squares = np.einsum("ij,ij->i", rows, rows)
    least = np.full(len(rows), np.inf, dtype=np.float32)
    squared = np.empty_like(least)
    order = np.empty(k, dtype=np.int64)
    pick = start
    for i in range(k):
        order[i] = pick
        np.dot(rows, rows[pick], out=squared)
        squared *= -2
        squared += squares
        squared += squares[pick]
        np.minimum(least, squared, out=least)
        least[pick] = -np.inf
        pick = int(least.argmax())
    return order


def core_set(rows: np.ndarray, k: int, start: int) -> np.ndarray:
    from skactiveml.pool import CoreSet

    labels = np.full(len(rows), np.nan)
    labels[start] = 0
    picked = CoreSet(random_state=0).query(rows, labels, batch_size=k - 1)
    return np.concatenate([[start], picked])


def deep_core(rows: np.ndarray, k: int, start: int) -> np.ndarray:
    """As DeepCore has it: all distances to all picks are kept, and their least is taken anew for every pick."""
    distances = np.empty((k, len(rows)), dtype=np.float32)
    free = np.ones(len(rows), dtype=bool)
    order = np.empty(k, dtype=np.int64)
    pick = start
    for i in range(k):
        order[i] = pick
        free[pick] = False
        distances[i] = np.linalg.norm(rows - rows[pick], axis=1)
        pick = int(np.where(free, distances[: i + 1].min(axis=0), -np.inf).argmax())
    return order


def small_text(rows: np.ndarray, k: int, start: int) -> np.ndarray:
    """With all rows as candidates: it takes positions among them for indices, which is the same only then."""
    from small_text.query_strategies.coresets import greedy_coreset

    everything = np.arange(len(rows))
    picked = greedy_coreset(rows, everything, np.array([start]), k - 1, distance_metric="euclidean", normalized=True)
    return np.concatenate([[start], picked])


def peak_mib() -> float:
    """Highest resident memory since it was last reset; NaN where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def timed(run: Callable[[], np.ndarray]) -> dict[str, Any]:
    """CPU and wall seconds of `run`, and the memory it adds at its highest point."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept from the run before would hide what this one takes
        reset.write_text("5")
    before, wall, cpu = peak_mib(), time.perf_counter(), time.process_time()
    order = run()
    seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    return {**seconds, "peak_mib": peak_mib() - before, "picks": len(order), "order": order}


def extrapolated(
    peer: Callable[[np.ndarray, int, int], np.ndarray], rows: np.ndarray, k: int, start: int, picks: int, power: int
) -> dict[str, Any]:
    """`peer` for half of `picks` and for all of them, and what k picks would take.

    Time is taken to grow as a · picks + b · picks²; with `power` 1 as picks alone, beyond what a first one costs.
    """
    if k <= picks:
        return timed(lambda: peer(rows, k, start)) | {"extrapolated_from": None}
    peer(rows[:1000], 3, 0)  # its import and first call are not part of the rate
    half = timed(lambda: peer(rows, picks // 2, start))
    full = timed(lambda: peer(rows, picks, start))
    for clock in ("cpu_s", "wall_s"):
        if power == 1:
            full[clock] += (full[clock] - half[clock]) / (picks - picks // 2) * (k - picks)
        else:
            per_pair = max(0.0, (full[clock] - 2 * half[clock]) / (picks**2 / 2))
            full[clock] = (full[clock] / picks - per_pair * picks) * k + per_pair * k**2
    return full | {"extrapolated_from": picks}


def without_screen(rows: np.ndarray, k: int) -> dict[str, Any]:
    supported = tithe.selection.screen.multiplies_bfloat16
    tithe.selection.screen.multiplies_bfloat16 = lambda: False
    try:
        return timed(lambda: k_center_greedy(rows, k).order)
    finally:
        tithe.selection.screen.multiplies_bfloat16 = supported


def compare(rows: np.ndarray, k: int, peer_picks: int, repeats: int) -> dict[str, dict[str, Any]]:
    import torch  # the screen is used only where somebody has imported it, as every trainer has

    torch.set_num_threads(1)
    for _ in range(2):  # the first products of a process cost extra
        k_center_greedy(rows[:5000], min(k, 400))
    runs = [timed(lambda: k_center_greedy(rows, k).order) for _ in range(repeats)]
    results = {"tithe": min(runs, key=lambda r: r["cpu_s"]) | {"peak_mib": max(r["peak_mib"] for r in runs)}}
    start = int(results["tithe"]["order"][0])
    results["tithe, float32 alone"] = min((without_screen(rows, k) for _ in range(repeats)), key=lambda r: r["cpu_s"])
    results["numpy loop"] = timed(lambda: numpy_loop(rows, k, start))
    results["DeepCore's algorithm"] = extrapolated(deep_core, rows, k, start, 8 * peer_picks, power=2)
    for module, name, peer, power in (
        ("skactiveml", "scikit-activeml CoreSet", core_set, 1),
        ("small_text", "small-text greedy_coreset", small_text, 2),
    ):
        if importlib.util.find_spec(module):
            results[name] = extrapolated(peer, rows, k, start, peer_picks, power)
        else:
            print(f'{name} is not installed and left out: pip install "tithe[bench]"')
    for result in results.values():
        order = result.pop("order")
        same = results["tithe"].setdefault("chosen", order)[: len(order)]
        result["same_picks"] = len(np.intersect1d(order, same)) / len(order)
        result["same_order"] = float((order == same).mean())
        result["times_slower"] = result["cpu_s"] / results["tithe"]["cpu_s"]
        result["radius"] = coverage_radius(rows, rows[order]) if len(order) == k else None
    del results["tithe"]["chosen"]
    return results


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """What `benchmarks/selection.py` shows: two sizes, the peers' picks beside ours."""
    rows = []
    for n in (5_000,) if quick else (20_000, 50_000):
        results = compare(clustered(n, 384, 0), n // 10, 40 if quick else 100, 1 if quick else 2)
        for name, peer in list(results.items())[1:]:
            rows.append(
                {
                    "work": "k-centre",
                    "size": f"{n // 1000}k / {n // 10}, 384 d",
                    "ours_cpu_s": results["tithe"]["cpu_s"],
                    "peer": name,
                    "peer_cpu_s": peer["cpu_s"],
                    "ratio": peer["times_slower"],
                    "agreement": f"{peer['same_order']:.2%} of {peer['picks']} picks, in order",
                    "extrapolated": bool(peer.get("extrapolated_from")),
                }
            )
    return rows


def show(results: dict[str, dict[str, Any]]) -> None:
    print(f"{'':26}{'CPU s':>9}{'ratio':>8}{'peak MiB':>10}{'same picks':>12}{'same order':>12}{'radius':>10}")
    for name, r in results.items():
        radius = "" if r["radius"] is None else f"{r['radius']:.5f}"
        print(
            f"{name:26}{r['cpu_s']:9.2f}{r['times_slower']:7.1f}x{r['peak_mib']:10.1f}"
            f"{r['same_picks']:12.2%}{r['same_order']:12.2%}{radius:>10}"
        )
        if r.get("extrapolated_from"):
            print(
                f"{'':4}EXTRAPOLATED from {r['extrapolated_from']} picks: seconds at their rate per pick; "
                "peak and picks are of those alone"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="k-centre against its peers, one thread")
    parser.add_argument("--n", type=int, default=50_000, help="rows")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the rows to pick")
    parser.add_argument("--embeddings", type=Path, help=".npy file of float[n, d] to use instead of a mixture")
    parser.add_argument("--peer-picks", type=int, default=100, help="picks that slow peers make, at least 4")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the kernel; the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="10,000 rows, 40 picks of slow peers, one repeat")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # BLAS reads these once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    if args.quick:
        args.n, args.peer_picks, args.repeats = min(args.n, 10_000), 40, 1
    if args.embeddings:
        rows = np.ascontiguousarray(np.load(args.embeddings)[: args.n], dtype=np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    else:
        rows = clustered(args.n, args.dimensions, args.seed)
    source = args.embeddings.name if args.embeddings else "mixture of Gaussians"
    print(f"{source}, {len(rows):,} x {rows.shape[1]} float32, {args.fraction:.0%} picked, one thread")
    k = max(1, round(args.fraction * len(rows)))
    results = compare(rows, k, args.peer_picks, args.repeats)
    show(results)
    if args.json:
        environment = {"python": platform.python_version(), "machine": platform.machine()}
        for name in ("numpy", "torch", "scikit-activeml", "small-text"):
            if importlib.util.find_spec(name.replace("scikit-activeml", "skactiveml").replace("-", "_")):
                environment[name] = importlib.metadata.version(name)
        data = {"source": source, "rows": len(rows), "dimensions": rows.shape[1], "fraction": args.fraction}
        args.json.write_text(json.dumps({"data": data, "results": results, "environment": environment}, indent=2))


if __name__ == "__main__":
    main()
