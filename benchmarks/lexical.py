"""Lexical diversity and readability of a pool at one thread, beside lexicalrichness and textstat.

    python benchmarks/lexical.py
    python benchmarks/lexical.py --texts reviews.jsonl

The peers take one document at a time, and get a part of the pool: seconds are extrapolated, each document costing the
same.
lexicalrichness is given the words that we split, so that the measures are compared and not the splitting; its HD-D is
asked only for documents of 42 words or more. textstat's Flesch and Flesch-Kincaid are compared twice: "cold" is the
first call of a process, "warm" the second, when the syllables of words are known. Its own dictionary of syllables has
to be downloaded at first use; where that cannot be, it is left out. textstat counts syllables by its dictionary and we
by rule, so the agreement is a rank correlation; with its counter passed to ours the values are the same.
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

from tithe.selection.lexical import lexical_diversity
from tithe.selection.readability import readability
from tithe.selection.words import words_of


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
DRAWS = 42
SYLLABLES = ("ka", "ton", "ri", "vel", "mo", "sta", "li", "per", "dun", "cha", "beo", "nay")


def make_texts(count: int, words: int, seed: int = 0) -> list[str]:
    """Sentences of words made of syllables, drawn by Zipf's law."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array(["".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(8000)])
    shares = 1 / np.arange(1, len(vocabulary) + 1)
    texts = []
    for _ in range(count):
        drawn = vocabulary[rng.choice(len(vocabulary), rng.integers(words // 2, 2 * words), p=shares / shares.sum())]
        ends = np.where(np.arange(1, len(drawn) + 1) % 12 == 0, ". ", " ")
        texts.append("".join(np.char.add(drawn, ends)).strip() + ".")
    return texts


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = run()
    return time.process_time() - start, found


def rich(documents: list[list[str]]) -> np.ndarray:
    """TTR, MTLD and HD-D by lexicalrichness, float64[n, 3]."""
    from lexicalrichness import LexicalRichness

    found = []
    for words in documents:
        lex = LexicalRichness(words, preprocessor=None, tokenizer=None)
        hdd = lex.hdd(draws=DRAWS) if len(words) >= DRAWS else np.nan
        found.append((lex.ttr, lex.mtld(threshold=0.72), hdd))
    return np.array(found)


def diversity_line(texts: list[str], size: str, peer_documents: int) -> dict[str, Any]:
    ours_s, ours = min((seconds(lambda: lexical_diversity(texts)) for _ in range(3)), key=lambda timed: timed[0])
    documents = [words_of(text) for text in texts[:peer_documents]]
    rich(documents[:2])
    peer_s, theirs = seconds(lambda: rich(documents))
    difference = np.nanmax(np.abs(np.stack(ours, axis=1)[: len(theirs)] - theirs) / np.maximum(np.abs(theirs), 1))
    return line("TTR, MTLD, HD-D", size, ours_s, "lexicalrichness", peer_s, len(texts) / len(documents)) | {
        "agreement": f"values to {difference:.1e}"
    }


def readability_lines(texts: list[str], size: str, peer_documents: int) -> list[dict[str, Any]]:
    def both() -> tuple[np.ndarray, np.ndarray]:
        return readability(texts, "flesch_reading_ease"), readability(texts, "flesch_kincaid_grade")

    times = [seconds(both) for _ in range(2)]
    try:
        import textstat

        some = texts[:peer_documents]
        textstat.flesch_reading_ease(some[0])
        peer_s, theirs = seconds(
            lambda: [(textstat.flesch_reading_ease(t), textstat.flesch_kincaid_grade(t)) for t in some]
        )
    except Exception as error:  # whatever its download at first use ends with
        print(f"textstat is left out: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
        return []
    ranks = [np.argsort(np.argsort(values)) for values in (times[0][1][0][: len(some)], [t[0] for t in theirs])]
    agreement = f"Spearman {np.corrcoef(*ranks)[0, 1]:.3f}"
    return [
        line(f"Flesch and Flesch-Kincaid, {state}", size, ours_s, "textstat", peer_s, len(texts) / len(some))
        | {"agreement": agreement}
        for state, (ours_s, _) in zip(("cold", "warm"), times, strict=True)
    ]


def line(work: str, size: str, ours_s: float, peer: str, peer_s: float, times: float) -> dict[str, Any]:
    found = {"work": work, "size": size, "ours_cpu_s": ours_s, "peer": peer, "peer_cpu_s": peer_s * times}
    return found | {"ratio": peer_s * times / ours_s, "extrapolated": times > 1}


def measure(quick: bool = False, texts: list[str] | None = None) -> list[dict[str, Any]]:
    """One line per measure and peer, over short texts, and over long ones for HD-D."""
    lines: list[dict[str, Any]] = []
    count = 2_000 if quick else 10_000
    pools = {"short": make_texts(count, 20), "long": make_texts(count, 80, seed=1)} if texts is None else {"": texts}
    for name, pool in pools.items():
        size = f"{len(pool)} texts, mean {np.mean([len(t.split()) for t in pool]):.0f} words"
        if importlib.util.find_spec("lexicalrichness"):
            lines.append(diversity_line(pool, size, count // 20))
        else:
            print('lexicalrichness is not installed and left out: pip install "tithe[bench]"')
        if name != "long" and importlib.util.find_spec("textstat"):
            lines += readability_lines(pool, size, count // 10)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="lexical measures beside lexicalrichness and textstat, one thread")
    parser.add_argument("--texts", type=Path, help="JSON Lines file with a `text` in every row, instead of made ones")
    parser.add_argument("--quick", action="store_true", help="2,000 texts")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # BLAS reads these once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    texts = None
    if args.texts:
        texts = [json.loads(row)["text"] for row in args.texts.read_text(encoding="utf-8").splitlines()]
    results = measure(args.quick, texts)
    for row in results:
        rate = int(row["size"].split()[0]) / row["ours_cpu_s"]
        print(
            f"{row['work']}, {row['size']}: {row['ours_cpu_s']:.2f} s ({rate:,.0f} texts/s); {row['peer']} "
            f"{'~' if row['extrapolated'] else ''}{row['peer_cpu_s']:.2f} s, {row['ratio']:.1f} times as long; "
            f"{row['agreement']}"
        )
    if args.output:
        args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
