"""A query that waits for its answers, in the checkpoint that the run goes on from."""

from pathlib import Path
from typing import Any

from ..selection import Selection
from .choosing import Choice
from .ledger import LEDGER_NAME, Ledger


_FOLDER = "waiting"


def save_waiting(folder: Path, terms: dict[str, Any], waiting: tuple[int, Choice]) -> None:
    """Write the choice of an iteration, given with its number, into the checkpoint `folder`."""
    number, choice = waiting
    row = {"round": number, "strategy": choice.strategy, "radius": choice.radius, "seconds": choice.seconds}
    ledger = Ledger(terms)
    ledger.add(row, choice.selection.indices, choice.selection.scores, dict(choice.selection.columns))
    ledger.save(folder / _FOLDER)


def load_waiting(folder: Path) -> tuple[int, Choice] | None:
    """The number and the choice of the iteration that waits in the checkpoint `folder`, if one does."""
    if not (folder / _FOLDER / LEDGER_NAME).is_file():
        return None
    ledger = Ledger.load(folder / _FOLDER)
    row = ledger.rows[0]
    selection = Selection(indices=ledger.indices[0], scores=ledger.scores[0], columns=ledger.columns[0])
    return row["round"], Choice(selection, row["radius"], row["strategy"], row["seconds"])
