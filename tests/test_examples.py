"""A project with packages `models` and `trainers` of its own takes the trainers of an installed wheel in."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wheels import without_the_tree


ROOT = Path(__file__).parent.parent
SCRIPTS = ("select_rows", "ask_for_labels", "distill_tagger", "tune_prompt")


@pytest.fixture
def project(tmp_path):
    """The examples alone in a folder, far from the checkout."""
    ignored = shutil.ignore_patterns("runs", "__pycache__", ".ruff_cache")
    return Path(shutil.copytree(ROOT / "examples", tmp_path / "project", ignore=ignored))


@pytest.fixture
def launch(project, site):
    """Starts a script of the project as `python NAME.py` does, with Tithe from the wheel."""

    def start(name):
        code = without_the_tree(site)
        code += f"import runpy; sys.path.insert(0, {str(project)!r}); sys.argv = [{name!r}]; "
        code += f"runpy.run_path({str(project / f'{name}.py')!r}, run_name='__main__'); "
        code += "import models, trainers, tithe.trainers; "
        code += "print('from', *(module.__file__ for module in (models, trainers, tithe.trainers)), sep='|')"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=project,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture
def run(launch, project, site):
    """Runs a script to its end, and returns what it printed."""

    def finish(name):
        process = launch(name)
        printed, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        places = re.search(r"^from\|(.*)$", printed, re.MULTILINE).group(1).split("|")
        assert [Path(place) for place in places] == [
            project / "models" / "__init__.py",
            project / "trainers" / "__init__.py",
            site / "tithe" / "trainers" / "__init__.py",
        ]
        return printed

    return finish


def figure(pattern, printed):
    """The number in the line that `pattern` finds."""
    return float(re.search(pattern, printed, re.MULTILINE).group(1))


def test_a_strategy_of_ones_own_beats_random_and_chance(run, project):
    printed = run("select_rows")
    own, at_random = (
        figure(rf"^{name}: accuracy ([\d.]+) on 240 of 2400 rows", printed) for name in ("own", "random")
    )
    assert own > at_random > 2 * figure(r"^chance: accuracy ([\d.]+)", printed)
    journal = (project / "runs" / "select_rows" / "own" / "journal.jsonl").read_text().splitlines()
    assert json.loads(journal[0])["round/size"] == 240 and "train_loss" in json.loads(journal[-2])


def test_labels_asked_for_teach_a_model_with_lora(run, project):
    printed = run("ask_for_labels")
    assert printed.count("stopped: 40 labels were asked for by mail") == 4
    scores = [figure(rf"^{labels} labels: accuracy ([\d.]+)", printed) for labels in (40, 80, 120, 160)]
    assert scores[-1] > scores[0] and scores[-1] > 1.6 * figure(r"^chance: accuracy ([\d.]+)", printed)
    trained, whole = re.search(r"(\d+) of (\d+) parameters were trained", printed).groups()
    assert int(trained) < 0.2 * int(whole)
    answers = (project / "runs" / "ask_for_labels" / "new" / "answers.jsonl").read_text().splitlines()
    assert len(answers) == 160 and all('"colleague"' in line for line in answers)


@pytest.mark.slow
def test_a_teacher_makes_up_for_labels(run, project):
    printed = run("distill_tagger")
    taught, alone = (figure(rf"^{name}: F1 ([\d.]+), \d+ of", printed) for name in ("taught", "alone"))
    assert taught > alone + 0.05
    assert taught > 0.9 * figure(r"^teacher: F1 ([\d.]+)", printed)
    assert (project / "runs" / "distill_tagger" / "taught" / "teacher_cache").is_dir()


@pytest.mark.slow
def test_a_tenth_of_the_parameters_answers_another_question(run, project):
    printed = run("tune_prompt")
    before, whole = re.search(r"^names: ([\d.]+) right, all (\d+) parameters", printed, re.MULTILINE).groups()
    tuned, trained = re.search(r"^subjects: ([\d.]+) right, (\d+) parameters", printed, re.MULTILINE).groups()
    assert float(tuned) > 0.45 and float(tuned) > 0.75 * float(before)
    assert int(trained) < 0.12 * int(whole)
    assert figure(r"^subjects: ([\d.]+) right, as loaded", printed) == float(tuned)
    assert not (project / "runs" / "tune_prompt" / "subjects" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_script_that_is_killed_goes_on_to_the_same_result(run, launch, project):
    whole = run("select_rows")
    shutil.rmtree(project / "runs")
    process = launch("select_rows")
    own = project / "runs" / "select_rows" / "own"
    while not list(own.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = run("select_rows")
    for name in ("random", "own"):
        line = re.compile(rf"^{name}: accuracy .*$", re.MULTILINE)
        assert line.search(resumed).group() == line.search(whole).group()


def test_the_readme_names_every_script():
    text = (ROOT / "examples" / "README.md").read_text()
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*SCRIPTS, "docstrings"}
    assert all(f"`{name}.py`" in text for name in SCRIPTS)
