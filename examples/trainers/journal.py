"""What the project watches while it trains."""

import json
from pathlib import Path

import numpy as np
from transformers import EvalPrediction, TrainerCallback


class Journal(TrainerCallback):
    """A callback of the project's own: writes all that is logged into `journal.jsonl`, line by line."""

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        with open(Path(args.output_dir) / "journal.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def f1_of_code(predicted: EvalPrediction) -> dict[str, float]:
    counted = predicted.label_ids != -100
    found, wanted = predicted.predictions.argmax(-1)[counted] == 1, predicted.label_ids[counted] == 1
    return {"f1": float(2 * (found & wanted).sum() / max((found.sum() + wanted.sum()), 1))}


class ExactMatch:
    """How often the text that was written is the one that was wanted."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, predicted: EvalPrediction) -> dict[str, float]:
        written, wanted = (
            self.tokenizer.batch_decode(np.where(ids < 0, self.tokenizer.pad_token_id, ids), skip_special_tokens=True)
            for ids in (predicted.predictions, predicted.label_ids)
        )
        return {"exact_match": float(np.mean([one == other for one, other in zip(written, wanted, strict=True)]))}
