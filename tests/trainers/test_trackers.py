"""Trackers: what they are shown, that one that fails is no loss, and that no token is written."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations

from tithe.evaluation import class_balance
from tithe.trainers import ReliableTrainer, RoundSelectionConfig, RoundSelectionTrainer
from tithe.trainers.projector import describe_rows, rows_to_show
from tithe.trainers.round_pictures import rounds_to_show
from tithe.trainers.trackers import read_picture


HELPERS = Path(__file__).parents[1] / "helpers"


def trainer_of(folder, model, pool, collate, callbacks=(), strategy="entropy_diversity", **settings):
    settings = {"use_cpu": True, "disable_tqdm": True, "budget": 0.5, "rounds": 2, "num_train_epochs": 2} | settings
    settings = {"logging_steps": 1, "save_strategy": "no", "report_to": ["tensorboard"]} | settings
    args = RoundSelectionConfig(str(folder), strategy=strategy, **settings)
    return RoundSelectionTrainer(
        model, args, train_dataset=pool, eval_dataset=pool, data_collator=collate, callbacks=list(callbacks)
    )


def events(folder):
    """What TensorBoard finds in a folder and those below."""
    folders = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    assert folders
    return [EventAccumulator(str(path)).Reload() for path in folders]


def images(folder):
    """(name, step) → PNG bytes."""
    return {
        (tag, image.step): image.encoded_image_string
        for accumulator in events(folder)
        for tag in accumulator.Tags()["images"]
        for image in accumulator.Images(tag)
    }


def test_each_round_is_shown_at_its_step(tmp_path, model, pool, collate):
    trainer = trainer_of(tmp_path, model, pool, collate)
    trainer.train()
    second = trainer.ledger.rows[1]["step"]
    shown = images(tmp_path)
    assert list(shown) == [("rounds/00", 0), ("rounds/01", second)] and second > 0
    first, last = (read_picture(io.BytesIO(png)) for png in shown.values())
    # The first round is random: it has no scores and no embeddings, and so one panel of three.
    assert first.shape[1] < last.shape[1] and last.std() > 0


def test_a_proxy_shows_all_rounds_before_the_first_step(tmp_path, model, pool, collate):
    trainer_of(tmp_path, model, pool, collate, proxy="linear", rounds=3, max_steps=1).train()
    assert list(images(tmp_path)) == [("rounds/00", 0), ("rounds/01", 0), ("rounds/02", 0)]


def test_of_many_rounds_ten_are_shown():
    assert rounds_to_show(3) == {0, 1, 2} and rounds_to_show(10) == set(range(10))
    shown = sorted(rounds_to_show(20))
    assert len(shown) == 10 and (shown[0], shown[-1]) == (0, 19) and max(np.diff(shown)) <= 3


def test_nothing_is_drawn_where_no_tracker_shows_pictures(tmp_path, model, pool, collate, monkeypatch):
    monkeypatch.setattr("tithe.trainers.round_selection.show_round", pytest.fail)
    trainer = trainer_of(tmp_path, model, pool, collate, report_to=[])
    trainer.train()
    assert trainer._chooser.map is None and not (tmp_path / "runs").exists()


def test_the_whole_pool_is_no_choice_to_show(tmp_path, model, pool, collate):
    trainer_of(tmp_path, model, pool, collate, strategy="all", rounds=None).train()
    assert images(tmp_path) == {}


def test_any_trainer_logs_pictures_after_training_too(tmp_path, model, pool, collate):
    args = TrainingArguments(str(tmp_path / "run"), use_cpu=True, max_steps=1, report_to=["tensorboard"])
    trainer = ReliableTrainer(model, args, train_dataset=pool, data_collator=collate)
    trainer.train()
    path = class_balance(tmp_path / "balance.png", [0, 1, 1], [0, 1], ["a", "b"])
    trainer.log_picture("mine/balance", path)
    [((name, step), png)] = images(tmp_path / "run").items()
    assert (name, step) == ("mine/balance", 1)
    np.testing.assert_array_equal(read_picture(io.BytesIO(png)), read_picture(path))


class Failing(TensorBoardCallback):
    """A tracker whose server is gone from the given event on."""

    def __init__(self, event):
        super().__init__()
        self.calls, failing = [], event

        def fail(*args, **kwargs):
            self.calls.append(failing)
            raise ConnectionError("no route to https://me:hidden-password@tracker")

        setattr(self, event, fail)


class Counting(TrainerCallback):
    logs = 0

    def on_log(self, *args, **kwargs):
        self.logs += 1


@pytest.mark.parametrize("event", ["on_train_begin", "on_log", "on_train_end"])
def test_a_tracker_that_fails_is_warned_of_once_and_left_alone(tmp_path, model, pool, collate, event):
    failing, counting = Failing(event), Counting()
    trainer = trainer_of(tmp_path, model, pool, collate, [failing, counting], report_to=[])
    with pytest.warns(UserWarning, match="left alone") as warned:
        trainer.train()
    texts = [str(warning.message) for warning in warned if "left alone" in str(warning.message)]
    assert len(texts) == 1 and "hidden-password" not in texts[0] and "https://tracker" in texts[0]
    assert failing.calls == [event] and counting.logs > 2
    assert trainer.state.global_step == trainer.state.max_steps


def test_a_callback_that_is_no_tracker_still_ends_training(tmp_path, model, pool, collate):
    class Broken(TrainerCallback):
        def on_log(self, *args, **kwargs):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        trainer_of(tmp_path, model, pool, collate, [Broken()]).train()


def test_pictures_that_fail_are_no_loss(tmp_path, model, pool, collate, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("tithe.trainers.trackers.show_in_tensorboard", fail)
    trainer = trainer_of(tmp_path, model, pool, collate)
    with pytest.warns(UserWarning, match="tensorboard failed.*disk full") as warned:
        trainer.train()
    assert len([w for w in warned if "disk full" in str(w.message)]) == 1
    assert trainer.state.global_step == trainer.state.max_steps


def test_pictures_change_nothing_that_is_chosen_or_learnt(tmp_path, make_model, pool, collate):
    runs = []
    for name, report_to in (("with", ["tensorboard"]), ("without", [])):
        runs.append(trainer_of(tmp_path / name, make_model(), pool, collate, report_to=report_to))
        runs[-1].train()
    assert runs[0].ledger.selected.tolist() == runs[1].ledger.selected.tolist()
    for mine, other in zip(*(run.model.state_dict().values() for run in runs), strict=True):
        assert torch.equal(mine, other)


# Embeddings


def test_the_projector_shows_rows_with_label_and_round(tmp_path, model, pool, collate):
    trainer = trainer_of(tmp_path, model, pool, collate, log_embeddings=True)
    trainer.train()
    [table] = tmp_path.rglob("metadata.tsv")
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert header == ["label", "round", "row"] and len(rows) == len(pool)
    for row, (label, number, position) in enumerate(rows):
        expected = next((str(n) for n, chosen in enumerate(trainer.ledger.indices) if row in chosen), "not chosen")
        assert (label, number, position) == (model.config.id2label[pool[row]["label"]], expected, str(row))
    vectors = np.loadtxt(table.with_name("tensors.tsv"), delimiter="\t")
    np.testing.assert_allclose(vectors, trainer.signals(pool, {"embeddings"})["embeddings"], rtol=1e-4, atol=1e-5)
    assert list(tmp_path.rglob("projector_config.pbtxt"))


def test_the_projector_needs_tensorboard(tmp_path):
    with pytest.raises(ValueError, match="`log_embeddings` needs TensorBoard"):
        RoundSelectionConfig(str(tmp_path), log_embeddings=True, report_to=[])


def test_the_number_of_points_is_bounded():
    rounds = [np.arange(30), np.arange(30, 60)]
    rows = rows_to_show(1000, rounds, seed=0, most=50)
    assert len(rows) == len(set(rows.tolist())) == 50 and (np.diff(rows) > 0).all() and (rows < 60).sum() == 25
    assert (rows_to_show(70, rounds, seed=0, most=50) < 60).sum() == 40  # there are ten others
    assert rows_to_show(40, rounds[:1], seed=0, most=50).tolist() == list(range(40))
    assert describe_rows(np.array([29, 99]), rounds, None, []) == [
        ["unknown", "0", "29"],
        ["unknown", "not chosen", "99"],
    ]


# Secrets


def test_the_hub_token_works_and_is_in_no_file(tmp_path, model, pool, collate):
    token = "hf_" + os.urandom(12).hex()
    trainer = trainer_of(tmp_path, model, pool, collate, hub_token=token, save_strategy="epoch", rounds=1)
    trainer.train()
    trainer.save_model()
    assert trainer.args.hub_token == token and f"{trainer.args.hub_token}" == token
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"training_args.bin"} < {path.name for path in files}
    assert [path for path in files if token.encode() in path.read_bytes()] == []
    saved = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert saved.hub_token is None and saved.budget == trainer.args.budget


# ClearML and Weights & Biases, without a server


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The folder of a run that was logged to those that are installed, and its best checkpoint."""
    folder = tmp_path_factory.mktemp("offline")
    installed = [name for name in ("clearml", "wandb") if name in get_available_reporting_integrations()]
    settings = {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(folder / "clearml"), "CLEARML_PROJECT": "tests"}
    settings |= {"WANDB_MODE": "offline", "WANDB_PROJECT": "tests", "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HELPERS / "tracking_worker.py"), str(folder / "run"), *installed],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "failed and is left alone" not in done.stderr
    best = next(line for line in done.stdout.splitlines() if line.startswith(str(folder)) and "checkpoint-" in line)
    return folder, Path(best)


def test_clearml_offline_has_parameters_scalars_pictures_and_the_best_model(request):
    pytest.importorskip("clearml")
    folder, best = request.getfixturevalue("offline")
    [session] = folder.glob("clearml/offline/*.zip")
    with zipfile.ZipFile(session) as archive:
        task = json.loads(archive.read("task.json"))
        reported = [item for line in archive.read("metrics.jsonl").splitlines() for item in json.loads(line)]
        packages = [name for name in archive.namelist() if name.startswith("models/")]
        with zipfile.ZipFile(io.BytesIO(archive.read(packages[0]))) as package:
            inside, weights = set(package.namelist()), load(package.read("model.safetensors"))
    assert task["project_name"] == "tests"
    assert task["hyperparams"]["Transformers"]["strategy"]["value"] == "entropy_diversity"
    scalars = {(item["metric"], item["variant"]) for item in reported if item["type"] == "training_stats_scalar"}
    assert {("train", "round/size"), ("train", "loss"), ("eval", "loss")} <= scalars
    pictures = {(item["metric"], item["variant"]) for item in reported if item["type"] == "training_debug_image"}
    assert pictures == {("rounds", "00"), ("rounds", "01")}
    [logged] = task["offline_output_models"]
    assert len(packages) == 1 and logged["init"]["name"] == "best" and logged["weights"]["is_package"]
    assert logged["weights"]["iteration"] == int(best.name.split("-")[1])
    assert inside == {"model.safetensors", "config.json"}  # the model, and no state of the optimizer
    expected = load_file(best / "model.safetensors")
    assert weights.keys() == expected.keys() and all(torch.equal(weights[k], expected[k]) for k in expected)


def test_wandb_offline_has_scalars_and_pictures(request):
    pytest.importorskip("wandb")
    folder, _ = request.getfixturevalue("offline")
    [record] = folder.glob("wandb/offline-run-*/*.wandb")
    pictures = folder.glob("wandb/offline-run-*/files/media/images/*/*.png")
    assert sorted(f"{path.parent.name}/{path.name[:2]}" for path in pictures) == ["rounds/00", "rounds/01"]
    content = record.read_bytes()
    assert b"eval/loss" in content and b"entropy_diversity" in content and str(folder / "run").encode() in content


def test_clearml_without_a_server_is_no_loss(tmp_path, model, pool, collate, monkeypatch):
    pytest.importorskip("clearml")
    from clearml import Task
    from clearml.backend_api import Session

    monkeypatch.setattr(Task, "is_offline", lambda: False)
    monkeypatch.setattr(Session, "get_api_server_host", lambda: "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("NO_PROXY", "*")
    trainer = trainer_of(tmp_path, model, pool, collate, report_to=["clearml", "tensorboard"])
    with pytest.warns(UserWarning, match="cannot be reached") as warned:
        trainer.train()
    assert len([warning for warning in warned if "left alone" in str(warning.message)]) == 1
    assert len(images(tmp_path)) == 2  # the other tracker goes on
    assert trainer.state.global_step == trainer.state.max_steps


@pytest.mark.slow
def test_of_two_processes_the_first_one_logs(tmp_path):
    elastic = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    elastic += ["--rdzv_endpoint", "localhost:0", str(HELPERS / "tracking_worker.py")]
    done = subprocess.run(
        [sys.executable, *elastic, str(tmp_path / "run"), "tensorboard"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [name for name, _ in images(tmp_path / "run")] == ["rounds/00", "rounds/01"]
    tag = "train/round/size"
    [logged] = [found.Scalars(tag) for found in events(tmp_path / "run") if tag in found.Tags()["scalars"]]
    assert [scalar.value for scalar in logged] == [10, 20]
    [table] = (tmp_path / "run").rglob("metadata.tsv")
    assert len(table.read_text().splitlines()) == 41
