"""Tune LoRA and a soft prompt of a text-to-text model to another question, and leave the rest of it as it is.

    python tune_prompt.py [--model NAME]

The project's model writes which package a docstring is from; it is tuned to say instead what that package is for.
`Seq2SeqTrainer` has become `PTSeq2SeqTrainer`, and what is saved is what was added.
"""

import argparse
from collections import Counter
from pathlib import Path

from tithe.models import load_lora_and_prompt
from tithe.trainers import PTSeq2SeqConfig, PTSeq2SeqTrainer
from torch.utils.data import Dataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

from docstrings import Docstring, get_tokenizer, read_docstrings
from models import WeightedT5
from trainers import ExactMatch, Journal, PadPairs


SUBJECTS = {"matplotlib": "drawing", "pandas": "tables", "torch": "tensors", "sklearn": "learning"}
NAMES = {package: package for package in SUBJECTS}
HELD_OUT, FEW = 400, 400


class Questions(Dataset):
    """Docstrings and what to answer, as text; all packages weigh the same together."""

    def __init__(self, docstrings: list[Docstring], tokenizer, answers: dict[str, str]) -> None:
        counts = Counter(docstring.package for docstring in docstrings)
        self.inputs = tokenizer([d.text for d in docstrings], truncation=True, max_length=64)["input_ids"]
        self.targets = tokenizer([answers[d.package] + tokenizer.eos_token for d in docstrings])["input_ids"]
        self.weights = [len(docstrings) / len(counts) / counts[d.package] for d in docstrings]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.inputs[index], "labels": self.targets[index], "weight": self.weights[index]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a pretrained T5 of the hub; by default a small one, trained first")
    parser.add_argument("--output_dir", default="runs/tune_prompt", type=Path)
    given = parser.parse_args()
    docstrings = read_docstrings(list(SUBJECTS), each=500)
    tokenizer = get_tokenizer(given.model, [docstring.text for docstring in docstrings])
    test, rows = docstrings[:HELD_OUT], docstrings[HELD_OUT:]
    common = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 100, "save_strategy": "no"}
    common |= {"warmup_steps": 0.1, "predict_with_generate": True, "generation_max_length": 8, "disable_tqdm": True}
    shared = {"data_collator": PadPairs(tokenizer.pad_token_id), "processing_class": tokenizer}
    shared |= {"compute_metrics": ExactMatch(tokenizer)}

    set_seed(0)
    model = WeightedT5.make(given.model, len(tokenizer), tokenizer.eos_token_id)
    rate = 3e-4 if given.model else 3e-3
    args = Seq2SeqTrainingArguments(str(given.output_dir / "names"), learning_rate=rate, num_train_epochs=4, **common)
    trainer = Seq2SeqTrainer(model, args, train_dataset=Questions(rows, tokenizer, NAMES), **shared)
    trainer.train()
    before = trainer.evaluate(Questions(test, tokenizer, NAMES))["eval_exact_match"]
    model.save_pretrained(given.output_dir / "names")
    print(f"names: {before:.3f} right, all {model.num_parameters()} parameters trained on {len(rows)} rows")

    args = PTSeq2SeqConfig(
        str(given.output_dir / "subjects"),
        lora_rank=16,
        lora_target_modules=["q", "k", "v", "o", "wi", "wo"],
        virtual_tokens=10,
        learning_rate=5e-3,
        num_train_epochs=12,
        **common,
    )
    few = Questions(rows[:FEW], tokenizer, SUBJECTS)
    trainer = PTSeq2SeqTrainer(model, args, train_dataset=few, callbacks=[Journal()], **shared)
    trainer.train()
    after = trainer.evaluate(Questions(test, tokenizer, SUBJECTS))["eval_exact_match"]
    trainer.save_model()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(f"subjects: {after:.3f} right, {trained} parameters trained on {FEW} rows")

    saved = load_lora_and_prompt(WeightedT5.from_pretrained(given.output_dir / "names"), args.output_dir)
    trainer = PTSeq2SeqTrainer(saved, args, **shared)
    again = trainer.evaluate(Questions(test, tokenizer, SUBJECTS))["eval_exact_match"]
    print(f"subjects: {again:.3f} right, as loaded from {args.output_dir}")


if __name__ == "__main__":
    main()
