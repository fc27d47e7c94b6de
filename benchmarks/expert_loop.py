"""An iteration of the expert loop beside small-text's, and the queries of small-text and scikit-activeml, in one run.

    python benchmarks/expert_loop.py --quick
    python benchmarks/expert_loop.py --data train.jsonl --output loop.json

1. The same pool, first labels, model, number of labels and acquisition (least margin) in each contender, at one
   thread, each in a process of its own: an iteration reads the pool, asks, and trains anew from the initial weights.
   small-text trains epochs of as many rows as are labelled, ours of as many as will be: both train within half an
   epoch of `--draws` rows. small-text pads every row to `--length`; "cut" is the same, each batch cut to its longest
   row by us, which it has no switch for. Its query covers rows that have a label already, and it keeps a tenth of the
   labels from training to choose its best epoch by: both are part of what an iteration of it costs. To reach: 3 times
   less for small-text's own.
2. From one model that small-text has trained: the rows that it asks for and those that ours asks for, of the same
   rows; and from a logistic regression on that model's embeddings those of scikit-activeml and ours. Shared: of 100
   queries, those that both ask for. "seconds" is the query alone, in CPU seconds at one thread; for small-text it
   includes reading the pool, for scikit-activeml nothing but choosing.

BADGE is left out: its picks are random. `benchmarks/badge.py` times ours.

Without `--data` (JSONL with `text` and `label`, a number) rows are random tokens as long as short texts are.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from loop_contenders import BATCH, CONTENDERS, first_rows, learner, make_rows, model_folder
from numpy.typing import NDArray
from transformers import AutoTokenizer, DataCollatorWithPadding

from tithe.evaluation import environment
from tithe.models import read_signals
from tithe.selection import Pool, get_strategy


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ASKED = 100
PEERS = ("small-text", "scikit-activeml")


def compare_queries(rows: Dataset, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row an acquisition and peer: how many of the rows asked for are the same, and the seconds of both."""
    import small_text
    from sklearn.linear_model import LogisticRegression

    labels, labelled = np.asarray(rows["label"]), first_rows(rows, options)
    free = np.setdiff1d(np.arange(len(rows)), labelled)
    asker = learner(rows, options, small_text.BreakingTies())
    asker._clf_factory.kwargs["num_epochs"] = max(1, round(options.draws / options.initial))
    asker.initialize_data(labelled, labels[labelled])
    model, clf = asker.classifier.model, asker.classifier
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(model_folder()))
    lengths = [len(row) for row in rows["input_ids"]]
    needs = {"probabilities", "embeddings"}
    start = time.process_time()
    read = read_signals(model, rows.remove_columns("label"), needs, collate=collate, lengths=lengths, batch_size=BATCH)
    reading = time.process_time() - start
    read["embeddings"] /= np.linalg.norm(
        read["embeddings"], axis=1, keepdims=True
    )  # small-text does so, ours need not
    found = []
    for name, peer in (
        ("margin", small_text.BreakingTies()),
        ("least_confidence", small_text.LeastConfidence()),
        ("entropy", small_text.PredictionEntropy()),
        ("coreset", small_text.GreedyCoreset()),
    ):
        given = {"embeddings": read["embeddings"][np.r_[free, labelled]]} if name == "coreset" else {}
        start = time.process_time()
        theirs = peer.query(clf, asker.dataset, free, labelled, labels[labelled], n=ASKED, **given)
        middle = time.process_time()
        picks = _ours(name, free, labelled, read)
        seconds = time.process_time() - middle + (0 if given else reading)
        found.append(_row(name, PEERS[0], picks, theirs, seconds, middle - start))

    embeddings = read["embeddings"]
    probe = LogisticRegression(C=20, max_iter=1000).fit(embeddings[labelled], labels[labelled])
    linear = {"probabilities": probe.predict_proba(embeddings), "embeddings": embeddings}
    given_labels = np.full(len(rows), np.nan)
    given_labels[labelled] = labels[labelled]
    for name, ask in _skactiveml(probe, embeddings, given_labels, free).items():
        start = time.process_time()
        theirs = ask()
        middle = time.process_time()
        picks = _ours(name, free, labelled, linear)
        found.append(_row(name, PEERS[1], picks, theirs, time.process_time() - middle, middle - start))
    return found


def _ours(name: str, free: NDArray[Any], labelled: NDArray[Any], read: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    pool = Pool(
        ids=free,
        selected=np.sort(labelled),
        probabilities=read["probabilities"][free],
        embeddings=read["embeddings"][free],
        selected_embeddings=read["embeddings"][np.sort(labelled)],
    )
    return get_strategy(name).select(pool, ASKED, np.random.default_rng(0)).indices


def _skactiveml(probe: Any, rows: NDArray[Any], labels: NDArray[Any], free: NDArray[Any]) -> dict[str, Callable]:
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import CoreSet, UncertaintySampling

    clf = SklearnClassifier(type(probe)(**probe.get_params()), classes=probe.classes_).fit(rows, labels)

    def uncertainty(method: str) -> Callable[[], Any]:
        asking = UncertaintySampling(method=method, random_state=0)
        return lambda: asking.query(rows, labels, clf, fit_clf=False, candidates=free, batch_size=ASKED)

    return {
        "margin": uncertainty("margin_sampling"),
        "least_confidence": uncertainty("least_confident"),
        "entropy": uncertainty("entropy"),
        "coreset": lambda: CoreSet(random_state=0).query(rows, labels, candidates=free, batch_size=ASKED),
    }


def _row(name: str, peer: str, ours: Any, theirs: Any, seconds: float, peer_seconds: float) -> dict[str, Any]:
    shared = len(set(np.asarray(ours).tolist()) & set(np.asarray(theirs).tolist()))
    return {"acquisition": name, "peer": peer, "shared": shared, "ours_cpu_s": seconds, "peer_cpu_s": peer_seconds}


# The run


def apart(what: str, options: argparse.Namespace) -> Any:
    """A contender, or the comparison of queries, in a fresh process of one thread."""
    command = [sys.executable, __file__, "--contender", what]
    for name in ("rows", "length", "initial", "query", "iterations", "draws", "data"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    with tempfile.TemporaryDirectory() as folder:
        variables = os.environ | dict.fromkeys(THREADS, "1") | {"TMPDIR": folder, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a contender: medians over its iterations, training per 1,000 rows."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repeats):
        for name in CONTENDERS:
            found[name] += apart(name, options)
    rows = []
    for name, parts in found.items():
        asking = statistics.median(part["asking"] for part in parts)
        training = 1000 * statistics.median(part["training"] / part["rows"] for part in parts)
        whole = asking + training * options.draws / 1000
        rows.append({"contender": name, "asking": asking, "training_1000": training, "iteration": whole})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=os.path.abspath, help="JSONL with `text` and `label`; default: random tokens")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--length", type=int, default=64, help="longest row, to which small-text pads")
    parser.add_argument("--initial", type=int, default=300)
    parser.add_argument("--query", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1000, help="rows trained in an iteration")
    parser.add_argument("--repeats", type=int, default=1, help="processes a contender")
    parser.add_argument("--quick", action="store_true", help="fewer rows, one process a contender")
    parser.add_argument("--output", type=Path, help="file to write the rows to, as JSON")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.draws, options.iterations, options.repeats = 800, 500, 1, 1
    if options.contender:
        torch.set_num_threads(1)
        rows = make_rows(options)
        run = compare_queries if options.contender == "queries" else CONTENDERS[options.contender]
        print(json.dumps(run(rows, options)))
        return
    loops, queries = measure(options), apart("queries", options)
    first = loops[0]["iteration"]
    print(f"{'contender':18}{'asking, CPU s':>15}{'training 1,000 rows':>21}{'iteration':>11}{'beside ours':>13}")
    for row in loops:
        ratio = f"{row['iteration'] / first:.2f}x"
        print(
            f"{row['contender']:18}{row['asking']:15.1f}{row['training_1000']:21.1f}{row['iteration']:11.1f}{ratio:>13}"
        )
    print(f"\n{'acquisition':18}{'peer':17}{'shared':>8}{'ours, CPU s':>13}{'peer, CPU s':>13}")
    for row in queries:
        print(
            f"{row['acquisition']:18}{row['peer']:17}{row['shared']:4}/{ASKED}{row['ours_cpu_s']:13.3f}"
            f"{row['peer_cpu_s']:13.3f}"
        )
    if options.output:
        versions = environment() | {peer: importlib.metadata.version(peer) for peer in PEERS}
        report = {"iterations": loops, "queries": queries, "environment": versions}
        options.output.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
