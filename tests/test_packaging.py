"""What is in the tree is in the wheel, and nothing else is."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
ROOMS = ("selection", "models", "trainers", "evaluation", "recipes")
SHIPPED = {".py", ".yaml", ".html", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: `build/` in the tree would leak into it."""
    copy = tmp_path_factory.mktemp("tree") / "tithe"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", "runs", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return next((copy / "dist").glob("*.whl"))


def test_the_wheel_holds_the_tree(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tree = {
        f"tithe/{path.relative_to(ROOT).as_posix()}"
        for room in (*ROOMS, "accelerate_configs")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and (path.suffix in SHIPPED or path.name == "py.typed") and "__pycache__" not in path.parts
    }
    assert names == tree


def test_the_wheel_runs_without_the_tree(wheel, tmp_path):
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = f"import sys; sys.path.insert(0, {str(target)!r}); "
    code += "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder)]; "
    code += "import tithe.selection as s, tithe.recipes.cli as c; print(s.__file__); c.main([])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(target) in done.stdout and "data_selection" in done.stdout


def test_every_room_is_typed():
    assert all((ROOT / room / "py.typed").is_file() for room in ROOMS)
