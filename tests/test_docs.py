"""Examples run, configs parse, and the commands that README shows are those that are tested."""

import doctest
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers.modeling_utils import unwrap_model

from tithe import evaluation, models, recipes, selection, trainers
from tithe.recipes import (
    compare_strategies,
    data_selection,
    distill_lm,
    distill_ner,
    evaluate_model,
    expert_loop,
    prompt_tune,
    slm_qa,
    tune,
)


ROOT = Path(__file__).parent.parent
ROOMS = ("selection", "models", "trainers", "evaluation", "recipes")
# Room by room: of an editable install the path of `tithe` itself leads nowhere.
MODULES = sorted(
    name
    for room in (selection, models, trainers, evaluation, recipes)
    for name in (room.__name__, *(m.name for m in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")))
)
PARSERS = {
    "expert_loop": expert_loop.parse,
    "distill_lm": distill_lm.parse,
    "distill_ner": distill_ner.parse,
    "compare_strategies": compare_strategies.parse,
    "data_selection": data_selection.parse,
    "evaluate_model": evaluate_model.parse,
    "prompt_tune": prompt_tune.parse,
    "slm_qa": slm_qa.parse,
    "tune": tune.parse,
}


def test_all_modules_are_known():
    assert len(MODULES) == sum(len(list((ROOT / room).rglob("*.py"))) for room in ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    unwrap_model(torch.nn.Identity())  # where DeepSpeed is installed, its first import prints a line into the example
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_parses_with_its_recipe(path, tmp_path):
    recipe = next(name for name in PARSERS if path.stem.startswith(name))
    extra = (
        ["--train_file", "x.csv"] if "dataset" not in yaml.safe_load(path.read_text()) and "data_" in path.stem else []
    )
    PARSERS[recipe](["--config", str(path), "--use_cpu", "true", *extra])


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_launch_config_is_one_of_accelerate(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    keys = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert 4 <= len(keys) <= 18


def test_the_commands_of_the_readme_are_targets():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"\nmake {target} " in readme and f"\n{target}: " in makefile
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()


def test_the_table_of_scaling_is_what_is_simulated():
    made = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "simulate_scale.py")], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() in (ROOT / "docs" / "scaling.md").read_text()


@pytest.mark.slow
def test_the_gpu_check_tries_every_part(tmp_path):
    path = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--json", str(path)]
    subprocess.run(command, capture_output=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = json.loads(path.read_text())
    assert {row["trainer"] for row in found["trainers"]} == {"selection", "distillation", "loop", "prompt"}
    assert all(found[part] for part in ("bits", "reading", "picks", "generation"))
