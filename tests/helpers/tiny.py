"""A small classifier and its pool, made from configs."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, set_seed


VOCABULARY, CLASSES = 60, 3


def make_pool(rows: int = 60, seed: int = 0) -> Dataset:
    """Rows of 4 to 12 tokens; the label says which third of the vocabulary most of them come from."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    tokens = [rng.integers(3 + 19 * label, 3 + 19 * (label + 1), rng.integers(4, 13)).tolist() for label in labels]
    for row in tokens:  # noise, so that no two models agree on every row
        row[0] = int(rng.integers(3, VOCABULARY))
    return Dataset.from_dict(
        {
            "text": [" ".join(map(str, row)) for row in tokens],
            "input_ids": tokens,
            "attention_mask": [[1] * len(row) for row in tokens],
            "label": labels.tolist(),
        }
    )


def make_model(seed: int = 0, **config: Any) -> BertForSequenceClassification:
    set_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"vocab_size": VOCABULARY, "max_position_embeddings": 32, "num_labels": CLASSES}
    return BertForSequenceClassification(BertConfig(**{**sizes, **config}))


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads to the longest row, as `DataCollatorWithPadding` does, without a tokenizer."""
    width = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.tensor([list(row[name]) + [0] * (width - len(row[name])) for row in rows])
        for name in ("input_ids", "attention_mask")
    }
    if "label" in rows[0]:
        batch["labels"] = torch.tensor([row["label"] for row in rows])
    return batch
