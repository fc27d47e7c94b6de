"""What the tests of distillation in several layouts run: `python … distillation_worker.py SETTINGS.json`.

SETTINGS holds a list of runs, worked off one after the other in one process group: starting processes, and DeepSpeed
in them, costs more than all the training here. Every run leaves its losses, a digest of each process's weights, and
from process 0 the final model.
"""

import gc
import hashlib
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import distilling as tiny
import torch
from killing import Kill, die
from transformers import AutoTokenizer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from tithe.models import factorize_embeddings
from tithe.recipes.processes import end_processes
from tithe.trainers import DistillationTrainer, last_finished_checkpoint, teacher_cache


class Reads:
    """Counts what a teacher reads, and dies before one read too many."""

    def __init__(self, trainer, last):
        self.count, self.last = 0, last
        trainer._teaching.targets.teachers[0].model.register_forward_pre_hook(self)

    def __call__(self, *_):
        if self.count == self.last:
            die()
        self.count += 1


def whole(model):
    """Inside, the parameters are there under ZeRO-3 too."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(model.parameters()))


def train(run):
    out, task = Path(run["output_dir"]), run["task"]
    out.mkdir(parents=True, exist_ok=True)
    teacher = run.get("teacher") or tiny.make_model(task, seed=1, width=32)  # before the arguments: ZeRO-3 cuts it up
    student = tiny.make_model(task)
    args = tiny.arguments(out, **run["args"])
    if "student" in run:
        student = type(student).from_pretrained(run["student"])
    partitioned = is_deepspeed_zero3_enabled() and all(p.numel() == 0 for p in student.parameters())
    if "rank" in run:
        factorize_embeddings(student, run["rank"])
    trainer = DistillationTrainer(
        student,
        args,
        data_collator=tiny.collate,
        train_dataset=tiny.make_rows(task, run.get("rows", 24)),
        teachers=teacher,
        processing_class=AutoTokenizer.from_pretrained(teacher) if isinstance(teacher, str) else None,
        callbacks=[Kill(run["kill_at_step"])] if "kill_at_step" in run else None,
    )
    reads = Reads(trainer, run.get("kill_at_read"))
    last = last_finished_checkpoint(out)
    trainer.train(str(last) if last else None)
    finish(trainer, out, {"world": args.world_size, "reads": reads.count, "partitioned": partitioned})


def finish(trainer, out, facts):
    """All that the tests look at."""
    batch = tiny.collate([trainer.train_dataset[i] for i in range(4)])
    trainer.model_wrapped.eval()
    with torch.no_grad():
        logits = trainer.model_wrapped(**batch).logits
    with whole(trainer.model):
        digest = hashlib.sha256(tiny.weights(trainer.model).numpy().tobytes()).hexdigest()
    (out / f"weights-{trainer.args.process_index}.txt").write_text(digest)
    trainer.save_model(str(out / "final"))
    if trainer.is_world_process_zero():
        torch.save(logits, out / "logits.pt")
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        facts |= {"log": log, "distributed_type": str(trainer.accelerator.distributed_type)}
        (out / "facts.json").write_text(json.dumps(facts))


def main(settings):
    with patch.object(teacher_cache, "_BATCHES_A_SHARD", 2):  # several shards of so few rows
        for run in settings["runs"]:
            train(run)
            gc.collect()  # a DeepSpeed engine is held by cycles


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    end_processes()
