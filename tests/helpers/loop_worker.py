"""What the tests of the expert loop in several processes run: `python … loop_worker.py SETTINGS.json`."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import selection_worker as worker
import tiny
import torch

from tithe.recipes.processes import end_processes
from tithe.trainers import (
    ColumnOracle,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    LabelsWanted,
    last_finished_checkpoint,
)


class Absent(ColumnOracle):
    """Answers a query only once a file with its number is there, and makes that file when it does not."""

    def __init__(self, labels, folder):
        super().__init__(labels)
        self.folder = folder

    def label(self, query):
        mark = self.folder / f"asked-{query.iteration}"
        if not mark.exists():
            mark.touch()
            raise LabelsWanted(f"labels for iteration {query.iteration}")
        return super().label(query)


def main(settings):
    out = Path(settings["output_dir"])
    args = ExpertLoopConfig(**settings["args"], output_dir=str(out), use_cpu=True, report_to="none")
    pool = tiny.make_pool(64)
    trainer = ExpertLoopTrainer(
        tiny.make_model(**settings.get("model", {})),
        args,
        data_collator=tiny.collate,
        train_dataset=pool,
        eval_dataset=tiny.make_pool(20, seed=7),
        teachers=[tiny.make_model(seed=seed) for seed in settings.get("teachers", [])],
        oracle=Absent(pool["label"][:], out) if settings.get("absent") else None,
        callbacks=[worker.Kill(settings["kill"])] if "kill" in settings else None,
    )
    last = last_finished_checkpoint(out)
    try:
        trainer.train(str(last) if last else None)
    except LabelsWanted as wanted:
        (out / f"wanted-{args.process_index}.txt").write_text(str(wanted))
        return
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).numpy()  # empty under ZeRO-3
    (out / f"weights-{args.process_index}.txt").write_text(hashlib.sha256(weights.tobytes()).hexdigest())
    (out / f"answers-{args.process_index}.json").write_text(json.dumps(trainer.answers.entries))
    if args.process_index == 0:
        np.save(out / "weights.npy", weights)
        log = [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
        (out / "log.json").write_text(json.dumps(log))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    end_processes()
