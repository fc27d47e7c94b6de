"""Train a classifier on a tenth of its data, chosen by a strategy of the project's own.

    python select_rows.py [--model NAME]

Which package is a docstring from? The model class, data set, collator and callback are the project's; `Trainer` has
become `RoundSelectionTrainer`, and `TrainingArguments` `RoundSelectionConfig`. Started again after it was stopped, the
script goes on from its last checkpoint.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from tithe.selection import Pool, Selection
from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer, last_finished_checkpoint
from transformers import set_seed

from docstrings import Docstrings, get_tokenizer, read_docstrings
from models import TextClassifier
from trainers import Journal, PadDocstrings, accuracy


PACKAGES = ["matplotlib", "pandas", "scipy", "sklearn", "torch", "transformers"]
HELD_OUT = 600


@dataclass(frozen=True)
class WordCoverage:
    """Takes the row whose words are the commonest in the pool, counts these words half from then on, and so forth."""

    needs: frozenset[str] = frozenset({"texts"})

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        words = CountVectorizer(binary=True).fit_transform(pool.texts)  # (rows, words)
        worth = np.sqrt(np.asarray(words.sum(axis=0)).ravel() - 1)
        length = np.sqrt(np.asarray(words.sum(axis=1)).ravel() + 1)
        scores, order = np.full(len(pool.ids), np.nan), []
        for _ in range(k):
            gains = words @ worth / length
            gains[order] = -1
            best = int(gains.argmax())
            scores[best] = gains[best]
            order.append(best)
            worth[words[best].indices] /= 2
        return Selection(pool.ids[order], scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a pretrained encoder of the hub; by default a small one from random weights")
    parser.add_argument("--output_dir", default="runs/select_rows", type=Path)
    given = parser.parse_args()
    docstrings = read_docstrings(PACKAGES, each=500)
    tokenizer = get_tokenizer(given.model, [docstring.text for docstring in docstrings])
    pool = Docstrings(docstrings[HELD_OUT:], tokenizer, PACKAGES)
    test = Docstrings(docstrings[:HELD_OUT], tokenizer, PACKAGES)

    def model_init() -> TextClassifier:
        set_seed(0)
        return TextClassifier.make(given.model, len(tokenizer), PACKAGES)

    for name, strategy in {"random": "random", "own": WordCoverage()}.items():
        args = RoundSelectionConfig(
            str(given.output_dir / name),
            budget=0.1,
            rounds=1,  # this strategy reads no model: nothing is won by waiting
            num_train_epochs=15,
            learning_rate=5e-5 if given.model else 1e-3,
            per_device_train_batch_size=16,
            warmup_steps=0.1,
            save_steps=0.25,
            save_total_limit=1,
            remove_unused_columns=False,  # the collator knows what it needs
            disable_tqdm=True,
        )
        trainer = RoundSelectionTrainer(
            args=args,
            model_init=model_init,
            data_collator=PadDocstrings(tokenizer.pad_token_id),
            train_dataset=pool,
            eval_dataset=test,
            compute_metrics=accuracy,
            callbacks=[Journal()],
            strategy=strategy,
        )
        trainer.train(resume_from_checkpoint=last_finished_checkpoint(args.output_dir))
        score = trainer.evaluate()["eval_accuracy"]
        print(f"{name}: accuracy {score:.3f} on {len(trainer.ledger.selected)} of {len(pool)} rows")
    print(f"chance: accuracy {1 / len(PACKAGES):.3f}")


if __name__ == "__main__":
    main()
