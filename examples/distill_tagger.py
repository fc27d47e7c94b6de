"""Teach a small tagger what a larger one knows, mostly on rows that nobody has labelled.

    python distill_tagger.py [--model NAME]

Which words of a docstring are code? The teacher has seen every label; of the student's rows one in ten has labels, and
on the others it learns from the teacher alone. `Trainer` has become `DistillationTrainer`, with `teachers=`.
"""

import argparse
import re
import zlib
from pathlib import Path

from tithe.trainers import DistillationConfig, DistillationTrainer
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

from docstrings import get_tokenizer, read_docstrings
from models import WordTagger
from trainers import Journal, PadWords, f1_of_code


PACKAGES = ["datasets", "matplotlib", "scipy", "torch", "transformers"]
LABELS = ["text", "code"]
HELD_OUT = 200


class TaggedDocstrings(Dataset):
    """Words of docstrings without the backticks around code; rows from `labelled` on have no labels."""

    def __init__(self, texts: list[str], tokenizer, labelled: int | None = None) -> None:
        self.rows = []
        for number, text in enumerate(texts):
            parts = [re.findall(r"[\w.]+|[^\w\s]", part) for part in re.split("`+", text)]
            words = [word for part in parts for word in part]
            tags = [place % 2 for place, part in enumerate(parts) for _ in part]
            encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=96)
            known = labelled is None or number < labelled
            of_tokens = [None if w is None else (_shape(words[w]), tags[w]) for w in encoded.word_ids()]
            shapes = [0 if pair is None else pair[0] for pair in of_tokens]
            labels = [-100 if pair is None or not known else pair[1] for pair in of_tokens]
            self.rows.append({"input_ids": encoded["input_ids"], "shapes": shapes, "labels": labels})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def _shape(word: str) -> int:
    """Words such as `read_csv` and `to_json` look alike."""
    shape = re.sub("[A-Z]+", "A", re.sub("[a-z]+", "a", re.sub("[0-9]+", "1", word)))
    return zlib.crc32(shape.encode()) % 63 + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a pretrained encoder for the teacher; by default a small one")
    parser.add_argument("--output_dir", default="runs/distill_tagger", type=Path)
    given = parser.parse_args()
    docstrings = read_docstrings(PACKAGES, each=1000)
    texts = [re.sub(r":\w+:(?=`)|[][]", "", docstring.text) for docstring in docstrings if "`" in docstring.text]
    tokenizer = get_tokenizer(given.model, texts)
    train, test = texts[HELD_OUT:], TaggedDocstrings(texts[:HELD_OUT], tokenizer)
    common = {"per_device_train_batch_size": 16, "save_strategy": "no", "disable_tqdm": True, "warmup_steps": 0.1}
    shared = {"data_collator": PadWords(tokenizer.pad_token_id), "eval_dataset": test, "compute_metrics": f1_of_code}

    set_seed(0)
    teacher = WordTagger.make(given.model, len(tokenizer), LABELS, width=128, layers=2)
    rate = 5e-5 if given.model else 1e-3
    args = TrainingArguments(str(given.output_dir / "teacher"), learning_rate=rate, num_train_epochs=4, **common)
    trainer = Trainer(teacher, args, train_dataset=TaggedDocstrings(train, tokenizer), **shared)
    trainer.train()
    print(f"teacher: F1 {trainer.evaluate()['eval_f1']:.3f}, all {len(train)} rows labelled")

    def student() -> WordTagger:
        set_seed(0)
        return WordTagger.make(None, len(tokenizer), LABELS, width=64, layers=1)

    few = len(train) // 10
    for name, teachers, texts, epochs in [("taught", teacher, train, 8), ("alone", (), train[:few], 80)]:
        args = DistillationConfig(
            str(given.output_dir / name),
            task="token classification",  # the name of the class does not say it
            learning_rate=2e-3,
            num_train_epochs=epochs,  # of as many steps in all
            **common,
        )
        trainer = DistillationTrainer(
            args=args,
            model_init=student,
            train_dataset=TaggedDocstrings(texts, tokenizer, labelled=few),
            teachers=teachers,
            processing_class=tokenizer,
            callbacks=[Journal()],
            **shared,
        )
        trainer.train()
        print(f"{name}: F1 {trainer.evaluate()['eval_f1']:.3f}, {few} of {len(texts)} rows labelled")


if __name__ == "__main__":
    main()
