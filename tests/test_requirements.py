"""What the library imports is declared, and the lowest versions that are declared are those that are tested."""

import ast
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ROOT = Path(__file__).parent.parent
ROOMS = ("selection", "models", "trainers", "evaluation", "recipes")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED_AS = {
    **{"PIL": "pillow", "Stemmer": "PyStemmer", "dotenv": "python-dotenv", "faiss": "faiss-cpu"},
    **{"sklearn": "scikit-learn", "yaml": "PyYAML"},
}
OWN = {"tithe", *sys.stdlib_module_names}


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def distribution(module):
    return canonicalize_name(INSTALLED_AS.get(module, module))


def imported(node):
    """The top-level modules that a statement imports by name."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()


FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_what_is_imported_is_declared():
    core = names(PROJECT["dependencies"])
    optional = set().union(*(names(EXTRAS[name]) for name in EXTRAS if name not in ("test", "lint", "bench", "all")))
    used = set()
    for path, tree in TREES.items():
        inside = {node for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) for node in ast.walk(part)}
        for node in ast.walk(tree):
            found = {distribution(module) for module in imported(node) - OWN}
            assert found <= (core | optional if node in inside else core), f"{path}:{getattr(node, 'lineno', 0)}"
            used |= found
    assert core - used <= {"evaluate", "tensorboard"}  # the latter is imported by `Trainer`


def test_extras_that_errors_name_bring_what_is_missing():
    calls = [
        (path, [part.value if isinstance(part, ast.Constant) else None for part in node.args[:2]])
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("require_extra", "import_extra")
    ]
    named = {module: extra for path, (module, extra) in calls if path.name != "extras.py"}
    assert named.keys() >= {"Stemmer", "bitsandbytes", "bm25s", "deepspeed", "faiss", "optuna"}
    for module, extra in named.items():
        assert distribution(module) in names(EXTRAS[extra])


def pinned(path):
    lines = [line.split("#")[0].split(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines if line)
    }


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["test"]])
def test_the_lowest_versions_are_those_of_the_minimum(line):
    """The file's first lines say how it is made: again, whenever a lower bound or a dependency changes."""
    wanted = Requirement(line)
    (lowest,) = [Version(bound.version) for bound in wanted.specifier if bound.operator == ">="]
    assert pinned(ROOT / "constraints-minimum.txt").get(canonicalize_name(wanted.name)) == lowest


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["test"]])
def test_the_versions_tested_are_admitted(line):
    wanted = Requirement(line)
    assert pinned(ROOT / "constraints.txt")[canonicalize_name(wanted.name)] in wanted.specifier
