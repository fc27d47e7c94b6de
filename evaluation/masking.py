"""Keys, tokens and passwords, kept out of what is printed and saved."""

import os
import re
from collections.abc import Mapping
from typing import Any


HIDDEN = "***"
# Characters. What is shorter may be a word of its own, which must not vanish wherever it occurs.
SHORTEST, SHORTEST_IN_ENVIRONMENT = 6, 12

_OPTION = re.compile(
    r"key|secret|token|passw|pwd|passphrase|credential|connection_string|auth|cookie|signature|\bsas\b", re.IGNORECASE
)
_VARIABLE = re.compile(r"(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|CONNECTION_STRING|SAS)$")
# https://user:password@host, and s3://key:secret@bucket, where the secret may have slashes; host:8080/a@b has none
_USER = re.compile(r"(?<=://)([^\s'\"/?#@]+|[^\s'\"/?#@:]+:(?!\d+(/|$))[^\s'\"?#@]*)@")
_QUERY = re.compile(
    r"([?&](?:[\w.%-]*(?:key|token|secret|signature|passw|credential)[\w.%-]*|sig|auth|pwd)=)[^&\s'\"#]+",
    re.IGNORECASE,
)
_known: set[str] = set()


def is_secret_name(name: str) -> bool:
    """Whether an option of this name holds what nobody else may see, such as `secret` or `sas_token`."""
    return bool(_OPTION.search(name))


def remember_secret(value: Any) -> None:
    """Have `mask` hide this text, or all texts in a mapping or a list, from now on."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            remember_secret(item)
    elif isinstance(value, str) and len(value) >= SHORTEST:
        _known.add(str(value))


def mask(text: str) -> str:
    """`text` without users and passwords in URLs, without keys in their queries, and without known secrets.

    Known are what `remember_secret` was given, and the values of environment variables called `…_KEY`, `…_TOKEN` and
    the like.

    >>> mask("s3://AKIA:secret@bucket/train.csv"), mask("https://host/a.csv?id=1&sig=abc")
    ('s3://bucket/train.csv', 'https://host/a.csv?id=1&sig=***')
    """
    for secret in sorted(_known | _in_environment(), key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", HIDDEN, text)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub("", text))


def masked(value: Any) -> Any:
    """A value of YAML or JSON with every text in it masked.

    >>> masked({"files": ["https://me:pass@host/a.csv"], "rows": 3})
    {'files': ['https://host/a.csv'], 'rows': 3}
    """
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {name: masked(item) for name, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list | tuple) else value


def without_secrets(options: Any) -> Any:
    """Options without those that `is_secret_name`, at any depth; the rest masked.

    >>> without_secrets({"anon": False, "client": {"aws_secret_access_key": "x", "region": "eu"}})
    {'anon': False, 'client': {'region': 'eu'}}
    """
    if isinstance(options, Mapping):
        return {name: without_secrets(item) for name, item in options.items() if not is_secret_name(str(name))}
    return [without_secrets(item) for item in options] if isinstance(options, list | tuple) else masked(options)


def remember_secrets_of(options: Any) -> None:
    """Have `mask` hide what `without_secrets` leaves out."""
    if isinstance(options, Mapping):
        for name, item in options.items():
            (remember_secret if is_secret_name(str(name)) else remember_secrets_of)(item)
    elif isinstance(options, list | tuple):
        for item in options:
            remember_secrets_of(item)


def _in_environment() -> set[str]:
    """Values of variables that are named like secrets; a path, such as that of a file of keys, is none."""
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST_IN_ENVIRONMENT and _VARIABLE.search(name.upper()) and not os.path.exists(value)
    }
