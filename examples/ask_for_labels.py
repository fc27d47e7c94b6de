"""Teach a classifier new classes through LoRA, with few labels, which a colleague gives as they are asked for.

    python ask_for_labels.py [--model NAME]

The project has a classifier of four packages, and wants one of four others, of whose docstrings none is labelled. The
model goes to `ExpertLoopTrainer` with LoRA on it, as it would go to `Trainer`; the oracle is the project's own. When
it has no answer yet the run ends, and goes on once there is one.
"""

import argparse
import copy
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from tithe.trainers import Answer, ExpertLoopConfig, ExpertLoopTrainer, LabelsWanted, Query, last_finished_checkpoint
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from docstrings import Docstrings, get_tokenizer, read_docstrings
from models import TextClassifier
from trainers import Journal, PadDocstrings, accuracy


KNOWN = ["matplotlib", "pandas", "torch", "sklearn"]
NEW = ["scipy", "transformers", "numpy", "datasets"]
HELD_OUT = 400


class Colleague:
    """Answers by mail: what is asked in one run is there in the next. An oracle needs no base class."""

    shows = ("text",)
    asks_teachers = False

    def __init__(self, docstrings: list) -> None:
        self.from_where = {docstring.text: NEW.index(docstring.package) for docstring in docstrings}
        self.answers: dict[int, int] = {}

    def label(self, query: Query) -> dict[int, Answer]:
        asked = {int(row): shown["text"] for row, shown in zip(query.rows, query.shown, strict=True)}
        if not asked.keys() <= self.answers.keys():
            self.answers |= {row: self.from_where[text] for row, text in asked.items()}
            raise LabelsWanted(f"{len(asked)} labels were asked for by mail")
        return {row: Answer(self.answers[row], "colleague") for row in asked}


def adapted(known: TextClassifier) -> PeftModel:
    """The classifier with LoRA in its encoder, and a head for the new classes."""
    set_seed(0)
    model = copy.deepcopy(known)
    model.head = nn.Linear(model.head.in_features, len(NEW))
    model.config.id2label = dict(enumerate(NEW))
    model.config.label2id = {name: number for number, name in enumerate(NEW)}
    layers = ["word_embeddings", "query", "value", "dense"]
    return get_peft_model(model, LoraConfig(r=8, target_modules=layers, modules_to_save=["head"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a pretrained encoder of the hub; by default a small one from random weights")
    parser.add_argument("--output_dir", default="runs/ask_for_labels", type=Path)
    given = parser.parse_args()
    docstrings, new = read_docstrings(KNOWN, each=500), read_docstrings(NEW, each=500)
    tokenizer = get_tokenizer(given.model, [docstring.text for docstring in docstrings + new])
    common = {"per_device_train_batch_size": 16, "disable_tqdm": True, "remove_unused_columns": False}
    shared = {"data_collator": PadDocstrings(tokenizer.pad_token_id), "compute_metrics": accuracy}
    pool, test = Docstrings(new[HELD_OUT:], tokenizer), Docstrings(new[:HELD_OUT], tokenizer, NEW)

    set_seed(0)
    known = TextClassifier.make(given.model, len(tokenizer), KNOWN)
    rate = 5e-5 if given.model else 1e-3
    args = TrainingArguments(str(given.output_dir / "known"), learning_rate=rate, num_train_epochs=3, **common)
    Trainer(known, args, train_dataset=Docstrings(docstrings, tokenizer, KNOWN), **shared).train()

    args = ExpertLoopConfig(
        str(given.output_dir / "new"),
        task="sequence classification",  # the name of the class does not say it
        query_strategy="margin",
        initial_pool_size=40,
        query_size=40,
        max_iterations=3,
        epochs_per_iteration=12,
        learning_rate=5e-4 if given.model else 5e-3,
        **common,
    )
    colleague = Colleague(new)
    while True:
        trainer = ExpertLoopTrainer(
            adapted(known),
            args,
            train_dataset=pool,
            eval_dataset=test,
            oracle=colleague,
            callbacks=[Journal()],
            **shared,
        )
        try:
            trainer.train(resume_from_checkpoint=last_finished_checkpoint(args.output_dir))
            break
        except LabelsWanted as wanted:
            print(f"stopped: {wanted}")
    for score in trainer.state.log_history:
        if "eval_accuracy" in score:
            print(f"{score['labels']} labels: accuracy {score['eval_accuracy']:.3f}")
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(f"chance: accuracy {1 / len(NEW):.3f}; {trained} of {known.num_parameters()} parameters were trained")


if __name__ == "__main__":
    main()
