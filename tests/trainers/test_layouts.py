"""Every trainer in every layout that the CPU has: the same losses, gradient norms and choices, killed or not.

A row of the table of `python -m pytest -m slow tests/trainers/test_layouts.py -v` is a trainer in a layout.
"""

import functools
import json
import time

import distilling
import launching
import numpy as np
import prompting
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from tithe.models import load_lora_and_prompt


TRAINERS = ("selection", "distillation", "loop", "prompt")
BATCH = 8
STEPS = {"num_train_epochs": 2, "learning_rate": 3e-3, "logging_steps": 1}
STEPS |= {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}
# processes, stage of ZeRO, steps of accumulation, 8 bits
LAYOUTS = {
    "one": (1, 0, 1, False),
    "accumulation": (1, 0, 4, False),
    "two": (2, 0, 1, False),
    "two accumulated": (2, 0, 2, False),
    "zero2": (2, 2, 1, False),
    "zero3": (2, 3, 1, False),
    "8 bits": (1, 0, 1, True),
    "8 bits accumulated": (1, 0, 4, True),
    "8 bits in two": (2, 0, 1, True),
}
each_trainer = pytest.mark.parametrize("trainer", TRAINERS)
each_layout = pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("one", "8 bits")])
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Runs a trainer in a layout; its folder."""
    folder = tmp_path_factory.mktemp("layouts")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    distilling.sharpened(tiny.make_model(**still)).save_pretrained(folder / "still")
    tiny.make_model().save_pretrained(folder / "dropout")
    prompting.make_base(0.0).save_pretrained(folder / "still-prompt")
    prompting.make_base(0.1).save_pretrained(folder / "dropout-prompt")

    @functools.cache
    def run(trainer, layout, dropout=False, kill=None, evaluates_first=False):
        processes, stage, accumulation, quantised = LAYOUTS[layout]
        if stage:
            pytest.importorskip("deepspeed")
        if quantised:
            pytest.importorskip("bitsandbytes")
        out = folder / f"run{len(list(folder.iterdir()))}"
        args = {**STEPS, "gradient_accumulation_steps": accumulation}
        args["per_device_train_batch_size"] = BATCH // processes // accumulation
        args["per_device_eval_batch_size"] = BATCH // processes  # a loss over tokens is of all batches of a step
        args |= {"deepspeed": launching.deepspeed_config(stage)} if stage else {}
        base = folder / (("dropout" if dropout else "still") + ("-prompt" if trainer == "prompt" else ""))
        settings = {"trainer": trainer, "base": str(base), "quantised": quantised, "args": args}
        settings |= {"evaluates_first": evaluates_first}
        if kill is not None:
            start = time.monotonic()
            ended = launching.launch("layout_worker", out, processes, settings | {"kill": dict(kill)}, check=False)
            assert ended.returncode != 0 and not (out / "final").exists()
            assert processes == 1 or "SIGKILL" in ended.stderr, "torchrun says which process ended, and how"
            assert time.monotonic() - start < 60, "with all that a start takes"
        launching.launch("layout_worker", out, processes, settings)
        return out

    return run


def at_step(step, process=None):
    return (("step", step), ("process", process))


def facts(folder, process=0):
    return json.loads((folder / f"facts-{process}.json").read_text())


@each_layout
@each_trainer
def test_is_as_in_one_process(launched, trainer, layout):
    processes, stage, _, quantised = LAYOUTS[layout]
    found = facts(launched(trainer, layout))
    assert found["processes"] == processes and len(found["log"]) >= 8
    assert (found["engine"] == "DeepSpeedEngine") == bool(stage), "it must be what it is called"
    expected = facts(launched(trainer, "8 bits" if quantised else "one"))
    assert found["chosen"] == expected["chosen"]
    np.testing.assert_allclose(found["log"], expected["log"], rtol=1e-5, atol=1e-6)
    assert found["evaluation"] == pytest.approx(expected["evaluation"], rel=1e-5)
    if processes > 1:
        assert facts(launched(trainer, layout), 1)["chosen"] == found["chosen"]


@pytest.mark.parametrize("layout", ["accumulation", "two", "zero2", "zero3", "8 bits"])
@each_trainer
def test_a_killed_run_resumes_to_the_same_end(launched, trainer, layout):
    """With dropout; killed in the second epoch, two steps after a checkpoint."""
    whole, resumed = (facts(launched(trainer, layout, dropout=True, kill=kill)) for kill in (None, at_step(5)))
    assert resumed == whole


@pytest.mark.parametrize("layout", ["two", "zero2", "zero3"])
@each_trainer
def test_when_one_process_is_killed_all_end_and_resume(launched, trainer, layout):
    """Within a minute, and not when a collective times out half an hour later."""
    killed = launched(trainer, layout, dropout=True, kill=at_step(5, process=1))
    assert facts(killed) == facts(launched(trainer, layout, dropout=True))


@pytest.mark.parametrize("layout", ["one", "two", "zero2", "zero3"])
@each_trainer
def test_evaluating_first_changes_nothing(launched, trainer, layout):
    assert facts(launched(trainer, layout, evaluates_first=True)) == facts(launched(trainer, layout))


@pytest.mark.parametrize("layout", ["two", "zero2", "zero3"])
@each_trainer
def test_what_is_saved_is_a_model_like_any_other(launched, trainer, layout):
    """Of whole weights, which say what those of one process say."""
    logits = []
    for folder in (launched(trainer, "one") / "final", launched(trainer, layout) / "final"):
        if trainer == "prompt":
            model = load_lora_and_prompt(prompting.make_base(0.0), folder)
            batch = {name: torch.tensor([row]) for name, row in prompting.make_rows(1)[0].items()}
        else:
            model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
            assert not any(info.get(name) for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
            batch = tiny.collate([tiny.make_pool(4)[i] for i in range(4)])
        with torch.no_grad():
            logits.append(model.eval()(**batch).logits)
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)
