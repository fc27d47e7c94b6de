"""`.env`: what a recipe takes from it, and what it says of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tithe.recipes import cli
from tithe.recipes.env_file import read_env_file


ROOT = Path(__file__).parents[2]
RECIPES = sorted(cli.RECIPES.keys() - {"label"})  # which is started by `tithe label` alone


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Restored afterwards, with what a test has put into it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def test_what_is_missing_is_taken_and_only_its_name_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TITHE_TEST_GIVEN", "from outside")
    path = tmp_path / ".env"
    path.write_text(
        "# a comment\nTITHE_TEST_TOKEN='s3cret value'\nexport TITHE_TEST_GIVEN=from file\nTITHE_TEST_EMPTY=\n"
        'TITHE_TEST_CACHE="${TITHE_TEST_GIVEN}/cache"\n'
    )
    assert read_env_file(path) == ["TITHE_TEST_TOKEN", "TITHE_TEST_CACHE"]
    assert os.environ["TITHE_TEST_TOKEN"] == "s3cret value"
    assert os.environ["TITHE_TEST_GIVEN"] == "from outside"
    assert os.environ["TITHE_TEST_CACHE"] == "from outside/cache"
    assert "TITHE_TEST_EMPTY" not in os.environ
    assert capsys.readouterr().out == f"from {path}: TITHE_TEST_TOKEN, TITHE_TEST_CACHE\n"
    assert read_env_file(path) == [] and capsys.readouterr().out == ""


def test_without_a_file_nothing_happens_and_one_process_tells(tmp_path, monkeypatch, capsys):
    assert read_env_file(tmp_path / ".env") == []
    (tmp_path / ".env").write_text("TITHE_TEST_RANK=1\n")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert read_env_file(tmp_path / ".env") == ["TITHE_TEST_RANK"] and capsys.readouterr().out == ""


@pytest.mark.parametrize("start", [["tithe.recipes.evaluate_model"], ["tithe.recipes.cli", "evaluate_model"]])
def test_a_recipe_reads_it_before_libraries_read_the_environment(tmp_path, start):
    (tmp_path / ".env").write_text(f"HF_HOME={tmp_path / 'mine'}\n")
    probe = tmp_path / "sitecustomize.py"  # tells at exit what huggingface_hub has read
    probe.write_text("import atexit\n\n@atexit.register\ndef tell():\n    import huggingface_hub.constants as c\n")
    probe.write_text(probe.read_text() + "    print('HF_HOME is', c.HF_HOME)\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    path = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *start, "missing.jsonl"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[0] == "from .env: HF_HOME"
    assert done.stdout.splitlines()[-1] == f"HF_HOME is {tmp_path / 'mine'}"
    assert "error:" in done.stderr


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_reads_it_before_its_other_imports(recipe):
    lines = (ROOT / "recipes" / f"{recipe}.py").read_text().splitlines()
    imports = [line.strip() for line in lines if line.strip().startswith(("import ", "from "))]
    others = [number for number, line in enumerate(lines) if line.startswith(("import ", "from "))]
    assert imports[0] == "from tithe.recipes.env_file import read_env_file"
    assert lines.index("    read_env_file()") < others[0]


def test_the_example_names_variables_and_no_value():
    text = (ROOT / ".env.example").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == []  # copied as it is, it changes nothing
    named = {line[2:].partition("=")[0] for line in text.splitlines() if line.startswith("# ") and "=" in line}
    wanted = {"HF_TOKEN", "TITHE_CACHE", "TITHE_TRACEBACK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    wanted |= {"CLEARML_API_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "CLEARML_OFFLINE_MODE"}
    wanted |= {"WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"}
    assert wanted <= named
