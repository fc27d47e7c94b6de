"""Around `from_pretrained`: errors in one line, and models that ZeRO-3 leaves whole."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.integrations import deepspeed


@contextmanager
def one_line_errors(what: str, hint: str = "") -> Iterator[None]:
    """Inside it, what cannot be loaded raises a `ValueError`: `what`, the first line of the reason, and `hint`.

    >>> with one_line_errors("`model` north could not be loaded", "Give a folder"):
    ...     raise OSError("it is no folder.\\nSee the manual.")
    Traceback (most recent call last):
    ValueError: `model` north could not be loaded: it is no folder. Give a folder
    """
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{what}: {' '.join([lines[0], *([hint] if hint else [])])}") from error


@contextmanager
def loaded_whole() -> Iterator[None]:
    """Inside it, `from_pretrained` gives every process the whole model, under ZeRO-3, too.

    By default ZeRO-3 cuts up what is loaded after the training arguments are there, which takes all processes at once.
    A model without an engine that puts it together again, such as a teacher, or one whose weights are to be read or
    changed before it is trained, must be whole. A trainer's model may be: it is cut up when training begins.
    """
    config = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = config
