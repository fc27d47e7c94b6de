"""The recipe from flags to report, on small files, as a user runs it."""

import importlib.util
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from card_code import run_cards
from hub_rules import check_card
from tables import write_rows
from transformers import pipeline

from tithe.evaluation import bootstrap_interval, is_unedited
from tithe.recipes import cli, data_selection, evaluate_model
from tithe.trainers import Ledger


ROOT = Path(__file__).parents[2]
LEFT = {
    *("run.yaml", "results.json", "rounds.jsonl", "trainer_state.json", "README.md", "report.html"),
    *("predictions.parquet", "memory_usage.json", "model.safetensors", "config.json", "tokenizer.json"),
    *(
        f"figures/{name}.png"
        for name in ("confusion_matrix", "confusion_matrix_normalised", "roc_curves", "pr_curves")
    ),
    *(f"figures/{name}.png" for name in ("learning_curve", "loss_curve", "pool_map", "class_balance", "reliability")),
}


@pytest.fixture
def flags(tmp_path):
    files = {"train": 160, "validation": 30, "test": 40}
    found = []
    for seed, (split, count) in enumerate(files.items()):
        found += [f"--{split}_file", str(write_rows(tmp_path / f"{split}.jsonl", count, seed))]
    settings = {"output_dir": tmp_path / "run", "model_name_or_path": "small", "learning_rate": 1e-3}
    settings |= {"num_train_epochs": 3, "use_cpu": "true", "disable_tqdm": "true", "budget": 0.25}
    return [*found, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))


def refused(capsys, *argv):
    """The one line with which the recipe turns `argv` down."""
    with pytest.raises(SystemExit) as ended:
        data_selection.main(list(argv))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(lines) == 1
    return lines[0]


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href")]


def test_a_run_leaves_what_it_should(flags, tmp_path, capsys):
    data_selection.main([*flags, "--strategy", "edfs_lite", "--rounds", "3"])
    run = tmp_path / "run"
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert {name for name in LEFT if (run / name).is_file()} == LEFT
    results = json.loads((run / "results.json").read_text())
    assert list(results) == ["recipe", "metrics", "selection", "timings", "memory", "environment", "data", "args"]
    assert results["data"]["rows"] == {"train": 160, "validation": 30, "test": 40}
    assert results["selection"]["selected"] == 40 and len(results["selection"]["coverage_radius"]) == 3
    assert set(results["memory"]) == {"loading", "training", "evaluation"}
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [row["size"] for row in rows] == [13, 27, 40]
    table = pq.read_table(run / "predictions.parquet").to_pylist()
    right = [row["correct"] for row in table if row["split"] == "test"]
    assert len(right) == 40 and np.mean(right) == pytest.approx(results["metrics"]["test"]["accuracy"])
    links = Links()
    links.feed((run / "report.html").read_text())
    assert links.found and all(link.startswith(("#", "data:")) for link in links.found)
    assert list((run / "runs").rglob("events.out.tfevents.*"))


def test_the_card_tells_history_and_intervals_and_its_code_runs(flags, tmp_path):
    data_selection.main([*flags, "--strategy", "margin", "--proxy", "none", "--rounds", "3"])
    card, rounds = tmp_path / "run" / "README.md", tmp_path / "run" / "rounds.jsonl"
    text, data = card.read_text(), check_card(card)
    assert run_cards(card)[0].startswith("[{'label': ")
    assert data.license is None and "fill in `license`" in text and not is_unedited(text)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    table = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    right = [row["correct"] for row in table if row["split"] == "test"]
    interval = bootstrap_interval(right)
    (line,) = [line for line in text.splitlines() if line.startswith("| accuracy |")]
    assert line.endswith(f" {np.mean(right):.4f} [{interval.low:.4f}, {interval.high:.4f}] |")
    assert f"| fingerprint | {results['data']['fingerprint']} |" in text and "| rows of train | 160 |" in text
    for row in map(json.loads, rounds.read_text().splitlines()):
        assert f"| {row['round']} | {row['step']} | {row['strategy'].split('(')[0]} | {row['added']} |" in text
    assert "Energy and emissions were not measured." in text and "| training of the run |" in text


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason='needs pip install "tithe[carbon]"')
def test_a_pushed_run_ends_with_its_card_on_the_hub(flags, tmp_path, hub):
    more = {"push_to_hub": "true", "hub_model_id": "me/tenth", "hub_token": "hf_secret", "model_license": "apache-2.0"}
    more |= {"track_emissions": "DEU", "num_train_epochs": 1}
    data_selection.main([*flags, *(part for name, value in more.items() for part in (f"--{name}", str(value)))])
    assert {repository for repository, _ in hub} == {"me/tenth"}
    text = hub[-1][1]["README.md"].decode()
    card = tmp_path / "run" / "README.md"
    assert list(hub[-1][1]) == ["README.md"] and text == card.read_text()
    data = check_card(card)
    assert data.license == "apache-2.0" and 'model="me/tenth"' in text and "hf_secret" not in text
    kept = json.loads((tmp_path / "run" / "emissions.json").read_text())
    assert data.co2_eq_emissions["emissions"] == pytest.approx(kept["grams"], rel=1e-3) and kept["grams"] > 0
    assert data.co2_eq_emissions["geographical_location"] == "Germany"


def test_a_country_that_there_is_not_is_refused(flags, capsys):
    wanted = "no country" if importlib.util.find_spec("codecarbon") else "tithe[carbon]"
    assert wanted in refused(capsys, *flags, "--track_emissions", "XXX")


def test_the_saved_model_is_a_model_like_any_other(flags, tmp_path):
    data_selection.main(flags)
    classify = pipeline("text-classification", model=str(tmp_path / "run"), device="cpu")
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()[:20]
    answers = classify([row["text"] for row in rows])
    assert [answer["label"] for answer in answers] == [row["prediction"] for row in rows]
    np.testing.assert_allclose([a["score"] for a in answers], [row["probability"] for row in rows], atol=1e-5)


def test_run_yaml_repeats_the_run(flags, tmp_path, capsys):
    data_selection.main([*flags, "--strategy", "k_center", "--strategy_kwargs", '{"robust": 0.01}'])
    again = tmp_path / "again"
    data_selection.main(["--config", str(tmp_path / "run" / "run.yaml"), "--output_dir", str(again)])
    first, second = Ledger.load(tmp_path / "run"), Ledger.load(again)
    assert first.selected.tolist() == second.selected.tolist()
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert model == (again / "model.safetensors").read_bytes()


def test_a_complete_run_is_not_run_again(flags, tmp_path, capsys):
    data_selection.main(flags)
    before = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    capsys.readouterr()
    data_selection.main(flags)
    out = capsys.readouterr().out
    assert "is complete" in out and out.splitlines()[-1].startswith("report: ")
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == before
    data_selection.main([*flags, "--overwrite", "true"])
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns > before
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["overwrite"] is False


def test_a_stopped_run_goes_on(flags, tmp_path, monkeypatch):
    data_selection.main([*flags, "--output_dir", str(tmp_path / "whole")])

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    for place in ("write_run", "_evaluate"):
        monkeypatch.setattr(data_selection, place, killed)
        with pytest.raises(Killed):
            data_selection.main(flags)
        monkeypatch.undo()
        monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    data_selection.main(flags)
    for name in ("model.safetensors", "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_all_random_and_early_stopping(flags, tmp_path):
    data_selection.main([*flags, "--strategy", "all", "--early_stopping_patience", "1", "--num_train_epochs", "4"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["selection"]["selected"] == 160 and results["selection"]["strategy"] == "All()"


def test_evaluate_model_finds_the_data_of_its_run(flags, tmp_path):
    data_selection.main(flags)
    run = tmp_path / "run"
    evaluate_model.main(["--model_name_or_path", str(run), "--use_cpu", "true"])
    first, second = (json.loads((p / "results.json").read_text())["metrics"] for p in (run, run / "evaluation"))
    assert second["test"] == pytest.approx(first["test"], abs=1e-6) and set(second) == {"validation", "test"}
    with pytest.raises(SystemExit):
        evaluate_model.main(["--model_name_or_path", str(run), "--output_dir", str(run), "--use_cpu", "true"])
    assert json.loads((run / "results.json").read_text())["recipe"] == "data_selection"
    checkpoint = next(run.glob("checkpoint-*"))
    evaluate_model.main(["--model_name_or_path", str(checkpoint), "--splits", "test", "--use_cpu", "true"])
    assert set(json.loads((checkpoint / "evaluation" / "results.json").read_text())["metrics"]) == {"test"}
    other = tmp_path / "other.jsonl"
    other.write_text(
        '{"text": "oak ash elm yew", "label": "tree"}\n{"text": "rose and tulip", "label": "flower"}\n' * 20
    )
    with pytest.raises(SystemExit):
        evaluate_model.main(["--model_name_or_path", str(run), "--train_file", str(other), "--use_cpu", "true"])


def test_evaluate_model_refuses_what_is_no_model(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SystemExit):
            evaluate_model.main(["--model_name_or_path", str(folder), "--use_cpu", "true"])
        assert "error: `model_name_or_path`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--strategy", "edsf_lite"], "edfs_lite"),
        (["--budget", "0"], "`budget` must be above 0"),
        (["--budget", "-0.5"], "`budget` must be above 0"),
        (["--budget", "161"], "`budget` is 161 rows, the pool has 160"),
        (["--rounds", "4", "--proxy", "none"], "`rounds` is 4, but there are 3 epochs"),
        (["--rounds", "3", "--budget", "2"], "the budget is 2 rows"),
        (["--label_column", "labels"], "label"),
        (["--buget", "0.1"], "budget"),
        (["--budget", "much"], "budget"),
        (["--freeze_layers", "3"], "`freeze_layers` must be from 0 to 2"),
        (["--learning_rate", "5e-5"], "pass --learning_rate 1e-3"),
        (["--max_length", "512"], "`max_length` is 512, the model takes at most 256"),
        (["--head_dropout", "1.5"], "`head_dropout`"),
        (["--model_name_or_path", "nobody/nothing"], "could not be loaded"),
        (["--early_stopping_patience", "0"], "`early_stopping_patience`"),
        (["--resume_from_checkpoint", "nowhere"], "missing or was never finished"),
    ],
)
def test_bad_arguments_are_one_line_before_training(flags, capsys, tmp_path, extra, message):
    assert message in refused(capsys, *flags, *extra)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test", '{"text": "a new kind", "label": "planet"}\n', "planet"),
        ("test", "", "test"),
        ("validation", '{"text": "", "label": "fruit"}\n', "text"),
        ("train", '{"text": 5, "label": "fruit"}\n', "text"),
        ("train", "text,label\na,fruit\n", "train.jsonl"),
    ],
)
def test_bad_data_are_one_line_before_training(flags, capsys, tmp_path, name, content, message):
    (tmp_path / f"{name}.jsonl").write_text(content)
    assert message in refused(capsys, *flags)


def test_a_single_class_is_refused(flags, capsys, tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "an apple", "label": "fruit"}\n' * 5)
    assert "'fruit'" in refused(capsys, *flags)


def test_a_folder_of_another_run_is_refused(flags, capsys, tmp_path):
    data_selection.main(flags)
    assert "its `strategy` is margin_coverage, this one's is random" in refused(capsys, *flags, "--strategy", "random")
    (tmp_path / "run" / "run.yaml").unlink()
    assert "is no run's, and holds results.json" in refused(capsys, *flags)


@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_a_folder_that_is_no_run_is_left_alone(flags, capsys, tmp_path, overwrite):
    project = tmp_path / "project"
    (project / "figures").mkdir(parents=True)
    (project / "README.md").write_text("mine")
    line = refused(capsys, *flags, "--output_dir", str(project), "--overwrite", overwrite)
    assert "is no run's, and holds README.md" in line
    assert (project / "README.md").read_text() == "mine" and (project / "figures").is_dir()


def test_a_run_that_came_to_nothing_does_not_keep_its_folder(flags, capsys, tmp_path):
    assert "nowhere.jsonl" in refused(capsys, *flags, "--test_file", str(tmp_path / "nowhere.jsonl"))
    assert (tmp_path / "run" / "run.yaml").exists()
    data_selection.main([*flags, "--budget", "0.5"])
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["budget"] == 0.5


def test_a_config_file_is_checked_like_flags(flags, capsys, tmp_path):
    config = tmp_path / "my.yaml"
    for content, message in (("budgt: 0.1", "budget"), ("rounds: [1, 2]", "rounds"), ("rounds: true", "rounds")):
        config.write_text(content)
        line = refused(capsys, *flags, "--config", str(config))
        assert message in line and "my.yaml" in line


def test_a_nan_loss_is_one_line_too(flags, capsys):
    assert "the training loss is" in refused(capsys, *flags, "--learning_rate", "1e30", "--max_grad_norm", "0")


def test_without_arguments_it_is_the_embedded_corpus():
    data_args, model_args, args = data_selection.parse([])
    assert data_args.dataset == "api-docs" and model_args.model_name_or_path == "small"
    assert (args.budget, args.strategy, args.proxy) == (0.1, "margin_coverage", "linear")
    assert (args.rounds, args.learning_rate) == (None, 1e-3)
    _, model_args, args = data_selection.parse(["--train_file", "x.csv"])
    assert model_args.model_name_or_path is None and args.learning_rate == 5e-5
    assert data_selection.parse(["--strategy=random"])[2].num_train_epochs == 12


@pytest.mark.slow
@pytest.mark.parametrize("command", [["recipes/data_selection.py"], ["-m", "tithe.recipes.data_selection"]])
def test_the_ways_to_start_it(flags, command):
    subprocess.run([sys.executable, *command, *flags], cwd=ROOT, check=True, capture_output=True)


def test_the_command_line_lists_and_runs_recipes(flags, tmp_path, capsys):
    cli.main([])
    assert "data_selection" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["data_collection"])
    assert "no command 'data_collection'" in capsys.readouterr().err
    cli.main(["data-selection", *flags])
    assert (tmp_path / "run" / "report.html").is_file()
