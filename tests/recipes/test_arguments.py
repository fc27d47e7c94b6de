"""Flags and config files into dataclasses and back."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from transformers import TrainingArguments

from tithe.recipes import data_selection
from tithe.recipes.arguments import ArgumentError, parse_arguments, resolved_arguments, save_run_yaml
from tithe.recipes.config_files import over_own_config
from tithe.recipes.errors import user_errors


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Config(TrainingArguments):
    budget: float = field(default=0.1, metadata={"help": "Share or number of examples."})
    strategy: str = field(default="random", metadata={"help": "Name of a strategy."})
    strategy_kwargs: dict | str | None = field(default=None, metadata={"help": "Its arguments."})
    rounds: int | None = field(default=None, metadata={"help": "Number of rounds."})


@dataclass
class Own:
    folder: Path = field(default=Path("here"), metadata={"help": "A folder."})
    colour: Colour = field(default=Colour.RED, metadata={"help": "A colour."})
    size: Literal["small", "large"] = field(default="small", metadata={"help": "A size."})
    layers: list[int] | None = field(default=None, metadata={"help": "Layers."})
    shuffle: bool = field(default=True, metadata={"help": "Whether to shuffle."})
    storage_options: dict[str, Any] | None = field(default=None, metadata={"help": "Options."})
    share: float = field(default=0.5, metadata={"help": "A share."})

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"`share` must be at most 1,\ngot {self.share}")


@dataclass
class Required:
    name: str = field(metadata={"help": "A name."})


def write(path: Path, values: Any) -> str:
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return str(path)


def error_of(types: list[type], argv: list[str]) -> str:
    with pytest.raises(ArgumentError) as caught:
        parse_arguments(types, argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("equals", [True, False])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_flags_override_the_file(tmp_path: Path, equals: bool, suffix: str) -> None:
    path = tmp_path / f"config{suffix}"
    path.write_text(json.dumps({"share": 0.25, "layers": [1, 2], "size": "large", "shuffle": False}))
    config = [f"--config={path}"] if equals else ["--config", str(path)]
    (own,) = parse_arguments([Own], [*config, "--share", "0.75"])
    assert (own.share, own.layers, own.size, own.shuffle) == (0.75, [1, 2], "large", False)


def test_a_further_file_overrides_the_first_and_flags_both(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", {"share": 0.1, "size": "large", "layers": [1]})
    second = write(tmp_path / "b.yaml", {"share": 0.2, "layers": [2]})
    (own,) = parse_arguments([Own], ["--config", first, f"--config={second}", "--layers", "3"])
    assert (own.share, own.size, own.layers) == (0.2, "large", [3])


def test_what_is_tuned_of_a_head_is_left_out_where_there_is_none(tmp_path: Path, capsys) -> None:
    config = write(tmp_path / "hyperparameters.yaml", {"share": 0.1, "head_dropout": 0.3, "head_learning_rate": 1e-3})
    (own,) = parse_arguments([Own], ["--config", config])
    assert own.share == 0.1
    said = capsys.readouterr().out.splitlines()
    assert [line.split("`")[1] for line in said] == ["head_dropout", "head_learning_rate"]
    assert all(line.startswith(f"{config}: ") for line in said)


@pytest.mark.parametrize(
    ("values", "flags", "lies_below"),
    [
        ({"seed": 3}, [], True),
        ({"seed": 3}, ["--dataset", "x"], False),
        ({"dataset": "x"}, [], False),
        ({"dataset": None}, [], True),
        ({"model_name_or_path": "x"}, [], False),
        (None, [], True),
        (None, ["--test_file=x"], False),
        (None, ["--seed", "3"], True),
    ],
)
def test_a_recipe_s_own_config_lies_below_what_names_no_data_and_no_model(
    tmp_path: Path, values: dict | None, flags: list[str], lies_below: bool
) -> None:
    given = [] if values is None else ["--config", write(tmp_path / "c.yaml", values)]
    with over_own_config([*given, *flags], "data_selection") as argv:
        assert argv[-len(given + flags) or len(argv) :] == [*given, *flags]
        assert (len(argv) > len(given + flags)) == lies_below
        assert not lies_below or argv[1].endswith("data_selection.yaml")


def test_several_dataclasses_share_one_command_line(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", {"budget": 100, "folder": "there", "colour": "blue", "use_cpu": True})
    own, training = parse_arguments([Own, Config], ["--config", config, "--learning_rate", "1e-3", "--no_shuffle"])
    assert (own.folder, own.shuffle, training.learning_rate) == (Path("there"), False, 1e-3)
    assert training.budget == 100.0 and isinstance(training.budget, float)
    assert own.colour == "blue" or own.colour is Colour.BLUE


def test_required_field_may_come_from_the_file(tmp_path: Path) -> None:
    assert "name" in error_of([Required], [])
    assert parse_arguments([Required], ["--config", write(tmp_path / "c.yaml", {"name": "x"})])[0].name == "x"


def test_numbers_and_words_of_a_yaml_file_are_what_they_look_like(tmp_path: Path) -> None:
    config = write(
        tmp_path / "c.yaml", "learning_rate: 5e-5\neval_strategy: no\nrun_name: 2020-01-01\nuse_cpu: true\n"
    )
    (training,) = parse_arguments([Config], ["--config", config])
    assert training.learning_rate == 5e-5
    assert training.eval_strategy.value == "no"
    assert training.run_name == "2020-01-01"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rounds": [1, 2]}, ["`rounds`", "a whole number", "list [1, 2]"]),
        ({"rounds": True}, ["`rounds`", "a whole number", "bool True"]),
        ({"rounds": 2.5}, ["`rounds`", "a whole number", "float 2.5"]),
        ({"budget": "much"}, ["`budget`", "a number", "str 'much'"]),
        ({"budget": False}, ["`budget`", "a number", "bool False"]),
        ({"strategy": 3}, ["`strategy`", "text", "int 3"]),
        ({"bf16": "yes"}, ["`bf16`", "true or false", "str 'yes'"]),
        ({"lr_scheduler_kwargs": [1]}, ["`lr_scheduler_kwargs`", "a mapping", "list [1]"]),
        ({"lr_scheduler_type": "liner"}, ["`lr_scheduler_type`", "'linear'", "'liner'"]),
        ({"log_level": "loud"}, ["`log_level`", "'debug'", "'loud'"]),
        ({"label_names": [1]}, ["`label_names`", "a list of str", "[1]"]),
        ({"lerning_rate": 1.0}, ["`lerning_rate`", "`learning_rate`"]),
    ],
)
def test_wrong_values_of_a_file(tmp_path: Path, values: dict, words: list[str]) -> None:
    config = write(tmp_path / "c.yaml", values)
    message = error_of([Config], ["--config", config])
    assert message.startswith(config)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": "medium"}, ["`size`", "'small', 'large'", "'medium'"]),
        ({"colour": "green"}, ["`colour`", "'red', 'blue'", "'green'"]),
        ({"layers": [1, True]}, ["`layers`", "a list of int"]),
    ],
)
def test_wrong_choices_of_a_file(tmp_path: Path, values: dict, words: list[str]) -> None:
    message = error_of([Own], ["--config", write(tmp_path / "c.yaml", values)])
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("- 1\n- 2\n", "a mapping"),
        ("just words", "a mapping"),
        ("a: [1\nb: 2", "line"),
        ("share: 0.1\nshare: 0.2", "`share` is given twice"),
    ],
)
def test_unusable_file(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    message = error_of([Own], ["--config", str(path)])
    assert str(path) in message and words in message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sharee", "1"], "unknown flag `--sharee`; did you mean `--share`?"),
        (["--shar", "1"], "did you mean `--share`?"),  # argparse by itself would take it for --share
        (["--share=0.1", "stray"], "unexpected argument 'stray'"),
        (["--share", "x"], "argument `--share`: invalid float value: 'x'"),
        (["--size", "medium"], "argument `--size`: invalid choice: 'medium'"),
        (["--storage_options", "[1]"], "argument `--storage_options`: expected a JSON mapping"),
        (["--storage_options", "{a: 1}"], "argument `--storage_options`: expected a JSON mapping"),
        (["--share", "2"], "`share` must be at most 1, got 2.0"),
        (["--config"], "`--config` needs the name of a file"),
    ],
)
def test_wrong_command_line(argv: list[str], words: str) -> None:
    assert words in error_of([Own], argv)


def test_error_of_a_parent_class_is_one_line() -> None:
    argv = ["--use_cpu", "--load_best_model_at_end", "--eval_strategy", "epoch", "--save_strategy", "steps"]
    assert "save and eval strategy to match" in error_of([Config], argv)


def test_json_flags_become_mappings() -> None:
    own, training = parse_arguments(
        [Own, Config], ["--use_cpu", "--storage_options", '{"anon": true}', "--strategy_kwargs", '{"buckets": 3}']
    )
    assert own.storage_options == {"anon": True}
    assert training.strategy_kwargs == {"buckets": 3}


@pytest.mark.parametrize("names", [["none"], ["clearml"], ["clearml", "tensorboard"]])
def test_a_text_or_several(names: list[str], tmp_path: Path) -> None:
    """`TrainingArguments` takes both for `report_to`, and so do flags and files."""
    (parsed,) = parse_arguments((Config,), ["--output_dir", "out", "--report_to", *names])
    file = write(tmp_path / "c.yaml", {"output_dir": "out", "report_to": names[0] if len(names) == 1 else names})
    (read,) = parse_arguments((Config,), ["--config", file])
    assert parsed.report_to == read.report_to == [name for name in names if name != "none"]


def test_resolved_arguments_are_own_fields_and_what_was_changed() -> None:
    own, training = parse_arguments([Own, Config], ["--use_cpu", "--colour", "blue", "--lr_scheduler_type", "cosine"])
    assert resolved_arguments(own, training) == {
        "folder": "here",
        "colour": "blue",
        "size": "small",
        "shuffle": True,
        "share": 0.5,
        "lr_scheduler_type": "cosine",
        "use_cpu": True,
        "budget": 0.1,
        "strategy": "random",
    }


def test_round_trip_through_run_yaml(tmp_path: Path) -> None:
    argv = ["--use_cpu", "--eval_strategy", "no", "--lr_scheduler_type", "cosine_with_restarts"]
    argv += ["--lr_scheduler_kwargs", '{"num_cycles": 2}', "--strategy_kwargs", '{"name": "no", "rate": "5e-5"}']
    argv += ["--layers", "1", "-2", "--folder", "über: all", "--run_name", "1e3", "--rounds", "3", "--size", "large"]
    argv += ["--learning_rate", "3e-7", "--logging_steps", "5", "--output_dir", str(tmp_path)]
    first = parse_arguments([Own, Config], argv)
    path = tmp_path / "run.yaml"
    save_run_yaml(path, *first)
    second = parse_arguments([Own, Config], ["--config", str(path)])
    assert resolved_arguments(*second) == resolved_arguments(*first)
    assert second[1].lr_scheduler_kwargs == {"num_cycles": 2}
    assert second[1].strategy_kwargs == {"name": "no", "rate": "5e-5"}
    assert (second[0].layers, second[0].folder, second[1].run_name) == ([1, -2], Path("über: all"), "1e3")
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_round_trip_of_instances_built_by_hand(tmp_path: Path) -> None:
    built = Config(output_dir="out", use_cpu=True, strategy_kwargs={"a": 1}, eval_strategy="epoch", label_names=["y"])
    save_run_yaml(tmp_path / "run.yaml", built)
    (parsed,) = parse_arguments([Config], ["--config", str(tmp_path / "run.yaml")])
    assert parsed.to_dict() == built.to_dict()
    assert resolved_arguments(parsed) == resolved_arguments(built)


def test_derived_values_follow_an_override(tmp_path: Path) -> None:
    argv = ["--use_cpu", "--load_best_model_at_end", "--eval_strategy", "epoch", "--save_strategy", "epoch"]
    (first,) = parse_arguments([Config], argv)
    assert first.greater_is_better is False  # derived from the loss
    save_run_yaml(tmp_path / "run.yaml", first)
    config = ["--config", str(tmp_path / "run.yaml")]
    (second,) = parse_arguments([Config], [*config, "--metric_for_best_model", "f1"])
    assert second.greater_is_better is True


def test_a_field_changed_after_parsing_is_resolved_as_it_is_now() -> None:
    (training,) = parse_arguments([Config], ["--use_cpu", "--strategy_kwargs", '{"a": 1}'])
    training.strategy_kwargs["a"] = 2
    training.budget = 0.3
    resolved = resolved_arguments(training)
    assert resolved["strategy_kwargs"] == {"a": 2} and resolved["budget"] == 0.3


def test_secrets_are_not_resolved() -> None:
    own, training = parse_arguments(
        [Own, Config],
        [
            "--use_cpu",
            "--hub_token",
            "hf_x",
            "--storage_options",
            '{"key": "k", "anon": false, "client": {"secret": 1}}',
        ],
    )
    assert training.hub_token == "hf_x"
    resolved = resolved_arguments(own, training)
    assert "hub_token" not in resolved
    assert resolved["storage_options"] == {"anon": False, "client": {}}


def test_help_lists_every_field_grouped_by_class(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments([Config, Own], ["--help"], description="What it does.")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for words in (
        "What it does.",
        "Share or number of examples.",
        "--learning_rate",
        "--config FILE",
        "Whether to shuffle.",
    ):
        assert words in text
    assert text.index("Share or number") < text.index("\nTraining (Hugging Face):") < text.index("\nOwn:")


def test_help_of_any_recipe_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        data_selection.main(["--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "--budget X" in text and "--label_column TEXT" in text and "--learning_rate" in text
    assert "--label-column" not in text and "(default: None)" not in text and "--adam_beta1" not in text


def test_all_of_the_help_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments([Config, Own], ["--help_all"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and "--adam_beta1" in text and "--budget X" in text


@pytest.mark.parametrize(
    "error", [ValueError("bad\n  value"), FileNotFoundError("x: no such file"), ImportError("need x")]
)
def test_user_errors_are_one_line_and_status_2(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TITHE_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as caught, user_errors():
        raise error
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"


def test_only_the_kinds_asked_for_are_user_errors() -> None:
    with pytest.raises(ValueError, match="a bug"), user_errors(FloatingPointError):
        raise ValueError("a bug")
    with pytest.raises(SystemExit), user_errors(FloatingPointError):
        raise FloatingPointError("the loss is nan")


def test_only_the_first_process_of_a_machine_reports(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit), user_errors():
        raise ValueError("bad")
    assert capsys.readouterr().err == ""


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(KeyError), user_errors():
        raise KeyError("a bug")


def test_traceback_on_request(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tithe.recipes.arguments import parse_arguments\nfrom tithe.recipes.errors import user_errors\n"
        "from tithe.recipes.data_arguments import DataArguments\n"
        "with user_errors():\n    parse_arguments([DataArguments])\n"
    )
    command = [sys.executable, str(script), "--validation_file", "x.csv"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TITHE_TRACEBACK": "1"})
    assert run.returncode == 2
    assert "Traceback" in run.stderr and "__post_init__" in run.stderr
    assert run.stderr.splitlines()[-1] == "error: `validation_file` needs `train_file`; for other data use `dataset`"
