"""Every recipe under the launch configs that run on the CPU: what one process leaves, two leave, and ZeRO, too."""

import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launching import told

from tithe.recipes.small_model import build_small_model
from tithe.recipes.tagger import build_small_tagger


ROOT = Path(__file__).parents[2]
COLOURS, THINGS = "red green blue white black yellow".split(), "stone river house cloud apple boat".split()
TRAINING = {"use_cpu": "true", "disable_tqdm": "true", "report_to": "none", "logging_steps": 1}


def classified(rng, number):
    kind = int(rng.integers(2))
    return {"text": " ".join(rng.choice((COLOURS, THINGS)[kind], 5)), "label": ("colour", "thing")[kind]}


def tagged(rng, number):
    words = rng.choice([*COLOURS, *THINGS, "the", "is"], 6).tolist()
    return {"tokens": words, "labels": ["B-COL" if word in COLOURS else "O" for word in words]}


def written(rng, number):
    words = rng.choice([*COLOURS, *THINGS, "the", "is"], 12).tolist()
    return {"text": " ".join(words)}


def instructed(rng, number):
    words = rng.choice(THINGS, 3).tolist()
    return {"instruction": "Repeat.", "input": " ".join(words), "output": " ".join(words)}


def asked(rng, number):
    thing, colour = str(rng.choice(THINGS)), str(rng.choice(COLOURS))
    return {"question": f"Colour of {thing} {number}?", "answers": [colour], "context": f"{thing} {number}: {colour}"}


WARM = {"iteration_start": "warm"}  # nothing else under DeepSpeed
# A last batch that is not full is filled up in several processes: there is none, of 96 rows, or in so many steps.
RECIPES = {
    "data_selection": (classified, {"budget": 0.25, "num_train_epochs": 2}),
    "distill_ner": (tagged, {"teacher_learning_rate": 1e-3, "num_train_epochs": 1, "label_column": "labels"}),
    "distill_lm": (written, {"teacher_learning_rate": 1e-3, "learning_rate": 1e-3, "block_size": 32, "max_steps": 4}),
    "expert_loop": (
        classified,
        {"initial_pool_size": 16, "query_size": 8, "max_iterations": 1, "epochs_per_iteration": 1, **WARM},
    ),
    "prompt_tune": (instructed, {"base_epochs": 1, "num_train_epochs": 1, "learning_rate": 1e-3}),
    "slm_qa": (asked, {"base_epochs": 1, "num_train_epochs": 1, "tune": "true", "max_new_tokens": 4}),
}


def still(recipe, folder):
    """A model without dropout, whose masks would be others in two processes; some of the small ones have none."""
    if recipe not in ("data_selection", "expert_loop", "distill_ner"):
        return "small"
    model, texts = folder / f"{recipe}-model", [" ".join([*COLOURS, *THINGS, "the is"])] * 8
    if not model.exists():
        if recipe == "distill_ner":
            build_small_tagger(model, texts, ["O", "B-COL"], seed=0)
        else:
            build_small_model(model, texts, {0: "colour", 1: "thing"}, seed=0)
        config = json.loads((model / "config.json").read_text())
        config |= {name: 0.0 for name, value in config.items() if "dropout" in name and value}
        (model / "config.json").write_text(json.dumps(config))
    return model


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Runs a recipe in a layout; what its `results.json` says then."""
    folder = tmp_path_factory.mktemp("launched")

    @functools.cache
    def run(recipe, layout):
        make, settings = RECIPES[recipe]
        out, flags = folder / f"{recipe}-{layout}", []
        for seed, (split, count) in enumerate({"train": 96, "validation": 16, "test": 16}.items()):
            rng = np.random.default_rng(seed)
            path = folder / f"{recipe}-{split}.jsonl"
            path.write_text("".join(json.dumps(make(rng, number)) + "\n" for number in range(count)))
            flags += [f"--{split}_file", str(path)]
        size = {"per_device_train_batch_size": 8 if layout in ("one", "cpu") else 4}
        given = TRAINING | settings | size | {"model_name_or_path": still(recipe, folder), "output_dir": out}
        flags += [part for name, value in given.items() for part in (f"--{name}", str(value))]
        command = [sys.executable]
        if layout == "two":
            command += ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
            command += ["--rdzv_endpoint", "localhost:0"]
        elif layout != "one":
            command += ["-m", "accelerate.commands.launch", "--main_process_port", "0"]
            command += ["--config_file", str(ROOT / "accelerate_configs" / f"{layout}.yaml")]
        done = subprocess.run(
            [*command, str(ROOT / "recipes" / f"{recipe}.py"), *flags],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TITHE_CACHE": str(folder / "cache")},
        )
        assert done.returncode == 0, told(done.stderr)
        return json.loads((out / "results.json").read_text())

    return run


def numbers(value, path=""):
    """The leaves of nested mappings and lists that are numbers, by where they are."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in numbers(part, f"{path}/{name}").items()}
    return {path: value} if isinstance(value, int | float) else {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "layout"),
    [("data_selection", "cpu"), *itertools.product(RECIPES, ["two", "zero2_cpu", "zero3_cpu"])],
)
def test_leaves_what_one_process_leaves(launched, recipe, layout):
    if "zero" in layout:
        pytest.importorskip("deepspeed")
    expected, found = numbers(launched(recipe, "one")["metrics"]), numbers(launched(recipe, layout)["metrics"])
    assert expected.keys() == found.keys() and len(found) > 2
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-3), name
