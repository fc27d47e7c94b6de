"""Reading a config file, and fitting its values to the type hints of dataclass fields."""

import importlib.resources
import json
import re
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import yaml


# PyYAML follows YAML 1.1, in which `5e-5` is text, `no` is false and `2020-01-01` is a date. Configs are written
# in the belief that they are a number, a word and a word, as in YAML 1.2.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_WORDS = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}


# Arguments that say what is run: where one of them is given, a recipe's own config file does not apply.
_OF_A_RUN = {"dataset", "train_file", "validation_file", "test_file", "model_name_or_path"}


class _ConfigLoader(yaml.SafeLoader):
    yaml_implicit_resolvers = {
        start: [(tag, pattern) for tag, pattern in resolvers if tag not in _WORDS]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class RunDumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1, or `read_config`, would take for something else."""


_ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), "tTfF"
)
for _yaml_class in (_ConfigLoader, RunDumper):
    _yaml_class.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def read_config(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON (`.json`) file, or in the config that comes with Tithe and is called `path`.

    Raises `OSError`, `ValueError` or `yaml.YAMLError`.
    """
    own = importlib.resources.files("tithe.recipes.configs").joinpath(f"{path}.yaml")
    named = not Path(path).exists() and Path(path).name == str(path) and own.is_file()
    text = own.read_text(encoding="utf-8") if named else Path(path).read_text(encoding="utf-8-sig")
    if Path(path).suffix == ".json":
        values = json.loads(text, object_pairs_hook=_without_repeats)
    else:
        values = yaml.load(text, Loader=_ConfigLoader)  # noqa: S506 (derived from SafeLoader)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"must hold a mapping from argument to value, got a {type(values).__name__}")
    return values


@contextmanager
def over_own_config(argv: list[str], recipe: str) -> Iterator[list[str]]:
    """`argv`; where neither it nor a config in it names data or model, over the recipe's own config, until the end."""
    if any(_names_run(flag, following) for flag, following in zip(argv, [*argv, ""][1:], strict=True)):
        yield argv
        return
    config = importlib.resources.files("tithe.recipes.configs").joinpath(f"{recipe}.yaml")
    with importlib.resources.as_file(config) as path:
        yield ["--config", str(path), *argv]


def _names_run(flag: str, following: str) -> bool:
    name, _, value = flag.removeprefix("--").partition("=")
    if not flag.startswith("--") or name != "config":
        return flag.startswith("--") and name in _OF_A_RUN
    try:
        return any(read_config(value or following).get(key) is not None for key in _OF_A_RUN)
    except (OSError, ValueError, yaml.YAMLError):
        return True  # for the parser to complain of


def _without_repeats(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key `{key}` is given twice")
        values[key] = value
    return values


def _construct_mapping(loader: _ConfigLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    return _without_repeats(loader.construct_pairs(node, deep=True))


_ConfigLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def members_of(hint: Any) -> list[Any]:
    """The types a hint admits besides None: `int | None` → `[int]`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for member in typing.get_args(hint) if member is not type(None)]
    return [hint]


def fit_to_hint(value: Any, hint: Any) -> Any:
    """`value` of a config file as the hint wants it; `TypeError` where it does not fit.

    Nothing is guessed: only a whole number where a float is declared is converted.
    """
    for member in members_of(hint):
        if _fits(value, member):
            return float(value) if member is float else value
    raise TypeError


def _fits(value: Any, member: Any) -> bool:
    origin = typing.get_origin(member) or member
    if member is Any:
        return True
    if member is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is list:
        item_types = typing.get_args(member) or (Any,)
        return isinstance(value, list) and all(any(_fits(v, m) for m in members_of(item_types[0])) for v in value)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(member))
    if isinstance(origin, type) and issubclass(origin, Enum):
        return value in [choice.value for choice in origin]
    if isinstance(origin, type) and issubclass(origin, Path):
        return isinstance(value, str)
    return isinstance(value, origin) and (origin is bool or not isinstance(value, bool))


def expected_type(hint: Any) -> str:
    """A hint in the words of a config file, for error messages."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    described = []
    for member in members_of(hint):
        origin = typing.get_origin(member) or member
        if origin is list:
            described.append(
                f"a list of {' or '.join(getattr(a, '__name__', str(a)) for a in typing.get_args(member))}"
            )
        elif origin is typing.Literal:
            described.append("one of " + ", ".join(repr(choice) for choice in typing.get_args(member)))
        elif isinstance(origin, type) and issubclass(origin, Enum):
            described.append("one of " + ", ".join(repr(choice.value) for choice in origin))
        else:
            described.append(words.get(origin, getattr(origin, "__name__", str(origin))))
    # `SchedulerType | str` admits any text on paper and only the enum's values in fact.
    if any(text.startswith("one of") for text in described):
        described = [text for text in described if text != "text"]
    return " or ".join(described)
