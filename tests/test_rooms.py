"""Imports go one way: recipes → trainers → {selection, models, evaluation}."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "selection": set(),
    "models": set(),
    "evaluation": set(),
    "trainers": {"selection", "models", "evaluation"},
    "recipes": {"trainers", "selection", "models", "evaluation"},
}


def imported_rooms(path, room):
    """The rooms of Tithe that a file imports, relatively or by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = ["tithe", *path.relative_to(ROOT).parent.parts]
            names = [".".join([*package[: len(package) + 1 - node.level], node.module or ""])]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("tithe."))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert set(imported_rooms(path, room)) - {room} <= MAY_IMPORT[room], path


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_bare_imports_fail_loudly(room):
    done = subprocess.run([sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True)
    assert f"import `tithe.{room}`, not `{room}`" in done.stderr


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_all_names_what_there_is(room):
    module = importlib.import_module(f"tithe.{room}")
    exported = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    assert all(hasattr(module, name) for name in exported)


def test_selection_needs_numpy_alone():
    code = (
        "import sys, tithe.selection; print([m for m in ('torch', 'sklearn', 'scipy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
