"""What `--help` of a recipe looks like: its own arguments, one spelling each, in a terminal of any width.

Transformers' `TrainingArguments` has over a hundred fields. `--help` shows those that are used most, `--help_all` all.
"""

import argparse
import re
import textwrap
from typing import Any


# Of Transformers' own arguments those that `--help` shows.
USUAL = frozenset(
    {
        *("output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size"),
        *(
            "gradient_accumulation_steps",
            "learning_rate",
            "warmup_steps",
            "weight_decay",
            "lr_scheduler_type",
            "optim",
        ),
        *("bf16", "seed", "use_cpu", "auto_find_batch_size", "report_to", "push_to_hub", "hub_model_id"),
        *("predict_with_generate", "generation_max_length", "generation_num_beams"),
    }
)
_LONGEST_NAME = 26
_KINDS = {int: "N", float: "X", str: "TEXT"}


class HelpPage(argparse.RawDescriptionHelpFormatter):
    """`--name TEXT` and what it is for, with the default where there is one; the description in paragraphs."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=_LONGEST_NAME, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_paragraph(part, width, indent) for part in text.strip("\n").split("\n\n"))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [name for name in action.option_strings if not name.startswith("--")]
        long = [name for name in action.option_strings if name.startswith("--")][:1]  # `--a_b`, and not `--a-b`, too
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return ", ".join(short + long) + (f" {value}" if value else "")

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        name = action.dest
        if name.endswith(("_file", "_checkpoint")):
            return "FILE"
        if name.endswith(("_dir", "_folder")):
            return "FOLDER"
        if getattr(action.type, "__name__", "") == "string_to_bool":
            return "true|false"
        kind = action.type if isinstance(action.type, type) else None
        return _KINDS.get(kind, "JSON" if getattr(action.type, "__name__", "") == "read" else "TEXT")  # type: ignore[arg-type]

    def _get_help_string(self, action: argparse.Action) -> str:
        text = " ".join((action.help or "").split())
        if _many(action):
            text += " One of " + ", ".join(map(str, action.choices or ())) + "."
        default = action.default
        told = default in (None, argparse.SUPPRESS, "", [], {}) or "efault:" in text or "%(default)" in text
        if told or not action.option_strings:
            return text
        shown = (
            ("true" if default else "false") if isinstance(default, bool) else str(getattr(default, "value", default))
        )
        return f"{text} (default: {shown.replace('%', '%%')})"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if action.metavar is None and _many(action):
            return lambda count: ("NAME",) * count
        return super()._metavar_formatter(action, default_metavar)

    def _format_args(self, action: argparse.Action, default_metavar: str | None) -> str:
        default_metavar = default_metavar or ""  # none where the parser only checks the action
        value = super()._format_args(action, default_metavar)
        name = self._metavar_formatter(action, default_metavar)(1)[0]
        return value.replace(f"{name} [{name} ...]", f"{name} …").replace(f"[{name}]", name)


class WholeHelp(argparse.Action):
    """`--help_all`: the help with everything that `--help` leaves out."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.whole_help = True
        parser.print_help()
        parser.exit()


def heading(name: str) -> str:
    """The title of the group of a dataclass's arguments.

    >>> heading("RoundSelectionConfig"), heading("TrainingArguments")
    ('Round selection', 'Training (Hugging Face)')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"(Arguments|Config)$", "", name)).split()
    title = " ".join(words[:1] + [word if word.isupper() else word.lower() for word in words[1:]])
    return f"{title} (Hugging Face)" if name.endswith("TrainingArguments") else title


def _many(action: argparse.Action) -> bool:
    return action.choices is not None and len(list(action.choices)) > 5


def _paragraph(text: str, width: int, indent: str) -> str:
    if text.startswith(" "):  # commands, a line each
        return "\n".join(_command(line, width) for line in text.splitlines())
    return textwrap.fill(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent)


def _command(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()))
    parts = textwrap.wrap(line.strip(), width - len(indent) - 6, break_long_words=False, break_on_hyphens=False)
    return f" \\\n{indent}    ".join([indent + parts[0], *parts[1:]])
