"""Distillation is the same in every layout: one process, accumulation, DDP, ZeRO-2 and ZeRO-3, whole or killed."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import distillation_worker as worker
import launching
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast


WORKER = Path(__file__).with_name("distillation_worker.py")
tiny = worker.tiny

BATCH, STEPS = 8, 6
NAMES = ("loss", "grad_norm", "soft_loss", "hard_loss")


@dataclass(frozen=True)
class Case:
    """What is trained: `how` of live, fused, cached, folder (student and teacher loaded from one) and more."""

    task: str
    how: str = "live"

    def __str__(self):
        return f"{self.task}-{self.how}".replace(" ", "-")

    def settings(self, models):
        """For the worker, but for the batch size."""
        words = self.how.split()
        options = {"fused_loss": "fused" in words, "cache_teacher": "cached" in words}
        found = {"task": self.task, "args": options}
        if "top_k" in words:
            options["teacher_top_k"] = 7
        if "hidden" in words:
            options |= {"hidden_weight": 0.5, "attention_weight": 0.5}
        if "cached" not in words:
            found["student"] = str(models / self.task / "student")
        if "folder" in words:
            found["teacher"] = str(models / self.task / "teacher")
        if "factorized" in words:
            found["rank"] = 5
        return found


LIVE = [Case(task) for task in tiny.TASKS] + [Case(task, "fused") for task in ("seq2seq", "causal")]
CACHED = [Case(task, "cached") for task in tiny.TASKS] + [Case("causal", "fused cached top_k")]
OTHER = [Case("token", "folder"), Case("causal", "fused folder"), Case("token", "hidden")]
OTHER += [Case("causal", "factorized"), Case("token", "accumulated"), Case("causal", "fused accumulated")]
CASES = LIVE + CACHED + OTHER


@dataclass(frozen=True)
class Layout:
    processes: int = 1
    stage: int = 0
    accumulation: int = 1

    def arguments(self, case):
        """Such that the accumulated batch over all processes is `BATCH`."""
        accumulation = self.accumulation * (2 if case.how.endswith("accumulated") else 1)
        sizes = {"gradient_accumulation_steps": accumulation}
        sizes["per_device_train_batch_size"] = BATCH // self.processes // accumulation
        return sizes | ({"deepspeed": launching.deepspeed_config(self.stage)} if self.stage else {})


ONE = Layout()
slow = pytest.mark.slow
each_layout = pytest.mark.parametrize(
    "layout",
    [
        pytest.param(Layout(accumulation=4), id="accumulation", marks=slow),
        pytest.param(Layout(processes=2), id="ddp", marks=slow),
        pytest.param(Layout(processes=2, stage=2), id="zero2", marks=slow),
        pytest.param(Layout(processes=2, stage=3), id="zero3", marks=slow),
    ],
)


def launch(folder, layout, runs, check=True):
    """Work `runs` off in processes of their own."""
    if layout.stage:
        pytest.importorskip("deepspeed")
    return launching.launch("distillation_worker", folder, layout.processes, {"runs": runs}, check)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders with student and teacher of each task, and a tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    words = {f"a{i}": i for i in range(tiny.VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="a1")), pad_token="a0")
    for task in tiny.TASKS:
        for name, model in (("student", tiny.make_model(task)), ("teacher", tiny.make_model(task, seed=1, width=32))):
            model.save_pretrained(folder / task / name)
            tokenizer.save_pretrained(folder / task / name)
    return folder


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory):
    """Of a layout and a case the folder with what the run left; all cases of a layout are run at once."""

    def run(layout, cases):
        root = tmp_path_factory.mktemp("layout")
        runs = []
        for case in cases:
            settings = case.settings(models)
            settings["args"] |= layout.arguments(case)
            runs.append({**settings, "output_dir": str(root / str(case))})
        if layout.processes == 1:
            worker.main({"runs": runs})
        else:
            done = launch(root, layout, runs, check=False)  # who needs a run that is not there will say so
            (root / "stderr.txt").write_text(done.stderr)
        return root

    of_layout = functools.cache(run)
    return lambda layout, case, cases=tuple(CASES): of_layout(layout, cases) / str(case)


def facts(folder):
    return json.loads((folder / "facts.json").read_text())


def history(folder):
    return np.array([[entry[name] for name in NAMES] for entry in facts(folder)["log"]])


def check_same(folder, reference):
    found = history(folder)
    assert found.shape == (STEPS, len(NAMES))
    np.testing.assert_allclose(found, history(reference), rtol=1e-5, atol=2e-6)


QUICK = (Case("sequence"), Case("token", "cached"), Case("causal", "fused"))


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_two_processes_are_one(trained, case):
    layout = Layout(processes=2)
    folder = trained(layout, case, QUICK)
    assert facts(folder)["world"] == 2
    check_same(folder, trained(ONE, case))


@each_layout
@pytest.mark.parametrize("case", CASES, ids=str)
def test_layouts_give_one_trajectory(trained, case, layout):
    folder = trained(layout, case)
    known = facts(folder)
    kind = "DEEPSPEED" if layout.stage else "MULTI_CPU" if layout.processes > 1 else "NO"
    assert (known["world"], known["distributed_type"]) == (layout.processes, f"DistributedType.{kind}")
    assert known["partitioned"] == (layout.stage == 3 and "cached" not in case.how)
    check_same(folder, trained(ONE, case))
    digests = {path.read_text() for path in folder.glob("weights-*.txt")}
    assert len(digests) == 1 and len(list(folder.glob("weights-*.txt"))) == layout.processes


@each_layout
@pytest.mark.parametrize("case", CASES, ids=str)
def test_saved_models_load_without_the_layout(trained, case, layout):
    folder = trained(layout, case)
    student = tiny.make_model(case.task)
    model, report = type(student).from_pretrained(folder / "final", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert ("rank=5" in repr(model)) == (case.how == "factorized")
    batch = tiny.collate([tiny.make_rows(case.task)[i] for i in range(4)])
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    torch.testing.assert_close(logits, torch.load(folder / "logits.pt"), rtol=1e-5, atol=1e-5)
    start = student.eval()(**batch).logits
    assert (start - logits).abs().max() > 1e-3  # it has learnt something


@each_layout
@pytest.mark.parametrize("case", CACHED, ids=str)
def test_caches_are_byte_identical(trained, case, layout):
    found, expected = (
        {path.name: path.read_bytes() for path in (folder / "teacher_cache").iterdir()}
        for folder in (trained(layout, case), trained(ONE, case))
    )
    assert set(expected) >= {"cache.json", "offsets.npy", "log_probabilities.npy"}
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(ONE, id="one"),
        pytest.param(Layout(processes=2), id="ddp"),
        pytest.param(Layout(processes=2, stage=2), id="zero2"),
        pytest.param(Layout(processes=2, stage=3), id="zero3"),
    ],
)
def test_killed_and_resumed_ends_at_the_same_weights(tmp_path, layout):
    """Killed while the teacher's cache is written, then while training, then let go on."""
    case = Case("token", "cached")
    args = {"save_strategy": "steps", "save_steps": 2, "per_device_eval_batch_size": 1, "save_total_limit": 1}
    run = {"task": case.task, "args": {"cache_teacher": True, **args, **layout.arguments(case)}}
    whole, killed = ({**run, "output_dir": str(tmp_path / name)} for name in ("whole", "killed"))
    launch(tmp_path, layout, [whole])
    reads = 24 // layout.processes  # 24 rows one by one; a shard is of two
    assert facts(tmp_path / "whole")["reads"] == reads

    assert launch(tmp_path, layout, [{**killed, "kill_at_read": 5}], check=False).returncode != 0
    cache = tmp_path / "killed" / "teacher_cache"
    assert not (cache / "cache.json").exists()
    written = len(list(cache.glob("partial-*/*.npz")))
    assert 0 < written < 12
    assert launch(tmp_path, layout, [{**killed, "kill_at_step": 5}], check=False).returncode != 0
    assert (cache / "cache.json").exists()
    assert [p.name for p in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-4"]
    launch(tmp_path, layout, [killed])
    assert facts(tmp_path / "killed")["reads"] == 0
    for name in (f"weights-{process}.txt" for process in range(layout.processes)):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.slow
def test_a_teacher_in_8_bit_says_nearly_the_same(models, tmp_path):
    pytest.importorskip("bitsandbytes")
    losses = []
    for eight in (False, True):
        teacher = str(models / "token" / "teacher")
        run = {"task": "token", "output_dir": str(tmp_path / str(eight)), "teacher": teacher}
        worker.main({"runs": [{**run, "args": {"teacher_load_in_8bit": eight}}]})
        losses.append(history(tmp_path / str(eight))[:, :1])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)
    assert (losses[0] != losses[1]).any()
