"""`tithe` as it is typed: what it lists, what it says of mistakes, what the shell completes."""

import os
import subprocess
import sys

import pytest
import yaml

from tithe.recipes import cli, data_selection
from tithe.recipes.config_files import read_config
from tithe.recipes.config_shelf import shelved_names
from tithe.selection import STRATEGIES, WRAPPERS


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.delenv("TITHE_TRACEBACK", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)


def told(capsys, *argv):
    cli.main(list(argv))
    return capsys.readouterr().out


def refused(capsys, *argv, status=2):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == status and sum(line.startswith("error: ") for line in lines) == 1
    return next(line for line in lines if line.startswith("error: "))


def widest(text):
    return max(len(line.rstrip()) for line in text.splitlines())


def test_lists_every_recipe_in_a_line_each(capsys):
    text = told(capsys)
    assert text == told(capsys, "--help") and widest(text) <= 80
    for name, summary in cli.RECIPES.items():
        assert any(line.split() == [name, *summary.split()] for line in text.splitlines())


def test_strategies_fit_80_columns(capsys):
    text = told(capsys, "strategies")
    assert widest(text) <= 80
    assert all(f"\n{name} " in f"\n{text}" for name in [*STRATEGIES, *WRAPPERS])
    assert "arXiv:1708.00489" in text


def test_one_strategy_in_full(capsys):
    text = told(capsys, "strategies", "edfs_lite")
    assert widest(text) <= 80 and "buckets = 3" in text and "Prefer it where" in text
    assert """--strategy edfs_lite --strategy_kwargs '{"buckets": 3}'""" in text
    assert "did you mean `margin`?" in refused(capsys, "strategies", "margn")


def test_configs_are_listed_shown_and_copied(capsys, tmp_path):
    text = told(capsys, "configs", "list")
    assert text == told(capsys, "configs") and widest(text) <= 80
    assert all(name in text for name in shelved_names())
    shown = told(capsys, "configs", "show", "zero3")
    assert yaml.safe_load(shown)["distributed_type"] == "DEEPSPEED"
    assert told(capsys, "configs", "copy", "zero3") == "copied to zero3.yaml\n"
    assert (tmp_path / "zero3.yaml").read_text() == shown
    (tmp_path / "zero3.yaml").write_text("mine")
    assert "--force" in refused(capsys, "configs", "copy", "zero3")
    assert (tmp_path / "zero3.yaml").read_text() == "mine"
    told(capsys, "configs", "copy", "zero3.yaml", "--force")
    assert (tmp_path / "zero3.yaml").read_text() == shown
    assert "did you mean `zero3`?" in refused(capsys, "configs", "show", "zerro3")


def test_a_config_that_comes_with_tithe_is_found_by_its_name(tmp_path):
    assert read_config("data_selection_frozen")["freeze_embeddings"] is True
    (tmp_path / "data_selection_frozen").write_text("budget: 7")
    assert read_config("data_selection_frozen") == {"budget": 7}
    with pytest.raises(FileNotFoundError):
        read_config("folder/data_selection_frozen")


def test_a_command_mistyped(capsys):
    assert refused(capsys, "data_selecton") == "error: no command 'data_selecton'; did you mean `data_selection`?"
    assert "`tithe --help` lists those known" in refused(capsys, "xyzzy")


def test_dashes_and_underscores_are_one(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["data-selection", "--help"])
    assert ended.value.code == 0 and "usage: tithe data_selection" in capsys.readouterr().out


def test_an_error_nobody_foresaw_is_one_line_and_its_traceback_kept(capsys, monkeypatch, tmp_path):
    def broken(argv):
        raise KeyError("lost")

    monkeypatch.setattr(data_selection, "main", broken)
    line = refused(capsys, "data_selection", status=1)
    assert line.startswith("error: KeyError: 'lost'; the traceback is in ")
    assert "in broken" in (tmp_path / "cache" / "last_error.txt").read_text()


DEBUGGED = [["--debug", "data_selection"], ["data_selection", "--debug"], ["data_selection", "--debug", "--debug"]]


@pytest.mark.parametrize("argv", DEBUGGED)
def test_debug_shows_the_traceback(capsys, monkeypatch, argv):
    def broken(argv):
        raise KeyError(f"lost {argv}")

    monkeypatch.setattr(data_selection, "main", broken)
    with pytest.raises(SystemExit):
        cli.main(argv)
    text = capsys.readouterr().err
    assert "Traceback" in text and "in broken" in text and "lost []" in text


def test_debug_of_transformers_reaches_it(monkeypatch):
    given = []
    monkeypatch.setattr(data_selection, "main", given.extend)
    cli.main(["data_selection", "--debug", "underflow_overflow"])
    assert given == ["--debug", "underflow_overflow"]


def completed(words, index):
    environment = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(index), "_TITHE_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", "from tithe.recipes.cli import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line.split(",")[1] for line in done.stdout.splitlines() if line.startswith("plain,")]


def test_the_shell_completes_commands_names_and_flags(tmp_path):
    assert completed("tithe data", 1) == ["data_selection"]
    assert completed("tithe data_selection --strategy k_", 3) == ["k_center"]
    assert completed("tithe strategies bal", 2) == ["bald", "balanced"]
    assert completed("tithe configs show zero3_", 3) == ["zero3_cpu", "zero3_offload"]
    assert completed("tithe data_selection --config data_selection_m", 3) == ["data_selection_modernbert"]
    assert completed("tithe data_selection --bu", 2) == ["--budget"]
    kept = tmp_path / "cache" / "flags.json"
    kept.write_text(kept.read_text().replace('"--budget"', '"--bundle"'))
    assert completed("tithe data_selection --bu", 2) == ["--bundle"]  # the second time out of the cache
    kept.write_text(kept.read_text().replace('"versions": {', '"versions": {"older": "1", '))
    assert completed("tithe data_selection --bu", 2) == ["--budget"]  # anew, as a version is another one


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(capsys, shell):
    assert "_TITHE_COMPLETE" in told(capsys, "completion", shell)
    assert "bash, zsh, fish" in refused(capsys, "completion", "csh").replace("'", "")


TYPOS = {
    "--train_fle train.csv": "did you mean `--train_file`?",
    "--train_file trian.csv": "trian.csv",
    "--text_column reveiw": "did you mean `--text_column review`?",
    "--label_column sentimnt": "did you mean `--label_column sentiment`?",
    "--budget 10%": "`--budget`: invalid float value: '10%'",
    "--budget 0": "`budget` must be",
    "--strategy k_centre": "Did you mean `k_center`?",
    "--model_name_or_path smal": "smal",
    "--learning_rate fast": "`--learning_rate`: invalid float value: 'fast'",
    "--num_train_epochs": "`--num_train_epochs`: expected one argument",
    "--metric_for_best_model f1_marco": "did you mean `f1_macro`?",
    "--eval_strategy epochs": "epochs",
    "--config mine.yaml": "`--config` mine.yaml: No such file or directory",
    "--config data_selection_frozn": "did you mean `data_selection_frozen`?",
    "--output_dir train.csv": "`output_dir` train.csv is a file",
    "--report_to tensorbord": "`report_to` tensorbord is no tracker; there are",
    "--strategy_kwargs {beta:1}": "`--strategy_kwargs`: expected a JSON mapping",
    "--proxy linaer": "linaer",
    "train.csv": "unexpected argument 'train.csv': every value follows its flag",
}


@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_in_any_argument_is_told_before_training(capsys, monkeypatch, tmp_path, typo):
    """The command of the README for one's own data, with one argument after the other mistyped."""
    lines = [f"text number {n} of words,{'good' if n % 2 else 'bad'}" for n in range(60)]
    (tmp_path / "train.csv").write_text("\n".join(["review,sentiment", *lines]))
    right = {"--train_file": "train.csv", "--text_column": "review", "--label_column": "sentiment"}
    right |= {"--model_name_or_path": "small", "--learning_rate": "1e-3", "--output_dir": "run", "--use_cpu": "true"}
    flag, _, value = typo.partition(" ")
    if flag == "--train_fle":
        del right["--train_file"]
    command = [part for pair in right.items() for part in pair if pair[0] != flag]
    line = refused(capsys, "data_selection", *command, flag, *([value] if value else []))
    assert TYPOS[typo] in line
    assert not list(tmp_path.glob("run/checkpoint-*"))
