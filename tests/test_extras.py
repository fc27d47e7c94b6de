"""Without the packages of an extra, what needs them fails before any work, and says what to install."""

import json
import re
import sys

import numpy as np
import pytest
from tiny import make_model, make_pool
from transformers.trainer_optimizer import _BITSANDBYTES_OPTIMIZERS

from tithe.models import BM25Retriever
from tithe.models.dense_search import FaissSearch
from tithe.recipes import cli
from tithe.trainers import (
    DistillationConfig,
    DistillationTrainer,
    ExpertLoopConfig,
    PTSeq2SeqConfig,
    Range,
    RoundSelectionConfig,
    RoundSelectionTrainer,
    tune,
)
from tithe.trainers.required_extras import BITSANDBYTES_OPTIMIZERS


ZERO = {"zero_optimization": {"stage": 2}}


@pytest.fixture
def without(monkeypatch):
    """Makes packages missing, whether they are installed here or not."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
            for loaded in [module for module in sys.modules if module.startswith(f"{name}.")]:
                monkeypatch.setitem(sys.modules, loaded, None)

    return hide


def install(extra):
    return rf'pip install "tithe\[{extra}\]"$'


@pytest.mark.parametrize("config", [RoundSelectionConfig, DistillationConfig, ExpertLoopConfig, PTSeq2SeqConfig])
def test_arguments_that_ask_for_deepspeed(config, without, tmp_path, monkeypatch):
    without("deepspeed")
    with pytest.raises(ImportError, match="`deepspeed` needs deepspeed.*" + install("deepspeed")):
        config(str(tmp_path), deepspeed=ZERO)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # as `accelerate launch` sets it
    with pytest.raises(ImportError, match="ACCELERATE_USE_DEEPSPEED needs deepspeed.*" + install("deepspeed")):
        config(str(tmp_path))


def test_optimizers_of_bitsandbytes(without, tmp_path):
    assert BITSANDBYTES_OPTIMIZERS == {optimizer.value for optimizer in _BITSANDBYTES_OPTIMIZERS}
    without("bitsandbytes")
    args = RoundSelectionConfig(str(tmp_path), optim="paged_adamw_8bit", use_cpu=True)  # may be read, but not run
    with pytest.raises(ImportError, match="`optim` paged_adamw_8bit needs bitsandbytes.*" + install("quantization")):
        RoundSelectionTrainer(make_model(), args, train_dataset=make_pool())
    with pytest.raises(ImportError, match=install("quantization")):
        args.check_extras()
    RoundSelectionConfig(str(tmp_path), use_cpu=True).check_extras()


def test_teachers_in_8_bit(without, tmp_path):
    without("bitsandbytes")
    args = DistillationConfig(str(tmp_path), teacher_load_in_8bit=True, use_cpu=True)
    with pytest.raises(ImportError, match="`teacher_load_in_8bit` needs bitsandbytes.*" + install("quantization")):
        DistillationTrainer(make_model(), args, train_dataset=make_pool(), teachers=str(tmp_path / "not read"))
    with pytest.raises(ImportError, match=install("quantization")):
        args.check_extras()


@pytest.mark.parametrize("hidden", ["bm25s", "Stemmer"])
def test_bm25(hidden, without):
    without(hidden)
    with pytest.raises(ImportError, match=f"needs {hidden}.*" + install("retrieval")):
        BM25Retriever()
    if hidden == "Stemmer":
        BM25Retriever(language=None)
        return
    with pytest.raises(ImportError, match="needs bm25s.*" + install("retrieval")):
        BM25Retriever(language=None, stopwords=False)


def test_approximate_searches(without):
    without("faiss")
    with pytest.raises(ImportError, match="needs faiss.*" + install("retrieval")):
        FaissSearch(np.eye(4, dtype=np.float32), "ivf")


def test_searches_for_hyper_parameters(without, tmp_path):
    without("optuna")
    args = RoundSelectionConfig(str(tmp_path), eval_strategy="epoch", use_cpu=True)
    trainer = RoundSelectionTrainer(
        args=args, model_init=lambda: make_model(), train_dataset=make_pool(), eval_dataset=make_pool(20)
    )
    with pytest.raises(ImportError, match="a hyper-parameter search needs optuna.*" + install("tuning")):
        tune(trainer, tmp_path / "study", space={"learning_rate": Range(1e-4, 1e-3, log=True)}, trials=1)
    assert not (tmp_path / "study").exists()


DATA = {"train_file": "nowhere.jsonl", "model_name_or_path": "nowhere/at-all"}  # neither is looked for
RECIPES = [
    ("data_selection", {"deepspeed": "zero.json"}, "deepspeed", "deepspeed"),
    ("data_selection", {"optim": "adamw_8bit"}, "bitsandbytes", "quantization"),
    ("data_selection", {"train_file": "s3://bucket/rows.jsonl"}, "s3fs", "s3"),
    ("compare_strategies", {"strategies": "random"} | {"optim": "lion_8bit"}, "bitsandbytes", "quantization"),
    ("distill_lm", {"teacher_load_in_8bit": "true"}, "bitsandbytes", "quantization"),
    ("distill_lm", {"deepspeed": "zero.json"}, "deepspeed", "deepspeed"),
    ("distill_ner", {"teacher_load_in_8bit": "true"}, "bitsandbytes", "quantization"),
    ("expert_loop", {"method": "supervised", "optim": "adamw_8bit"}, "bitsandbytes", "quantization"),
    ("prompt_tune", {"load_in_8bit": "true"}, "bitsandbytes", "quantization"),
    ("prompt_tune", {"deepspeed": "zero.json"}, "deepspeed", "deepspeed"),
    ("slm_qa", {"load_in_4bit": "true", "mode": "no_context"}, "bitsandbytes", "quantization"),
    ("slm_qa", {"mode": "retriever_context"}, "bm25s", "retrieval"),
    ("slm_qa", {"retriever": "hybrid"}, "Stemmer", "retrieval"),
    ("slm_qa", {"corpus_file": "s3://bucket/rows.jsonl", "test_file": "t.jsonl"}, "s3fs", "s3"),
    ("tune", {}, "optuna", "tuning"),
    ("tune", {"optim": "adamw_8bit"}, "bitsandbytes", "quantization"),
]


@pytest.mark.parametrize(("recipe", "flags", "module", "extra"), RECIPES)
def test_recipes_fail_before_they_read_data(recipe, flags, module, extra, without, tmp_path, monkeypatch, capsys):
    without(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # there if it was used before
    (tmp_path / "zero.json").write_text(json.dumps(ZERO))
    (tmp_path / "t.jsonl").write_text(json.dumps({"question": "Which?", "answers": ["this"]}))
    values = {**DATA, "output_dir": "run", "use_cpu": "true", **flags}
    if "test_file" in flags:
        del values["train_file"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([recipe, *(part for name, value in values.items() for part in (f"--{name}", value))])
    error = capsys.readouterr().err
    assert module in error and re.search(install(extra), error.strip())
    assert "\n" not in error.strip()
