"""The model made from nothing is made the same every time, also in another process, and knows which words meet."""

import hashlib
import os
import subprocess
import sys

import numpy as np
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tithe.recipes.caching import built_once
from tithe.recipes.small_model import build_small_model


PAIRS = [("river", "water"), ("stone", "quarry"), ("Нева", "вода")]
TEXTS = [f"{a} {b} {a}{i}" for i, (a, b) in enumerate(PAIRS * 30)]


def digest(folder):
    content = b"".join((folder / name).read_bytes() for name in ("tokenizer.json", "model.safetensors", "config.json"))
    return hashlib.sha256(content).hexdigest()


def test_the_same_in_every_process(tmp_path):
    build_small_model(tmp_path / "here", TEXTS, {0: "a", 1: "b"}, seed=3)
    code = "import sys; from pathlib import Path; from tithe.recipes.small_model import build_small_model as build; "
    code += f"build(Path(sys.argv[1]), {TEXTS!r}, {{0: 'a', 1: 'b'}}, seed=3)"
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "RAYON_NUM_THREADS": number, "OMP_NUM_THREADS": number}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / number)], check=True, env=environment)
        assert digest(tmp_path / number) == digest(tmp_path / "here")
    build_small_model(tmp_path / "other", TEXTS, {0: "a", 1: "b"}, seed=4)
    assert digest(tmp_path / "other") != digest(tmp_path / "here")


def test_it_loads_like_any_model(tmp_path):
    build_small_model(tmp_path / "model", TEXTS, {0: "a", 1: "b", 2: "c"}, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    batch = tokenizer(["River water", "Нева"], ["stone", "вода"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"} and model(**batch).logits.shape == (2, 3)
    ids = tokenizer("River Нева")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == ["river", "нева"]
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_words_that_meet_lie_closer(tmp_path):
    build_small_model(tmp_path / "model", TEXTS, {0: "a", 1: "b"}, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    table = model.get_input_embeddings().weight.detach().numpy()

    def vector(word):
        (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
        return table[token] / np.linalg.norm(table[token])

    assert vector("river") @ vector("water") > 0.5 > vector("river") @ vector("quarry")
    assert np.isclose(table.std(), 0.05, atol=1e-3)


def test_what_two_processes_build_at_once_is_there_once(tmp_path):
    """Processes that were started apart, as two that share a search, do not know of each other."""

    def build(folder):
        folder.mkdir()
        (folder / "file").write_text("mine")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "file").write_text("the other's")

    assert built_once(tmp_path / "made", build) == tmp_path / "made"
    assert (tmp_path / "made" / "file").read_text() == "the other's"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
