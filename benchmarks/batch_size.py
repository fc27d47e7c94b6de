"""The largest batch that fits under a limit of memory: found, against the truth and against Transformers.

    python benchmarks/batch_size.py --json batch_size.json

Each limit is one of address space (`ulimit -v`), so much above what a process has that is about to train a classifier
of MiniLM's shape on rows of 64 tokens. The truth is bisected with a process of its own for every batch. The peer is
`auto_find_batch_size`, which begins with a batch that fails and lowers it until one trains. With `--resident`, a limit
that nothing enforces is given to the search, and the highest resident memory of a process that trains on the batch
found is shown against it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time

import psutil
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

from tithe.evaluation import PeakMemory
from tithe.recipes.small_model import train_tokenizer
from tithe.trainers import ReliableTrainer, find_batch_size


TOKENS, AT_MOST = 64, 512
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}


def make(args, rows, cls=ReliableTrainer):
    model = BertForSequenceClassification(BertConfig(**SHAPE, vocab_size=30_522))
    return cls(model, args, train_dataset=rows, data_collator=DataCollatorWithPadding(train_tokenizer(["a b c"])))


def limit_addresses(mebibytes):
    """Allow this process so much more address space than it has."""
    import resource

    limit = psutil.Process().memory_info().vms + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def work(part, mebibytes, rows):
    """One measurement, in a process of its own; prints a number and ends."""
    row = Dataset.from_dict({"input_ids": [[5] * TOKENS], "attention_mask": [[1] * TOKENS], "label": [0]})
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no", logging_strategy="no"
        )
        if part == "resident":
            limit = psutil.Process().memory_info().rss + mebibytes * 2**20
            print(find_batch_size(make, args, row, at_most=AT_MOST, memory_limit=limit).rows, limit)
            return
        if part in ("ours", "peer", "trains"):
            limit_addresses(mebibytes)
        if part == "ours":
            print(find_batch_size(make, args, row, at_most=AT_MOST).rows)
            return
        args.gradient_accumulation_steps, args.max_steps = 2, 2
        args.per_device_train_batch_size, args.auto_find_batch_size = rows, part == "peer"
        trainer, memory = make(args, row.select([0] * 4 * rows), Trainer), PeakMemory()
        with memory.phase("train"):
            trainer.train()
        print(trainer._train_batch_size if part == "peer" else memory.to_dict()["train"]["peak_bytes"])


def ask(part, mebibytes, rows=AT_MOST):
    """The numbers that a process prints, None if it fails; and how long it took."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--part", part, "--mebibytes", str(mebibytes), "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return None, seconds
    last = done.stdout.strip().splitlines()[-1]
    return [int(number) for number in re.findall(r"\d+", last)], seconds


def bisect(mebibytes, near):
    """The most rows that train, to within 2 %, each try in a fresh process."""
    fits, fails = 0, None
    rows = near
    while fails is None or fails - fits > max(1, fits // 50):
        if ask("trains", mebibytes, rows)[0] is None:
            fails = rows
        else:
            fits = rows
        rows = (fits + fails) // 2 if fails is not None else 2 * fits
    return fits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=int, nargs="+", default=[500, 1000, 2000], help="MiB to train in")
    parser.add_argument("--resident", type=int, nargs="*", default=[1000], help="MiB that nothing enforces")
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--mebibytes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        work(options.part, options.mebibytes, options.rows)
        return
    found = []
    for limit in options.limits:
        (ours, seconds), (peer, peer_seconds) = ask("ours", limit), ask("peer", limit)
        true = bisect(limit, ours[0] if ours else 8)
        row = {"limit": limit, "true": true, "ours": ours and ours[0], "seconds": round(seconds, 1)}
        row |= {"peer": peer and peer[0], "peer_seconds": round(peer_seconds, 1)}
        row["share"], row["peer_share"] = (number and round(number / true, 3) for number in (row["ours"], row["peer"]))
        found.append(row)
        print(row, flush=True)
    for limit in options.resident:
        (rows, allowed), seconds = ask("resident", limit)
        (peak,), _ = ask("peak", limit, rows)
        (beyond,), _ = ask("peak", limit, round(rows / 0.75))
        row = {
            "resident": limit,
            "ours": rows,
            "peak": round(peak / allowed, 3),
            "peak_of_a_third_more": round(beyond / allowed, 3),
        }
        found.append(row | {"seconds": round(seconds, 1)})
        print(found[-1], flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
