"""What a round of k-centre costs on pools and clusters larger than any at hand, from rates measured on small ones.

    python benchmarks/simulate_scale.py
    python benchmarks/simulate_scale.py --reading 4000 --product 3e13 --bandwidth 2.5e10

The defaults are of one thread of the machine in RESULTS.md (`benchmarks/scale.py`, `benchmarks/kcenter.py`) and a
network of 10 Gbit/s; for a GPU give its own. A pool of n rows of d values is read by P processes, each of which keeps
its n / P rows; k picks come in blocks:

    reading    n / (P · reading)
    choosing   2 · n · k · d / (P · product) + k · pick + passes · (latency · log2(P) + bytes of a pass / bandwidth)
    memory     4 · d · n / P, on disk above 1 GiB, and beside it 36 bytes a row for keys and distances
    moved      passes · (what P blocks have in values, and one block in vectors), and the scores, to each process
"""

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Of one process.

    Attributes:
        reading: rows a second.
        product: floating-point operations a second of distances to picks.
        pick: seconds of a pick inside a block.
        picks_a_pass: picks that a block of 512 gives.
        bandwidth: bytes a second into a process.
        latency: seconds of a collective between two processes.
    """

    reading: float
    product: float
    pick: float
    picks_a_pass: float
    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Cost:
    """Seconds; and bytes of a process."""

    reading: float
    choosing: float
    memory: float
    moved: float


def cost(rows: int, picks: int, processes: int, rates: Rates, dimensions: int = 384, block: int = 512) -> Cost:
    """Of one round."""
    passes = math.ceil(picks / rates.picks_a_pass)
    told = min(block, max(16, math.ceil(4 * block / processes)))  # rows that each tells of
    values = 24.0 * told * processes  # key, distance, bonus and squared norm
    vectors = 4.0 * block * (dimensions + 1)
    alone = processes == 1
    moved = 0.0 if alone else passes * (values + vectors) + 16.0 * rows  # ids and scores
    waiting = 0.0 if alone else 3 * passes * rates.latency * math.log2(processes) + moved / rates.bandwidth
    product = 2.0 * rows * picks * dimensions / (processes * rates.product)
    kept = (4.0 * dimensions + 36.0) * rows / processes
    return Cost(rows / (processes * rates.reading), product + picks * rates.pick + waiting, kept, moved)


def in_words(seconds: float) -> str:
    """In the largest unit that gives a number of 1 or more."""
    for size, unit in ((86400 * 365, "years"), (86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def size(count: float) -> str:
    for exponent, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**exponent:
            return f"{count / 1024**exponent:.3g} {unit}"
    return f"{count:.0f} B"


def table(rates: Rates, share: float) -> str:
    lines = ["| rows | processes | reading | choosing | memory of each | moved to each |", "|---|---|---|---|---|---|"]
    for rows, name in ((10**6, "1M"), (10**7, "10M"), (10**8, "100M"), (10**9, "1B")):
        for processes in (1, 8, 64, 1024):
            found = cost(rows, round(share * rows), processes, rates)
            cells = (in_words(found.reading), in_words(found.choosing), size(found.memory), size(found.moved))
            lines.append(f"| {name} | {processes:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.01, help="Of the rows that are picked.")
    parser.add_argument("--reading", type=float, default=READING)
    parser.add_argument("--product", type=float, default=PRODUCT)
    parser.add_argument("--pick", type=float, default=PICK)
    parser.add_argument("--picks_a_pass", type=float, default=PICKS_A_PASS)
    parser.add_argument("--bandwidth", type=float, default=1.25e9)
    parser.add_argument("--latency", type=float, default=5e-5)
    options = vars(parser.parse_args())
    print(table(share=options.pop("share"), rates=Rates(**options)))


# One thread with AVX512-BF16; a BERT of 4 layers × 256 over 16 to 64 tokens.
READING, PRODUCT, PICK, PICKS_A_PASS = 260.0, 8e10, 1.5e-5, 240.0


if __name__ == "__main__":
    main()
