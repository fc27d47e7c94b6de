"""Small models and pools, made from configs: no test needs a download."""

import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification, set_seed  # noqa: E402


torch.set_num_threads(1)  # models this small are slower on several, and a busy machine makes it worse

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


@pytest.fixture
def pool() -> Dataset:
    return make_pool()


@pytest.fixture
def model() -> BertForSequenceClassification:
    return make_model()


@pytest.fixture(name="make_pool")
def _make_pool() -> Callable[..., Dataset]:
    return make_pool


@pytest.fixture(name="make_model")
def _make_model() -> Callable[..., BertForSequenceClassification]:
    return make_model


@pytest.fixture(name="collate")
def _collate() -> Callable[..., dict[str, torch.Tensor]]:
    return collate
