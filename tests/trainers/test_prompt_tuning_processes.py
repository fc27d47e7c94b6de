"""Prompt tuning in two processes, DDP and ZeRO, is that in one: losses, what is saved, what is generated, kills."""

import json

import launching
import numpy as np
import prompting
import pytest
from safetensors.torch import load_file

from tithe.models import load_lora_and_prompt


ARGS = {"learning_rate": 1e-2, "logging_steps": 1, "disable_tqdm": True, "num_train_epochs": 2, "lora_rank": 4}
ARGS |= {"virtual_tokens": 5, "predict_with_generate": True, "per_device_eval_batch_size": 4}
ARGS |= {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}


def run(folder, processes=1, accumulation=1, check=True, dropout=0.0, **settings):
    base = folder.parent / "base"
    if not base.exists():
        prompting.make_base().save_pretrained(base)
    size = {"per_device_train_batch_size": 8 // processes // accumulation, "gradient_accumulation_steps": accumulation}
    settings |= {"args": {**ARGS, **size, **settings.get("args", {})}, "base": str(base), "dropout": dropout}
    return launching.launch("prompt_worker", folder, processes, settings, check)


def left(folder):
    log = np.array(json.loads((folder / "log.json").read_text()))
    return log, load_file(folder / "adapters.safetensors"), json.loads((folder / "predictions.json").read_text())


def assert_same(one, two, atol):
    (log, tensors, predictions), (other_log, others, other_predictions) = left(one), left(two)
    np.testing.assert_allclose(log, other_log, atol=atol)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor, others[name], atol=20 * atol, err_msg=name)
    assert predictions == other_predictions


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("layout", ["ddp", "zero2", "zero3"])
def test_two_processes_train_as_one(tmp_path, layout, accumulation):
    args = {}
    if layout != "ddp":
        pytest.importorskip("deepspeed")
        args = {"deepspeed": launching.deepspeed_config(int(layout[-1]))}
    run(tmp_path / "one")
    run(tmp_path / "two", 2, accumulation, args=args)
    assert_same(tmp_path / "one", tmp_path / "two", 1e-5)
    loaded = load_lora_and_prompt(prompting.make_base(), tmp_path / "two" / "final")
    assert loaded.peft_config["default"].r == 4


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "zero2", "zero3"])
def test_a_killed_run_of_two_processes_resumes(tmp_path, layout):
    """With dropout; 4 steps an epoch, a checkpoint each 3."""
    args = {}
    if layout != "ddp":
        pytest.importorskip("deepspeed")
        args = {"deepspeed": launching.deepspeed_config(int(layout[-1]))}
    run(tmp_path / "whole", 2, dropout=0.1, args=args)
    killed = tmp_path / "killed"
    assert run(killed, 2, check=False, kill=5, dropout=0.1, args=args).returncode != 0
    run(killed, 2, dropout=0.1, args=args)
    assert_same(tmp_path / "whole", killed, 0)
