"""What the shell offers after `tithe RECIPE`: its flags, and the values of those that take a name."""

import contextlib
import importlib
import importlib.metadata
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from click import Group
from click.shell_completion import CompletionItem, get_completion_class

from tithe.evaluation.files import write_atomic
from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.config_shelf import shelved_names
from tithe.recipes.strategy_tables import strategy_names


_OF_STRATEGIES = ("--strategy", "--strategies", "--initial_strategy", "--query_strategy")
_FLAG = re.compile(r"^  (?:-h, )?(--\w+)", re.MULTILINE)


def script_of(group: Group, shell: str) -> str:
    """The script that makes `shell` complete the commands of `group`."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    return kind(group, {}, "tithe", "_TITHE_COMPLETE").source()


def complete_recipe(recipe: str, module: str, given: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """What may stand in the place of `incomplete`, after the arguments `given`."""
    if incomplete.startswith("-"):
        return items(_flags(recipe, module), incomplete)
    last = given[-1] if given else ""
    if last in _OF_STRATEGIES:
        return items(strategy_names(), incomplete)
    configs = items(shelved_names(), incomplete) if last == "--config" and incomplete else []
    return configs or [CompletionItem(incomplete, type="file")]


def items(names: Iterable[str], begun: str) -> list[CompletionItem]:
    """Those of `names` that may become of what is `begun`."""
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _flags(recipe: str, module: str) -> list[str]:
    """All flags of a recipe. To learn them takes seconds, so they are kept until a version changes."""
    versions = {name: importlib.metadata.version(name) for name in ("tithe", "transformers")}
    path = cache_dir() / "flags.json"
    kept: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
    if kept.get("versions") != versions:
        kept = {"versions": versions}
    if recipe not in kept:
        kept[recipe] = _FLAG.findall(_help_of(module))
        write_atomic(path, json.dumps(kept))
    return kept[recipe]


def _help_of(module: str) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help_all" if module.rpartition(".")[2] != "label" else "--help"])
    return text.getvalue()
