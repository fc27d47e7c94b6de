"""Small models and pools, made from configs: no test needs a download."""

import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable

import pytest
import torch
from datasets import Dataset
from tiny import collate, make_model, make_pool
from transformers import BertForSequenceClassification


torch.set_num_threads(1)  # models this small are slower on several, and a busy machine makes it worse


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
