"""Command line and config file → dataclasses, and back.

`parse_arguments` reads `--config FILE` (YAML or JSON) and flags into dataclasses on top of `HfArgumentParser`: flags
override the file, the file passes the same checks as flags, and nothing unknown is dropped in silence.
`save_run_yaml` writes what reproduces a run, in a form that `--config` reads again.
"""

import copy
import dataclasses
import inspect
import json
import os
import re
import sys
import typing
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from tithe.evaluation import mask, masked, without_secrets
from tithe.recipes.config_files import RunDumper, expected_type, fit_to_hint, members_of, read_config
from tithe.recipes.config_shelf import shelved_names
from tithe.recipes.errors import nearest
from tithe.recipes.help_pages import USUAL, HelpPage, WholeHelp, heading
from tithe.recipes.secret_arguments import (
    SECRET_FIELDS,
    SECRET_MAPPINGS,
    remember_secret_argument,
    remember_secrets_in,
)


# What `tune` finds for a classifier, and not every recipe that reads its file knows.
_OF_A_HEAD = ("head_dropout", "head_learning_rate")
# Where an instance remembers what it was built from: what its __post_init__ derived, a rerun must derive anew.
_PARSED = "_parsed_arguments"


class ArgumentError(ValueError):
    """A flag or a config file is wrong; the message is one line, in which secrets are masked."""

    def __init__(self, message: object) -> None:
        super().__init__(mask(" ".join(str(message).split())))


def parse_arguments(
    dataclass_types: Sequence[type], argv: list[str] | None = None, description: str = ""
) -> tuple[Any, ...]:
    """One instance of each dataclass: flags in `argv` (default: the command line) over `--config FILE` over defaults.

    Of several files each goes over those before it.

    Raises `ArgumentError`, in one line, for an unknown flag or key (naming the nearest), a value of the wrong type, a
    config file that is missing or not a mapping, and for any `ValueError` of a dataclass's own `__post_init__`.
    `--help` prints every field's help and exits with status 0.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    remember_secrets_in(argv)
    parser = _Parser(dataclass_types, description=description)
    for config in config_paths(argv):
        parser.take_defaults(config, _read(config))
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ArgumentError(_describe_unknown(unknown, parser.flags()))
    return tuple(_build(dataclass_type, vars(namespace)) for dataclass_type in dataclass_types)


def resolved_arguments(*instances: Any) -> dict[str, Any]:
    """The values that reproduce a run, by field name: plain Python, ready for YAML and JSON.

    All fields of our own dataclasses; of fields that come from transformers only those that differ from their default.
    None is left out, and so are hub tokens and the secrets in `storage_options` and in URLs. For an instance of
    `parse_arguments`, what was given is written, not what `__post_init__` derived from it, unless the field was
    changed since: a rerun derives it again, also where a flag overrides what it came from.
    """
    resolved: dict[str, Any] = {}
    for instance in instances:
        parsed = getattr(instance, _PARSED, {})
        for field in dataclasses.fields(instance):
            if not field.init or field.name in SECRET_FIELDS:
                continue
            value = getattr(instance, field.name)
            if field.name in parsed and parsed[field.name][1] == value:
                value = parsed[field.name][0]
            if value is not None and not _is_foreign_default(instance, field, value):
                value = _plain(value)
                resolved[field.name] = without_secrets(value) if field.name in SECRET_MAPPINGS else masked(value)
    return resolved


def secret_flags(instance: Any) -> list[str]:
    """What `resolved_arguments` leaves out of `instance`, as flags for a process that is to read the same data."""
    written, flags = resolved_arguments(instance), []
    for field in dataclasses.fields(instance):
        value = _plain(getattr(instance, field.name))
        if field.init and field.name in written and written[field.name] != value:
            words = value if isinstance(value, list) else [value if isinstance(value, str) else json.dumps(value)]
            flags += [f"--{field.name}", *map(str, words)]
    return flags


def save_run_yaml(path: str | Path, *instances: Any) -> None:
    """Write `resolved_arguments` to `path`, atomically; `--config path` then repeats the run."""
    from tithe.evaluation.files import write_atomic

    text = yaml.dump(resolved_arguments(*instances), Dumper=RunDumper, sort_keys=False, allow_unicode=True)
    write_atomic(path, "# The resolved arguments of this run. To repeat it, pass this file as --config.\n" + text)


class _Parser(HfArgumentParser):
    """`HfArgumentParser` that raises on errors and groups flags by the class that declares them, own classes first."""

    def __init__(self, dataclass_types: Sequence[Any], description: str) -> None:
        self.hints: dict[str, Any] = {}
        self.foreign: set[str] = set()
        super().__init__(
            dataclass_types,
            usage="%(prog)s [--config FILE] [--flag VALUE …]",
            description=description,
            formatter_class=HelpPage,
            allow_abbrev=False,
            epilog="TITHE_TRACEBACK=1 in the environment shows the traceback behind an error.",
        )
        self.whole_help = False
        self.add_argument("--help_all", action=WholeHelp, help="show all arguments of Hugging Face's Trainer, too")
        self.add_argument(
            "--config",
            metavar="FILE",
            help="YAML or JSON file of these arguments, or one of `tithe configs`; flags override it, and so does a "
            "further `--config`",
        )

    def _add_dataclass_arguments(self, dtype: Any) -> None:
        hints = typing.get_type_hints(dtype)
        fields = [copy.copy(field) for field in dataclasses.fields(dtype) if field.init]
        groups: dict[type, Any] = {}
        for owner in inspect.getmro(dtype):
            if any(_owner(dtype, field.name) is owner for field in fields):
                groups[owner] = self.add_argument_group(heading(owner.__name__))
        for field in fields:
            self.hints[field.name] = field.type = hints[field.name]
            owner = _owner(dtype, field.name)
            if owner.__module__.startswith("transformers.") and field.name not in USUAL:
                self.foreign.add(field.name)
            self._parse_dataclass_field(groups[owner], field)
            kinds = [typing.get_origin(member) or member for member in members_of(hints[field.name])]
            if dict in kinds:
                self._option_string_actions[f"--{field.name}"].type = _mapping_reader(
                    hints[field.name], quotes=field.name not in SECRET_MAPPINGS
                )
            if str in kinds and list in kinds:  # a text or several, which the parent takes for one
                self._option_string_actions[f"--{field.name}"].nargs = "+"

    def take_defaults(self, path: str, values: dict[str, Any]) -> None:
        """Make the checked values of a config file the defaults that flags override."""
        for key, value in values.items():
            if key not in self.hints and key in _OF_A_HEAD:
                if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
                    print(f"{path}: `{key}` is left out, as this recipe does not know it", flush=True)
                continue
            if key not in self.hints:
                raise ArgumentError(f"{path}: unknown key `{key}`{nearest(str(key), self.hints, '--help')}")
            if value is None:
                continue
            remember_secret_argument(key, value)
            action = self._option_string_actions[f"--{key}"]
            hint = self.hints[key]
            try:
                value = fit_to_hint(value, hint)
            except TypeError:
                raise ArgumentError(
                    f"{path}: `{key}` must be {expected_type(hint)}, got {type(value).__name__} {value!r}"
                ) from None
            if action.choices is not None and value not in action.choices:
                choices = ", ".join(map(repr, action.choices))
                raise ArgumentError(f"{path}: `{key}` must be one of {choices}, got {value!r}")
            self.set_defaults(**{key: value})
            action.required = False

    def format_help(self) -> str:
        """Without those of Transformers' arguments that few need, unless `--help_all` was given."""
        told = {action.dest: action.help for action in self._actions}
        for action in self._actions:
            twin = action.option_strings[0].startswith("--no_") and action.nargs == 0  # of `--name false`
            if twin or (action.dest in self.foreign and not self.whole_help):
                action.help = SUPPRESS
        text = super().format_help()
        for action in self._actions:
            action.help = told[action.dest]
        return text

    def flags(self) -> list[str]:
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(re.sub(r"^argument (--[^/:\s]+)[^:]*:", r"argument `\1`:", message))


def _read(path: str) -> dict[str, Any]:
    try:
        return read_config(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = f"{error.strerror}{_of_ours(path)}" if isinstance(error, OSError) else error
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            # Without the line itself, which its own text would quote: it may hold a key.
            reason = f"{error.problem} in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        raise ArgumentError(f"`--config` {path}: {reason}") from None


def _of_ours(path: str) -> str:
    """For a config that is no file: the one of ours that may have been meant."""
    return "" if Path(path).suffix else nearest(path, shelved_names(), "`tithe configs`")


def config_paths(argv: list[str]) -> list[str]:
    """The files that `argv` names by `--config`, in their order."""
    paths = []
    for position, argument in enumerate(argv):
        if argument == "--config":
            if position + 1 == len(argv) or argv[position + 1].startswith("--"):
                raise ArgumentError("`--config` needs the name of a file")
            paths.append(argv[position + 1])
        elif argument.startswith("--config="):
            paths.append(argument.removeprefix("--config="))
    return paths


def _build(dataclass_type: type, values: dict[str, Any]) -> Any:
    fields = [field for field in dataclasses.fields(dataclass_type) if field.init]  # type: ignore[arg-type]
    given = {field.name: values[field.name] for field in fields}
    try:
        instance = dataclass_type(**given)
    except ValueError as error:
        raise ArgumentError(error) from error
    # Without secrets: the instance may be pickled beside a model.
    after = {name: copy.deepcopy(getattr(instance, name)) for name in given if name not in SECRET_FIELDS}
    object.__setattr__(instance, _PARSED, {name: (given[name], after[name]) for name in after})
    return instance


def _mapping_reader(hint: Any, *, quotes: bool) -> Callable[[str], Any]:
    """Reads a mapping out of a flag; `quotes` says whether an error may tell what was given."""

    def read(text: str) -> Any:
        if not text.lstrip().startswith("{") and str in members_of(hint):
            return text
        given = repr(text) if quotes else f"{len(text)} characters"
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArgumentTypeError(f"expected a JSON mapping such as '{{\"a\": 1}}', got {given} ({error})") from None
        if not isinstance(value, dict):
            raise ArgumentTypeError(f"expected a JSON mapping such as '{{\"a\": 1}}', got {given}")
        return value

    return read


def _describe_unknown(unknown: list[str], flags: list[str]) -> str:
    flag = next((part for part in unknown if part.startswith("-")), None)
    if flag is None:
        return f"unexpected argument {unknown[0]!r}: every value follows its flag"
    return f"unknown flag `{flag.split('=')[0]}`{nearest(flag.split('=')[0], flags, '--help')}"


def _owner(dataclass_type: type, field_name: str) -> type:
    """The most derived class that declares the field."""
    return next(c for c in inspect.getmro(dataclass_type) if field_name in inspect.get_annotations(c))


def _is_foreign_default(instance: Any, field: dataclasses.Field, value: Any) -> bool:
    """Whether the field comes from transformers and `value`, or what it became, is its default."""
    if _owner(type(instance), field.name).__module__.split(".")[0] != "transformers":
        return False
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return _plain(default) in (_plain(value), _plain(getattr(instance, field.name)))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value
