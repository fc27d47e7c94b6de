"""What is in the tree is in the wheel, and nothing else is; the wheel needs its core dependencies alone."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tables import write_rows
from wheels import without_the_tree

from tithe.recipes.cli import RECIPES


ROOT = Path(__file__).parent.parent
ROOMS = ("selection", "models", "trainers", "evaluation", "recipes")
SPLITS = ("train", "validation", "test")
SHIPPED = {".py", ".yaml", ".html", ".typed"}


def test_the_wheel_holds_the_tree(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tree = {
        f"tithe/{path.relative_to(ROOT).as_posix()}"
        for room in (*ROOMS, "accelerate_configs")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and (path.suffix in SHIPPED or path.name == "py.typed") and "__pycache__" not in path.parts
    }
    assert names == tree


def test_the_wheel_runs_without_the_tree(site, tmp_path):
    code = without_the_tree(site)
    code += "import tithe.selection as s, tithe.recipes.cli as c; print(s.__file__); c.main([])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(site) in done.stdout and "data_selection" in done.stdout


def test_every_room_is_typed():
    assert all((ROOT / room / "py.typed").is_file() for room in ROOMS)


class Installed:
    """An environment of its own, with the wheel and its core dependencies at the versions in constraints.txt."""

    def __init__(self, folder, wheel):
        self.folder, self.python = folder, folder / "bin" / "python"
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.environment = inherited | {"TITHE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        (folder / "elsewhere").mkdir()
        reached = self.pip("download", "--no-deps", "-d", folder / "reached", "tabulate")
        if reached.returncode:
            pytest.skip(f"pip reaches no package index: {reached.stderr[-300:]}")
        done = self.pip("install", "-c", ROOT / "constraints.txt", wheel)
        assert done.returncode == 0, done.stderr

    def pip(self, *arguments):
        return self.run(self.python, "-m", "pip", "-q", *arguments)

    def run(self, *command):
        """`command`, in a folder that holds nothing of the tree."""
        options = {"cwd": self.folder / "elsewhere", "env": self.environment, "timeout": 1200}
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)

    def tithe(self, *commands):
        """Exit status, output and errors of each of `commands`, all in one process: its imports take seconds."""
        code = """
import contextlib, io, json, sys
from tithe.recipes import cli
for command in json.loads(sys.argv[1]):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(command)
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""
        done = self.run(self.python, "-c", code, json.dumps(commands))
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    if sys.version_info[:2] != (3, 11):
        pytest.skip("constraints.txt is for Python 3.11")
    return Installed(tmp_path_factory.mktemp("installed") / "environment", wheel)


@pytest.mark.slow
def test_every_module_is_imported_with_the_core_dependencies(installed, wheel):
    paths = [Path(name) for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert len(modules) > 200
    code = "import importlib, sys; print(*(importlib.import_module(m).__file__ for m in sys.argv[1:]), sep='\\n')"
    done = installed.run(installed.python, "-c", code, *modules)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(str(installed.folder) in line for line in done.stdout.splitlines())
    assert installed.pip("check").returncode == 0


@pytest.mark.slow
def test_recipes_run_with_the_core_dependencies(installed, tmp_path):
    for name, (status, out, err) in zip(
        RECIPES, installed.tithe(*([name, "--help"] for name in RECIPES)), strict=True
    ):
        assert status == 0 and "--help" in out, f"{name}: {err}"
    rows = [f"--{split}_file={write_rows(tmp_path / f'{split}.jsonl', 60, seed)}" for seed, split in enumerate(SPLITS)]
    flags = ["--model_name_or_path=small", "--learning_rate=1e-3", "--budget=0.5", "--use_cpu=true"]
    command = [installed.folder / "bin" / "tithe", "data_selection", *rows, *flags, f"--output_dir={tmp_path / 'run'}"]
    done = installed.run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_recipes_that_need_more_say_so(installed, tmp_path):
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 2}}')
    wanting = {
        "quantization": ["data_selection", "--optim=adamw_8bit"],
        "deepspeed": ["data_selection", f"--deepspeed={tmp_path / 'zero.json'}"],
        "s3": ["data_selection", "--train_file=s3://bucket/rows.jsonl"],
        "retrieval": ["slm_qa", "--mode=retriever_context"],
        "tuning": ["tune"],
    }
    commands = [
        [name, "--train_file=nowhere.jsonl", "--model_name_or_path=nowhere/at-all", "--use_cpu=true"]
        + [f"--output_dir={tmp_path / extra}", *flags]
        for extra, (name, *flags) in wanting.items()
    ]
    for extra, (status, _, err) in zip(wanting, installed.tithe(*commands), strict=True):
        assert status == 2 and err.strip().endswith(f'pip install "tithe[{extra}]"'), err
