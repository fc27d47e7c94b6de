"""Searches at one thread beside their peers, in one run: BM25 and rank_bm25, exact dense search and faiss.

    pip install rank-bm25 bm25s PyStemmer faiss-cpu
    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --quick

Both sides of a comparison read the same words or vectors, and take turns; the median of the turns' ratios of queries a
CPU second counts. Passages for BM25 are words drawn from Zipf's law; queries are too, without the 100 most frequent
words, as a list of stop words leaves them. rank_bm25 is given tokens, BM25Retriever texts: it tokenises inside the
measured time. Vectors are uniform on the sphere, where the nearest are hardest to tell from the others. To reach: 500
times rank_bm25, and 1.5 times faiss's IndexFlatIP with the same 10 best.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tithe.evaluation import environment, write_results


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
WORDS, STOP_WORDS, PASSAGE, QUERY, K = 50_000, 100, 60, 8, 10
BM25_AT_LEAST, DENSE_AT_LEAST = 500, 1.5


def zipf_texts(count: int, length: int, rng: np.random.Generator, first: int = 0) -> list[list[str]]:
    """Texts of `length` words `w0`, `w1`, … with probabilities as 1 / (1 + rank), none of a rank below `first`."""
    shares = 1 / (1 + np.arange(WORDS, dtype=np.float64))
    shares[:first] = 0
    ranks = rng.choice(WORDS, (count, length), p=shares / shares.sum())
    return [[f"w{rank}" for rank in row] for row in ranks.tolist()]


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = run()
    return time.process_time() - start, found


def measure_bm25(options: argparse.Namespace) -> dict[str, Any]:
    from rank_bm25 import BM25Okapi

    from tithe.models import BM25Retriever, Passage

    rng = np.random.default_rng(options.seed)
    passages = zipf_texts(options.passages, PASSAGE, rng)
    queries = zipf_texts(options.queries, QUERY, rng, first=STOP_WORDS)
    ours = BM25Retriever(language=None, stopwords=False, progress=False)
    index_s, _ = seconds(lambda: ours.index([Passage(str(i), " ".join(text)) for i, text in enumerate(passages)]))
    peer_index_s, peer = seconds(lambda: BM25Okapi(passages))
    texts, rows = [" ".join(query) for query in queries], np.arange(len(passages))
    ours.search(texts[:2], K)
    ratios, rates, agreement = [], [], []
    for turn in range(options.turns):
        asked = [queries[(turn * options.peer_queries + i) % len(queries)] for i in range(options.peer_queries)]
        ours_s, hits = seconds(lambda: ours.search(texts, K))
        peer_s, theirs = seconds(lambda asked=asked: [peer.get_top_n(query, rows, K) for query in asked])
        rates.append((len(texts) / ours_s, len(asked) / peer_s))
        ratios.append(rates[-1][0] / rates[-1][1])
        first = {" ".join(query): found[0] for query, found in zip(asked, theirs, strict=True)}
        agreement += [first[text] == row[0] for text, row in zip(texts, hits.rows, strict=True) if text in first]
    return {
        "work": f"BM25, {len(passages):,} passages",
        "peer": "rank_bm25 BM25Okapi",
        "ours_queries_per_cpu_s": statistics.median(rate for rate, _ in rates),
        "peer_queries_per_cpu_s": statistics.median(rate for _, rate in rates),
        "ratio": statistics.median(ratios),
        "at_least": BM25_AT_LEAST,
        "agreement": float(np.mean(agreement)),  # of the best passage: the peer's idf is another
        "index_cpu_s": index_s,
        "peer_index_cpu_s": peer_index_s,
    }


def unit_rows(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure_dense(options: argparse.Namespace) -> dict[str, Any]:
    import faiss

    from tithe.models.dense_search import ExactSearch

    rng = np.random.default_rng(options.seed)
    rows, queries = (unit_rows(count, options.width, rng) for count in (options.vectors, options.dense_queries))
    index_s, ours = seconds(lambda: ExactSearch(rows))
    peer = faiss.IndexFlatIP(options.width)
    peer_index_s, _ = seconds(lambda: peer.add(rows))
    ours.search(queries[:64], K), peer.search(queries[:64], K)
    ratios, rates, agreement = [], [], []
    for _ in range(options.turns):
        ours_s, hits = seconds(lambda: ours.search(queries, K))
        peer_s, (_, theirs) = seconds(lambda: peer.search(queries, K))
        rates.append((len(queries) / ours_s, len(queries) / peer_s))
        ratios.append(peer_s / ours_s)
        agreement.append((hits.rows == theirs).mean())
    return {
        "work": f"exact dense, {options.vectors:,} x {options.width}",
        "peer": "faiss IndexFlatIP",
        "ours_queries_per_cpu_s": statistics.median(rate for rate, _ in rates),
        "peer_queries_per_cpu_s": statistics.median(rate for _, rate in rates),
        "ratio": statistics.median(ratios),
        "at_least": DENSE_AT_LEAST,
        "agreement": float(np.mean(agreement)),  # of the 10 best, place by place
        "index_cpu_s": index_s,
        "peer_index_cpu_s": peer_index_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000, help="for BM25")
    parser.add_argument("--queries", type=int, default=1000, help="a turn, for BM25Retriever")
    parser.add_argument("--peer_queries", type=int, default=6, help="a turn, of the same, for rank_bm25")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--dense_queries", type=int, default=1024, help="a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20,000 passages, three turns")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # read once, when the libraries are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    if options.quick:
        options.passages, options.turns = 20_000, 3
    rows = [measure_bm25(options), measure_dense(options)]
    print(f"{'work':30}{'ours, queries/CPU s':>21}{'peer':>22}{'the same':>15}{'ratio':>9}{'wanted':>10}{'agree':>8}")
    for row in rows:
        print(
            f"{row['work']:30}{row['ours_queries_per_cpu_s']:21,.0f}{row['peer']:>22}"
            f"{row['peer_queries_per_cpu_s']:15,.1f}{row['ratio']:9,.2f}{row['at_least']:10}{row['agreement']:8.1%}"
        )
    if options.json:
        write_results(options.json, {"rows": rows, "environment": environment()})


if __name__ == "__main__":
    main()
