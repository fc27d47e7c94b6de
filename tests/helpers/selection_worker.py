"""What the tests of several processes run: `python -m torch.distributed.run … worker.py SETTINGS.json`.

Trains on the tiny pool and writes, from process 0, the ledger and all that was logged; from every process its weights.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import tiny
import torch
from killing import Kill

from tithe.recipes.processes import end_processes
from tithe.selection import Selection
from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer, last_finished_checkpoint


class Failing:
    needs = frozenset()

    def select(self, pool, k, rng) -> Selection:
        raise ValueError("this strategy always fails")


def main(settings):
    out = Path(settings["output_dir"])
    model = tiny.make_model(**settings.get("model", {}))
    args = RoundSelectionConfig(**settings["args"], output_dir=str(out), use_cpu=True, report_to="none")
    trainer = RoundSelectionTrainer(
        model,
        args,
        data_collator=tiny.collate,
        train_dataset=tiny.make_pool(settings.get("rows", 64)),
        strategy=Failing() if settings.get("failing") else None,
        callbacks=[Kill(settings["kill"])] if "kill" in settings else None,
    )
    signals = trainer.signals(trainer.train_dataset, {"probabilities", "embeddings", "el2n"})
    if settings.get("evaluates_first"):
        trainer.evaluate(trainer.train_dataset.select(range(8)))
    last = last_finished_checkpoint(out)
    trainer.train(str(last) if last else None)
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).numpy()
    digest = hashlib.sha256(weights.tobytes()).hexdigest()
    (out / f"weights-{args.process_index}.txt").write_text(digest)
    if args.process_index == 0:
        np.savez(out / "signals.npz", **signals)
        np.save(out / "weights.npy", weights)
        log = [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
        (out / "log.json").write_text(json.dumps({"loss": log, "world": args.world_size}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    end_processes()
