"""Packages that only some features need: errors that say which extra of Tithe brings them."""

import importlib
import importlib.util
from typing import Any


def require_extra(module: str, extra: str, wanted_by: str) -> None:
    """Raise an `ImportError` that says what to install, unless `module` is there; it is not imported.

    Args:
        module: the name under which the package is imported.
        extra: what brings it, as `pyproject.toml` calls it.
        wanted_by: the argument or feature that needs it, for the error.

    >>> require_extra("numpy", "retrieval", "a search")
    >>> require_extra("no_such_package", "retrieval", "a search")
    Traceback (most recent call last):
    ImportError: a search needs no_such_package, which is not installed: pip install "tithe[retrieval]"
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{wanted_by} needs {module}, which is not installed: pip install "tithe[{extra}]"')


def import_extra(module: str, extra: str, wanted_by: str) -> Any:
    """The package `module`; an `ImportError` as of `require_extra` where it is missing."""
    require_extra(module, extra, wanted_by)
    return importlib.import_module(module)
