"""`tithe strategies`: all of them in a table, or one in full."""

import textwrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tithe.recipes.errors import nearest
from tithe.selection import STRATEGIES, WRAPPERS, Described, describe_strategies


# Signals by what a user has to have for them; what comes with another one is not told apart.
_READS = {
    "texts": "texts",
    "labels": "labels",
    "embeddings": "embeddings",
    "probabilities": "predictions",
    "mc_probabilities": "predictions under dropout",
    "committee_probabilities": "a committee's predictions",
    "el2n": "EL2N",
    "perplexity": "perplexity",
    "ifd": "IFD",
    "head_inputs": "inputs of the head",
}


def strategy_names() -> list[str]:
    return [*STRATEGIES, *WRAPPERS]


def print_strategies(console: Console | None = None) -> None:
    """Name, needs, one line and source of each, a block each: four columns do not fit 80 characters."""
    console = console or Console(highlight=False)
    for described in describe_strategies():
        _print_block(described, f"reads {_reads(described)}", console)
    console.print("\nWrappers, as in `--strategy balanced:margin`:", style="bold")
    for described in describe_strategies(WRAPPERS):
        _print_block(described, "around any strategy", console)
    console.print("\n`tithe strategies NAME` tells more of one.")


def print_strategy(name: str, console: Console | None = None) -> None:
    """All that its docstring says, its hyper-parameters, and the flags that choose it.

    Raises:
        ValueError: there is no such strategy or wrapper.
    """
    console = console or Console(highlight=False)
    everything = {one.name: one for kinds in (STRATEGIES, WRAPPERS) for one in describe_strategies(kinds)}
    if name not in everything:
        raise ValueError(f"no strategy {name!r}{nearest(name, everything, '`tithe strategies`')}")
    described = everything[name]
    console.print(Text(name, style="bold"))
    console.print(Text("\n\n".join(_reflowed(part, console.width) for part in described.text.split("\n\n"))))
    if described.hyperparameters:
        console.print("\nHyper-parameters and their defaults:")
        for key, value in described.hyperparameters.items():
            console.print(Text(f"  {key} = {value!r}"))
    flag = f"{name}:margin" if name in WRAPPERS else name
    console.print(Text(f"\n--strategy {flag}" + _kwargs_flag(described)), soft_wrap=True)


def _kwargs_flag(described: Described) -> str:
    if not described.hyperparameters or described.name in WRAPPERS:
        return ""
    key, value = next(iter(described.hyperparameters.items()))
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else value
    return f" --strategy_kwargs '{{\"{key}\": {shown}}}'"


def _reads(described: Described) -> str:
    needs = [_READS[need] for need in described.needs if need in _READS]
    return ", ".join(needs) or "nothing"


def _reflowed(paragraph: str, width: int) -> str:
    """A paragraph for a terminal; formulas, lists and examples stay as they are written."""
    if paragraph.startswith("Args:"):
        entries = textwrap.dedent(paragraph.removeprefix("Args:\n")).replace("\n ", " ").split("\n")
        filled = [textwrap.fill(" ".join(one.split()), width - 4, subsequent_indent="    ") for one in entries]
        return "Args:\n" + textwrap.indent("\n".join(filled), "    ")
    as_written = paragraph.startswith((" ", "-", ">>>"))
    return paragraph if as_written else textwrap.fill(" ".join(paragraph.split()), width)


def _print_block(described: Described, reads: str, console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=18, no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    origin = f" · {described.source}" if described.source else ""
    table.add_row(described.name, Text(described.line))
    table.add_row("", Text(f"{reads}{origin}", style="dim"))
    console.print(table)
