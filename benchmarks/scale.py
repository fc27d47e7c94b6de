"""Selection at scale on one machine: k-centre over a million rows, and a pool scored by two processes.

    python benchmarks/scale.py picks
    python benchmarks/scale.py scoring

`picks`: rows of a mixture of Gaussians, L2-normalised, in a file on disk that is mapped into memory; one thread. Exact
greedy for a hundredth of the rows, greedy with slack for a tenth; and what slack costs in radius where both are quick.
`scoring`: a BERT of random weights reads a pool in one process and in two, a thread each; the wall time, from the
first batch to the last embedding gathered, is the least of several runs, which take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CHUNK = 50_000


def write_rows(path: Path, rows: int, dimensions: int) -> np.ndarray:
    """A mixture of Gaussians in a file, float32[rows, dimensions], mapped into memory."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, rows // 500), dimensions), dtype=np.float32)
    array = np.memmap(path, dtype=np.float32, mode="w+", shape=(rows, dimensions))
    for start in range(0, rows, _CHUNK):
        part = array[start : start + _CHUNK]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        part *= 0.8
        part += centres[rng.integers(len(centres), size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return array


def time_picks(rows: np.ndarray, k: int, slack: float) -> dict[str, Any]:
    from tithe.evaluation import PeakMemory
    from tithe.selection import k_center_greedy

    memory = PeakMemory()
    wall, cpu = time.perf_counter(), time.process_time()
    with memory.phase("picking"):
        found = k_center_greedy(rows, k, normalize=True, slack=slack)
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return {"rows": len(rows), "picks": k, "slack": slack, **seconds, "radius": found.radius, **memory.to_dict()}


def picks(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        few = write_rows(Path(folder) / "few", options.rows // 10, options.dimensions)
        for slack in (0.0, 0.02, 0.05, 0.1):
            print(json.dumps(time_picks(few, options.rows // 200, slack)), flush=True)
        many = write_rows(Path(folder) / "many", options.rows, options.dimensions)
        print(json.dumps(time_picks(many, options.rows // 100, 0.0)), flush=True)
        print(json.dumps(time_picks(many, options.rows // 10, options.slack)), flush=True)


def read_pool(options: argparse.Namespace) -> None:
    """What each process of `scoring` does; process 0 prints the seconds."""
    import torch
    from datasets import Dataset
    from transformers import BertConfig, BertForSequenceClassification, set_seed

    from tithe.recipes.processes import end_processes
    from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer

    set_seed(0)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    model = BertForSequenceClassification(BertConfig(vocab_size=1000, **sizes))
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 1000, rng.integers(16, 65)).tolist() for _ in range(options.pool)]
    pool = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    pool = pool.add_column("label", [0] * len(ids))
    args = RoundSelectionConfig(options.out, use_cpu=True, report_to="none", disable_tqdm=True, strategy="k_center")
    args.per_device_eval_batch_size = 32

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        padded = {
            name: torch.tensor([row[name] + [0] * (width - len(row[name])) for row in rows])
            for name in ("input_ids", "attention_mask")
        }
        return padded | {"labels": torch.tensor([row["label"] for row in rows])}

    trainer = RoundSelectionTrainer(model, args, data_collator=collate, train_dataset=pool)
    trainer.signals(pool.select(range(64)), {"embeddings"})
    trainer.accelerator.wait_for_everyone()
    start = time.perf_counter()
    found = trainer.signals(pool, {"embeddings"})
    if args.process_index == 0:
        seconds = time.perf_counter() - start
        chosen = float(np.abs(found["embeddings"]).sum(dtype=np.float64))
        print("read", json.dumps({"processes": args.world_size, "seconds": seconds, "sum": chosen}), flush=True)
    end_processes()


def scoring(options: argparse.Namespace) -> None:
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "HF_HUB_OFFLINE": "1"}
    least: dict[int, float] = {}
    for _ in range(options.repeats):
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                elastic = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--rdzv_backend", "c10d"]
                command = [sys.executable, *elastic, "--rdzv_endpoint", "localhost:0", __file__, "read"]
                command += ["--pool", str(options.pool), "--out", folder]
                done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("read "))
            found = json.loads(line.removeprefix("read "))
            assert found["processes"] == processes
            print(line, flush=True)
            least[processes] = min(least.get(processes, float("inf")), found["seconds"])
    print(f"two processes are {least[1] / least[2]:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("picks", "scoring", "read"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--slack", type=float, default=0.05)
    parser.add_argument("--pool", type=int, default=6_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", default="runs/scale", help=argparse.SUPPRESS)
    options = parser.parse_args()
    {"picks": picks, "scoring": scoring, "read": read_pool}[options.what](options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["picks"] and any(os.environ.get(name) != "1" for name in THREADS):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    main()
