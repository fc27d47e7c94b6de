"""Label a query at the terminal: the text, what the teachers think of it, and a key for each label.

    tithe label runs/expert_loop/queries/query-000.jsonl

Every answer is saved at once, so that you may stop at any time and go on later. `?` sets a row aside that nobody can
tell, `<` goes back one row, `q` stops. With more labels than keys, type the beginning of a label's name and Enter.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tithe.recipes.errors import user_errors
from tithe.trainers.file_oracle import FORMATS, LABELS_NAME, SKIP, QueryRow, read_rows, save_label


BACK, QUIT = "<", "q"
_KEYS = "123456789abcdefghijklmnoprstuvwxyz"  # without `q`
_ENTER = ("\r", "\n")

ReadKey = Callable[[], str]


def main(argv: list[str] | None = None) -> None:
    """Label the query file that `argv` names."""
    parser = argparse.ArgumentParser(
        "tithe label", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("queries", type=Path, help="a query file of an expert loop: query-000.jsonl or .csv")
    parser.add_argument("--all", action="store_true", help="go through rows that have a label, too")
    options = parser.parse_args(argv)
    with user_errors(), keys() as read:
        label(options.queries, read, Console(), again=options.all)


def label(path: Path, read: ReadKey, console: Console, *, again: bool = False) -> int:
    """Ask for the label of each row of `path` that has none, and save each answer at once.

    Args:
        path: the query file.
        read: gives the next key that is pressed, or a whole line, character by character; "" at the end of input.
        console: what is shown on.
        again: whether rows that have a label are gone through, too.

    Returns:
        How many rows are still without a label.

    Raises:
        ValueError: there is no such file, its lines are broken, or the list of labels beside it is missing.
    """
    names, rows = _open(path)
    labels = {row.row: row.label for row in rows}
    todo = [row for row in rows if again or row.label is None]
    place = 0
    while place < len(todo):
        row = todo[place]
        left = sum(value is None for value in labels.values())
        _show(row, labels[row.row], names, len(rows) - left, len(rows), console)
        answer = _answer(names, read, console)
        if answer in ("", QUIT):
            break
        if answer == BACK:
            place = max(place - 1, 0)
            continue
        save_label(path, row.row, answer)
        labels[row.row] = answer
        place += 1
    left = sum(value is None for value in labels.values())
    done = f"all {len(rows)} rows have a label: start the run again" if not left else f"{left} of {len(rows)} left"
    console.print(f"{path}: {done}", soft_wrap=True)
    return left


def _open(path: Path) -> tuple[list[str], list[QueryRow]]:
    if path.suffix not in FORMATS or not path.is_file():
        raise ValueError(f"{path} is no query file: give one that ends in {' or '.join(FORMATS)}")
    if not (path.parent / LABELS_NAME).is_file():
        raise ValueError(f"{path.parent} has no {LABELS_NAME}, which says what labels there are")
    rows, faults = read_rows(path)
    if faults:
        raise ValueError(f"{path} is broken: " + "; ".join(faults[:3]))
    return json.loads((path.parent / LABELS_NAME).read_text(encoding="utf-8")), rows


def _show(row: QueryRow, label: str | None, names: Sequence[str], done: int, rows: int, console: Console) -> None:
    body = Text()
    for name, value in row.shown.items():
        if name != "teachers":
            body.append(f"{name}  ", style="dim").append(_readable(value) + "\n")
    console.print(Panel(body, title=f"row {row.row} · {done} of {rows} labelled", title_align="left"))
    opinions = row.shown.get("teachers") or []
    for number, opinion in enumerate([opinions] if isinstance(opinions, str) else opinions):
        told = opinion if isinstance(opinion, str) else ", ".join(f"{n} {p:.0%}" for n, p in opinion.items())
        console.print(Text(f"teacher {number}: {told}" if not isinstance(opinion, str) else f"teachers: {told}"))
    if label is not None:
        console.print(Text(f"so far: {label}", style="bold"))
    if len(names) <= len(_KEYS):
        table = Table.grid(padding=(0, 2))
        for key, name in zip(_KEYS, names, strict=False):
            table.add_row(Text(key, style="bold"), Text(name))
        console.print(table)


def _readable(value: object) -> str:
    return "\n".join(f"{n}: {part}" for n, part in enumerate(value)) if isinstance(value, list) else str(value)


def _answer(names: Sequence[str], read: ReadKey, console: Console) -> str:
    """The name of a label, `?`, `<` or `q`; "" at the end of input."""
    many = len(names) > len(_KEYS)
    while True:
        console.print(Text("label (? set aside, < back, q stop): "), end="")
        typed = _line(read) if many else _key(read)
        console.print(Text(typed))
        if typed in ("", SKIP, BACK, QUIT):
            return typed
        fitting = [name for name in names if name == typed] or [name for name in names if name.startswith(typed)]
        if not many and typed in _KEYS[: len(names)]:
            return names[_KEYS.index(typed)]
        if many and len(fitting) == 1:
            return fitting[0]
        console.print(Text(f"no: {', '.join(fitting[:8])} begin so" if many and fitting else "there is no such label"))


def _key(read: ReadKey) -> str:
    while (key := read()) in _ENTER:
        pass
    return key


def _line(read: ReadKey) -> str:
    typed = ""
    while (key := read()) and key not in _ENTER:
        typed = typed[:-1] if key in ("\x7f", "\b") else typed + key
    return typed.strip()


@contextlib.contextmanager
def keys() -> Iterator[ReadKey]:
    """Reads keys as they are pressed; where input is no terminal, character by character."""
    if not sys.stdin.isatty():
        yield lambda: sys.stdin.read(1)
        return
    try:
        import termios
        import tty
    except ImportError:  # Windows
        import msvcrt

        yield msvcrt.getwch  # type: ignore[attr-defined]
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: sys.stdin.read(1)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
