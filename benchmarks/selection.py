"""All of selection beside its named peers, in one run at one thread: seconds, ratios, and how far the results agree.

    python benchmarks/selection.py --quick
    python benchmarks/selection.py --output selection.json
    python benchmarks/selection.py --only badge facility

Each part is a benchmark of its own (`python benchmarks/badge.py`, …) and says there what it compares. A peer that is
not installed is left out: pip install "tithe[bench]".
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
PEERS = ("apricot-select", "lexicalrichness", "lexical-diversity", "scikit-activeml", "scikit-learn", "textstat")


def k_centre(quick: bool) -> list[dict[str, Any]]:
    return importlib.import_module("kcenter").measure(quick)


def facility_location(quick: bool) -> list[dict[str, Any]]:
    part, n = importlib.import_module("facility"), 4_000 if quick else 20_000
    return part.measure(part.clustered(n, 384, 0), n // 10, repeats=1 if quick else 3)


def badge(quick: bool) -> list[dict[str, Any]]:
    return importlib.import_module("badge").measure(quick)


def aflite(quick: bool) -> list[dict[str, Any]]:
    part = importlib.import_module("aflite")
    return part.measure(4_000, peer_partitions=8) if quick else part.measure()


def lexical(quick: bool) -> list[dict[str, Any]]:
    return importlib.import_module("lexical").measure(quick)


def language_scores(quick: bool) -> list[dict[str, Any]]:
    part, found = importlib.import_module("language_scores"), []
    for kind, texts in (("causal", 60 if quick else 300), ("masked", 10 if quick else 40)):
        found += part.measure(kind, texts, vocabulary=32_000, layers=6, width=256, batch_tokens=None, repeats=1)
    return found


PARTS: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "kcenter": k_centre,
    "facility": facility_location,
    "badge": badge,
    "aflite": aflite,
    "lexical": lexical,
    "language_scores": language_scores,
}


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'work':34}{'size':>22}{'ours, CPU s':>13}{'peer':>32}{'CPU s':>10}{'ratio':>9}  agreement")
    for row in (row for row in rows if row["peer_cpu_s"] is not None):
        seconds = f"{'~' if row['extrapolated'] else ''}{row['peer_cpu_s']:.2f}"
        agreement = row["agreement"] if isinstance(row["agreement"], str) else f"{row['agreement']:.6g}"
        print(
            f"{row['work']:34}{row['size']:>22}{row['ours_cpu_s']:13.2f}{row['peer']:>32}{seconds:>10}"
            f"{row['ratio']:8.1f}x  {agreement}"
        )
    if any(row["extrapolated"] for row in rows):
        print("~ extrapolated from a part of the work; the part's own output says from how much")


def versions() -> dict[str, str]:
    """Of Python, NumPy, and those peers that are installed."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("numpy", *PEERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="selection beside its peers, one thread")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--output", type=Path, help="file to write the rows to, as JSON")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # BLAS reads these once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    rows = []
    for part in args.only:
        print(f"{part} …", flush=True)
        rows += PARTS[part](args.quick)
    show(rows)
    if args.output:
        args.output.write_text(json.dumps({"rows": rows, "environment": versions()}, indent=2))


if __name__ == "__main__":
    main()
