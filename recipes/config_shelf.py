"""The configs that come with Tithe, by name: those of recipes, and those of `accelerate launch`."""

import importlib.resources
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tithe.evaluation.files import write_atomic
from tithe.recipes.errors import nearest


if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # there from Python 3.11 on

_SHELVES = {
    "Recipes: tithe RECIPE --config FILE": "tithe.recipes.configs",
    "Launching: accelerate launch --config_file FILE recipes/RECIPE.py": "tithe.accelerate_configs",
}


_OWN = re.compile(r"^What \S+ runs when nothing is named: ")


def shelved_names() -> list[str]:
    """The names of all configs, without `.yaml`."""
    return [name for package in _SHELVES.values() for name in _files(package)]


def read_shelved(name: str) -> str:
    """The text of the config `name`.

    Raises:
        ValueError: there is none of that name.
    """
    name = name.removesuffix(".yaml")
    for package in _SHELVES.values():
        if (found := _files(package).get(name)) is not None:
            return found.read_text(encoding="utf-8")
    raise ValueError(f"no config {name!r}{nearest(name, shelved_names(), '`tithe configs`')}")


def copy_config(name: str, target: Path, *, force: bool = False) -> Path:
    """Write the config `name` to `target`, a file or a folder that is there. Returns the file's path.

    Raises:
        ValueError: there is no such config, or the file is there and `force` is not given.
    """
    text = read_shelved(name)
    if target.is_dir():
        target = target / f"{name.removesuffix('.yaml')}.yaml"
    if target.exists() and not force:
        raise ValueError(f"{target} is there already: name another file, or pass --force")
    return write_atomic(target, text)


def print_configs(console: Console | None = None) -> None:
    """Each config, with the first sentence of the comment that it opens with."""
    console = console or Console(highlight=False)
    for title, package in _SHELVES.items():
        console.print(title, style="bold")
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, file in _files(package).items():
            table.add_row(f"  {name}", _about(file.read_text(encoding="utf-8")))
        console.print(table)
    console.print("`tithe configs copy NAME` puts one into this folder, to be edited.")


def _files(package: str) -> "dict[str, Traversable]":
    found = (file for file in importlib.resources.files(package).iterdir() if file.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file for file in sorted(found, key=lambda file: file.name)}


def _about(text: str) -> str:
    comment = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    return _OWN.sub("where nothing is named: ", comment).split(". ")[0].rstrip(".")
