"""The recipe from flags to report: batch size, trials, main run; resumed, shared, and feeding the other recipes."""

import csv
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from killing import Killed
from tables import write_rows

from tithe.recipes import (
    compare_strategies,
    data_selection,
    distill_lm,
    distill_ner,
    expert_loop,
    prompt_tune,
    slm_qa,
    tune,
)
from tithe.recipes.data import load_classification_data
from tithe.recipes.tuning_stages import TuningStages
from tithe.trainers import RoundSelectionTrainer


LEFT = {
    *("run.yaml", "settings.yaml", "results.json", "report.html", "memory_usage.json", "batch_size.json"),
    *("hyperparameters.yaml", "trials.csv", "trials.json", "study.db", "run/report.html", "run/model.safetensors"),
    *(f"figures/{name}.png" for name in ("history", "importance", "parallel", "curves", "memory")),
}
VALUES = {
    *("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay"),
    *("adam_beta1", "adam_beta2", "head_dropout"),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _quick_collection():
    """Each try and each trial collects garbage several times: leave out what the libraries keep."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def flags(tmp_path):
    found = []
    for seed, (split, count) in enumerate({"train": 160, "validation": 30, "test": 40}.items()):
        found += [f"--{split}_file", str(write_rows(tmp_path / f"{split}.jsonl", count, seed))]
    settings = {"output_dir": tmp_path / "tuned", "model_name_or_path": "small", "use_cpu": "true"}
    settings |= {"num_train_epochs": 2, "disable_tqdm": "true", "budget": 0.25, "report_to": "none"}
    settings |= {"trials": 3, "sample": 0.5, "per_device_train_batch_size": 6}
    given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return [*found, *given, "--learning_rate_range", "1e-4", "1e-2"]


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        tune.main(list(argv))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(lines) == 1
    return lines[0]


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def trials_of(folder):
    rows = json.loads((folder / "trials.json").read_text())["trials"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_run_leaves_what_it_should(flags, tmp_path, capsys):
    tune.main([*flags, "--strategy", "margin", "--rounds", "2", "--proxy", "none"])
    folder, out = tmp_path / "tuned", capsys.readouterr().out
    assert {name for name in LEFT if not (folder / name).is_file()} == set()
    assert out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert out.count("trial ") == 3

    best = yaml.safe_load((folder / "hyperparameters.yaml").read_text())
    assert best.keys() == VALUES
    results = results_of(folder)
    assert results["recipe"] == "tune"
    assert results["tuning"]["states"] == {"complete": 3}
    assert results["tuning"]["value"] == min(row["loss"] for row in trials_of(folder))

    main_run = results_of(folder / "run")
    assert {name: main_run["args"].get(name, 0.0) for name in ("learning_rate", "weight_decay", "head_dropout")} == {
        name: best[name] for name in ("learning_rate", "weight_decay", "head_dropout")
    }
    assert main_run["selection"]["strategy"].startswith("Margin")
    assert (results["metrics"], main_run["selection"]["selected"]) == (main_run["metrics"], 40)
    assert json.loads((folder / "run" / "config.json").read_text())["classifier_dropout"] == best["head_dropout"]

    with open(folder / "trials.csv", newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    batch = json.loads((folder / "batch_size.json").read_text())
    assert batch["per_device"] * batch["accumulation"] == 6

    tune.main([*flags, "--strategy", "margin", "--rounds", "2", "--proxy", "none"])  # only shown
    assert "is complete; to run it again" in capsys.readouterr().out
    assert results_of(folder) == results


def test_validation_and_test_are_not_touched_by_the_search(flags, tmp_path):
    data_args, model_args, args = tune.parse(flags)
    data = load_classification_data(data_args)
    stages = TuningStages(data, model_args, args)
    trained, scored, train = (set(rows["text"][:]) for rows in (stages.sample, stages.held_out, data.train))
    assert trained <= train and scored <= train and not trained & scored
    assert len(stages.sample) + len(stages.held_out) == 80
    assert len(stages.held_out) == 16
    shares = [sum(label == 0 for label in rows["label"]) / len(rows) for rows in (data.train, stages.sample)]
    assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_its_values_feed_other_recipes(flags, tmp_path, capsys):
    tune.main([*flags, "--stages", "batch_size", "search"])
    folder = tmp_path / "tuned"
    assert capsys.readouterr().out.splitlines()[-1] == f"hyper-parameters: {folder / 'hyperparameters.yaml'}"
    assert not (folder / "results.json").exists()
    best = yaml.safe_load((folder / "hyperparameters.yaml").read_text())
    for recipe in (data_selection, compare_strategies, expert_loop, distill_ner, distill_lm, prompt_tune, slm_qa):
        has_head = recipe in (data_selection, compare_strategies, expert_loop)
        _, model_args, args = recipe.parse(["--config", str(folder / "hyperparameters.yaml")])
        assert args.learning_rate == best["learning_rate"]
        assert (args.adam_beta1, args.adam_beta2) == (best["adam_beta1"], best["adam_beta2"])
        assert getattr(model_args, "head_dropout", None) == (best["head_dropout"] if has_head else None)
        assert ("`head_dropout` is left out" in capsys.readouterr().out) != has_head
        own = Path(recipe.__file__).parent / "configs" / f"{recipe.__name__.split('.')[-1]}.yaml"
        epochs = yaml.safe_load(own.read_text()).get("num_train_epochs", args.num_train_epochs)
        assert args.num_train_epochs == epochs  # the recipe's own config lies below

    tune.main(flags)  # the rest, with another choice of stages
    assert results_of(folder)["tuning"]["trials"] == 3


@pytest.mark.parametrize("at", ["trial", pytest.param("main run", marks=pytest.mark.slow)])
def test_stopped_anywhere_it_goes_on_to_the_same_result(flags, tmp_path, monkeypatch, at):
    tune.main([*flags, "--output_dir", str(tmp_path / "whole")])
    calls = {"trial": 5, "main run": 8}[at]  # trainings: two of the batch's, one a try, one a trial
    train, left = RoundSelectionTrainer.train, [calls]

    def dies(self, *args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return train(self, *args, **kwargs)

    monkeypatch.setattr(RoundSelectionTrainer, "train", dies)
    with pytest.raises(Killed):
        tune.main(flags)
    monkeypatch.undo()
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    tune.main(flags)
    assert trials_of(tmp_path / "tuned") == trials_of(tmp_path / "whole")
    assert results_of(tmp_path / "tuned")["metrics"] == results_of(tmp_path / "whole")["metrics"]


def test_pruned_by_accuracy_with_one_rate_for_the_head(flags, tmp_path):
    options = ["--prune", "true", "--objective", "accuracy", "--head_learning_rate_range", "1e-3", "1e-1"]
    tune.main([*flags, *options, "--stages", "search", "--weight_decays", "0.01", "--sampler", "tpe"])
    found = json.loads((tmp_path / "tuned" / "trials.json").read_text())
    best = yaml.safe_load((tmp_path / "tuned" / "hyperparameters.yaml").read_text())
    assert 1e-3 <= best["head_learning_rate"] <= 1e-1
    assert {row["weight_decay"] for row in found["trials"]} == {0.01}
    assert found["value"] == max(row["accuracy"] for row in found["trials"] if row["state"] == "complete")
    assert max(len(curve) for curve in found["curves"].values()) == 8
    assert best["per_device_train_batch_size"] == 6  # none was looked for


@pytest.mark.parametrize(
    ("objective", "greater"), [("loss", False), ("log_loss", False), ("ece", False), ("accuracy", True)]
)
def test_the_direction_is_that_of_the_objective(flags, objective, greater):
    _, _, args = tune.parse([*flags, "--objective", objective])
    assert args.maximises == greater


def test_a_batch_that_does_not_fit_is_accumulated(flags, tmp_path):
    tune.main([*flags, "--stages", "batch_size", "--largest_batch_size", "4"])
    batch = json.loads((tmp_path / "tuned" / "batch_size.json").read_text())
    assert (batch["per_device"], batch["accumulation"], batch["found"]["rows"]) == (3, 2, 4)
    data_args, model_args, args = tune.parse([*flags, "--run_processes", "2"])
    assert args.run_processes == 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["--learning_rate_range", "1e-3", "1e-4"], "`learning_rate_range`: a range needs two numbers above 0"),
            (["--head_dropout_range", "0.1", "0.2", "0.3"], "`head_dropout_range` takes two numbers"),
            (["--adam_betas", "0.9"], "`adam_betas` takes pairs such as 0.9,0.999; got '0.9'"),
            (["--adam_betas", "0.9,1.5"], "must lie in [0, 1)"),
            (["--stages", "serach"], "`stages` must be of batch_size, search, run; got 'serach'"),
            (["--sampler", "grid"], "`sampler` must be one of random, tpe"),
            (["--objective", "f1"], "`objective` must be one of loss, accuracy, "),
            (["--trials", "0"], "`trials` must be at least 1"),
            (["--held_out", "1"], "are shares from 0 to 1"),
            (["--memory_limit", "0"], "`memory_limit` must be above 0"),
            (["--trial", "3"], "did you mean `--trials`?"),
            (["--further_space", '{"strategy": ["margin"]}'], "`strategy` cannot be searched"),
            (["--further_space", '{"warmup_steps": 3}'], "must be a list of values, or a mapping"),
            (["--stages", "run"], "has no hyperparameters.yaml: let `stages` have `search`, too"),
            (["--sample", "0.01"], "has no class with two texts"),
            (["--memory_limit", "0.001"], "not even one row of"),
        ],
    )
    def test_is_one_line_before_any_training(self, flags, capsys, argv, words):
        assert words in refused(capsys, *flags, *argv)

    def test_ranges_for_pretrained_models(self, flags, capsys):
        place = flags.index("--learning_rate_range")
        assert "pass --learning_rate_range 3e-4 3e-3" in refused(capsys, *flags[:place])

    def test_another_search_in_the_folder(self, flags, capsys):
        tune.main([*flags, "--stages", "search"])
        assert "holds another run: its `trial_epochs` is 2.0, this one's is 1.0" in refused(
            capsys, *flags, "--trial_epochs", "1"
        )
        tune.main([*flags, "--trial_epochs", "1", "--stages", "search", "--overwrite", "true"])


def launched(*command):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True)


@pytest.mark.slow
class TestProcesses:
    def test_several_that_search_find_what_one_finds(self, flags, tmp_path):
        tune.main([*flags, "--trials", "6", "--output_dir", str(tmp_path / "one"), "--stages", "search"])
        done = launched("tithe.recipes.tune", *flags, "--trials", "6", "--processes", "2")
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("hyper-parameters: ") == 1  # with which a process ends that only searches
        assert trials_of(tmp_path / "tuned") == trials_of(tmp_path / "one")
        assert results_of(tmp_path / "tuned")["tuning"]["trials"] == 6

    def test_a_launcher_of_several_has_them_train_the_main_run_together(self, flags, tmp_path):
        torchrun = ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]
        done = launched(*torchrun, "tithe.recipes.tune", *flags, "--processes", "1")
        assert done.returncode == 0, done.stderr[-3000:]
        folder = tmp_path / "tuned"
        batch = json.loads((folder / "batch_size.json").read_text())
        assert batch["per_device"] * batch["accumulation"] * 2 == 6
        assert results_of(folder / "run")["environment"]["processes"] == 2
        assert results_of(folder)["tuning"]["trials"] == 3
