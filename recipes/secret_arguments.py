"""Which arguments hold secrets. What they hold is masked in errors, and written to no file."""

import json
from collections.abc import Sequence
from typing import Any

from tithe.evaluation import remember_secret, remember_secrets_of


# Never written to run.yaml: it lies beside the model, and models get published.
SECRET_FIELDS = {"hub_token"}
# Of these only what `without_secrets` leaves is written.
SECRET_MAPPINGS = {"storage_options"}


def remember_secrets_in(argv: Sequence[str]) -> None:
    """Have secrets among flags masked from now on: an error may quote what could not be parsed."""
    for argument, following in zip(argv, [*argv, ""][1:], strict=True):
        name, joined, value = argument.removeprefix("--").partition("=")
        value = value if joined else following
        if argument.startswith("--") and name in SECRET_MAPPINGS:
            try:
                remember_secret_argument(name, json.loads(value))
            except json.JSONDecodeError:
                remember_secret(value)
        elif argument.startswith("--"):
            remember_secret_argument(name, value)


def remember_secret_argument(name: str, value: Any) -> None:
    """Have the secrets in the value of one argument masked from now on, if it has any."""
    if name in SECRET_FIELDS:
        remember_secret(value)
    elif name in SECRET_MAPPINGS:
        (remember_secrets_of if isinstance(value, dict) else remember_secret)(value)
