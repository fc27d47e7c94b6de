"""Distilling a tagger beside its named peers, in one run at one thread, and what the trainer adds to its steps.

    python benchmarks/distillation.py --quick
    python benchmarks/distillation.py --output distillation.json
    python benchmarks/distillation.py --data train.conll

1. Whole runs of `--epochs` epochs: teacher of MiniLM's shape (6 layers, 384 wide), student of 4 layers, 128 wide, both
   over 30,522 tokens. The cost does not depend on the weights, so both are random. Every contender has the same rows,
   AdamW (fused), linear schedule, clipping, and loss: `SOFT · T² · KL + HARD · CE` over the labelled tokens. To reach,
   at 5 epochs: 2.3 times less than TextBrewer with its own cache on, 5 times less than the teacher on the fly, both
   padded to a fixed length as NER examples do. What dynamic padding alone gives the peers is shown as well.
2. A step of `DistillationTrainer` with a live teacher, collating included, against a bare one of teacher forward and
   student step on the same batch, collated beforehand, in turns; the median of the ratios. To reach: 3 % more at most.

CPU seconds are of everything from two models to a trained student, writing the teacher's cache included; a contender
is first run on two batches, which loads what is loaded lazily. Each runs in a process of its own, turn by turn, and
the median of its turns counts. "loss" is the student's cross-entropy on the training rows afterwards, ours and the
peer's.
"""

import argparse
import importlib.metadata
import importlib.util
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

import torch
from datasets import Dataset
from distillation_contenders import (
    BATCH,
    CONTENDERS,
    HARD,
    LOSS,
    RATE,
    SETTINGS,
    SOFT,
    collate,
    from_conll,
    generated,
    make_student,
    make_teacher,
    soft_loss,
)
from torch.nn import functional as F
from transformers import TrainerCallback
from transformers import get_linear_schedule_with_warmup as linear_schedule

from tithe.evaluation import environment
from tithe.trainers import DistillationConfig, DistillationTrainer


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PEER = 'pip install "textbrewer==0.2.1.post1"'
OURS = ("ours", "ours, bfloat16 teacher", "ours, not grouped by length")


def contend(name: str, rows: Dataset, epochs: int) -> dict[str, Any]:
    """One contender in this process: its CPU seconds, and the loss of the student that it trained."""
    train = CONTENDERS[name]
    train(make_student(rows), make_teacher(rows), rows.select(range(2 * BATCH)), 2)
    student, teacher = make_student(rows), make_teacher(rows)
    start = time.process_time()
    train(student, teacher, rows, epochs)
    seconds = time.process_time() - start
    total = items = 0.0
    with torch.no_grad():
        for start_row in range(0, len(rows), BATCH):
            batch = collate([rows[i] for i in range(start_row, min(start_row + BATCH, len(rows)))])
            count = int((batch["labels"] != -100).sum())
            total, items = total + student.eval()(**batch).loss.item() * count, items + count
    return {"cpu_s": seconds, "loss": total / items, "parameters": [m.num_parameters() for m in (teacher, student)]}


class Beside(TrainerCallback):
    """CPU seconds of each step of the trainer but the first, and of a bare one on the same batch right after it."""

    def __init__(self, bare: Callable[[int], float]) -> None:
        self.bare, self.ours, self.theirs = bare, list[float](), list[float]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now, seconds = time.process_time(), self.bare(state.global_step - 1)
        if state.global_step > 1:
            self.ours.append(now - self.since)
            self.theirs.append(seconds)
        self.since = time.process_time()


def overhead(rows: Dataset, epochs: int) -> dict[str, list[float]]:
    """CPU seconds of the trainer's steps, and of bare ones in between: of one moment, however busy the machine is."""
    rows, teacher = rows.select(range(len(rows) // BATCH * BATCH)), make_teacher(rows)
    batches = [collate([rows[i] for i in range(start, start + BATCH)]) for start in range(0, len(rows), BATCH)]
    student, steps = make_student(rows).train(), epochs * len(batches)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    schedule = linear_schedule(optimizer, 0, steps)

    def bare(step: int) -> float:
        start, batch = time.process_time(), batches[step % len(batches)]
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = student(**inputs).logits
        with torch.no_grad():
            known = teacher(**inputs).logits
        hard = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        (HARD * hard + SOFT * soft_loss(logits, known, batch["labels"])).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return time.process_time() - start

    args = DistillationConfig(
        tempfile.mkdtemp(),
        num_train_epochs=epochs,
        train_sampling_strategy="sequential",
        cache_teacher=False,
        **SETTINGS,
        **LOSS,
    )
    trainer = DistillationTrainer(
        make_student(rows), args, data_collator=collate, train_dataset=rows, teachers=teacher
    )
    trainer.add_callback(beside := Beside(bare))
    trainer.train()
    return {"ours": beside.ours, "bare": beside.theirs}


def apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A contender, or the overhead, in a fresh process of one thread."""
    command = [sys.executable, __file__, "--contender", name]
    for option in ("rows", "epochs", "turns", "data"):
        if getattr(options, option) is not None:
            command += [f"--{option}", str(getattr(options, option))]
    with tempfile.TemporaryDirectory() as folder:
        variables = os.environ | dict.fromkeys(THREADS, "1") | {"TMPDIR": folder}
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each pair of ours and a peer."""
    names = list(CONTENDERS)
    if importlib.util.find_spec("textbrewer") is None:
        print(f"TextBrewer is not installed and left out: {PEER}")
        names = [name for name in names if not name.startswith("TextBrewer")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(options.repeats):
        for name in names:
            found[name].append(apart(name, options))
            print(f"turn {turn + 1}: {name:32}{found[name][-1]['cpu_s']:8.1f} CPU s", flush=True)
    seconds = {name: statistics.median(run["cpu_s"] for run in runs) for name, runs in found.items()}
    teacher, student = (f"{count / 1e6:.1f}M" for count in found["ours"][0]["parameters"])
    return [
        {
            "work": name,
            "size": f"{teacher} to {student}, {options.epochs} x {options.rows}",
            "ours_cpu_s": seconds[name],
            "peer": peer,
            "peer_cpu_s": seconds[peer],
            "ratio": seconds[peer] / seconds[name],
            "agreement": f"loss {found[name][0]['loss']:.3f}, {found[peer][0]['loss']:.3f}",
            "extrapolated": False,
            "runs": {"ours": [r["cpu_s"] for r in found[name]], "peer": [r["cpu_s"] for r in found[peer]]},
        }
        for name in OURS
        for peer in names
        if peer not in OURS
    ]


def show(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'work':29}{'size':>26}{'ours, CPU s':>13}{'peer':>29}{'CPU s':>8}{'ratio':>8}  agreement")
    for row in rows:
        print(
            f"{row['work']:29}{row['size']:>26}{row['ours_cpu_s']:13.1f}{row['peer']:>29}{row['peer_cpu_s']:8.1f}"
            f"{row['ratio']:7.2f}x  {row['agreement']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CoNLL file with real sentences (needs tithe[bench]); default: generated rows")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="processes a contender")
    parser.add_argument("--turns", type=int, default=2, help="epochs of the trainer beside bare steps")
    parser.add_argument("--quick", action="store_true", help="fewer rows, one process a contender")
    parser.add_argument("--output", type=Path, help="file to write the rows to, as JSON")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats, options.turns = 256, 1, 2
    if options.contender:
        torch.set_num_threads(1)
        rows = from_conll(options.data, options.rows) if options.data else generated(options.rows)
        if options.contender == "overhead":
            print(json.dumps(overhead(rows, options.turns)))
        else:
            print(json.dumps(contend(options.contender, rows, options.epochs)))
        return
    rows = measure(options)
    show(rows)
    steps = apart("overhead", options)
    more = statistics.median(ours / bare for ours, bare in zip(steps["ours"], steps["bare"], strict=True)) - 1
    print(f"\na training step: {more:+.1%} beside teacher forward and student step alone (at most: +3 %)")
    if options.output:
        versions = environment()
        if importlib.util.find_spec("textbrewer"):
            versions["textbrewer"] = importlib.metadata.version("textbrewer")
        report = {"rows": rows, "overhead": {"ratio": 1 + more, **steps}, "environment": versions}
        options.output.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
