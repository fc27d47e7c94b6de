"""What a run says of its selection once it is over: the map of the pool, its coverage, and what choosing cost."""

from typing import Any

import numpy as np

from tithe.recipes.classification_results import PoolView
from tithe.selection import coverage_radius
from tithe.trainers import Ledger, RoundSelectionTrainer


def view_pool(trainer: RoundSelectionTrainer, points: int) -> PoolView | None:
    """The chosen rows and `points` others, as the trained model sees them: on process 0, but all must call it."""
    ledger, labels = trainer.ledger, trainer.pool.labels()
    others = np.setdiff1d(np.arange(len(trainer.pool)), ledger.selected)
    others = np.random.default_rng(trainer.args.seed).permutation(others)[:points]
    rows = np.sort(np.concatenate([ledger.selected, others]))
    embeddings = trainer.signals(trainer.train_dataset.select(rows), {"embeddings"}).get("embeddings")
    if embeddings is None or labels is None:
        return None
    rounds = [np.searchsorted(rows, chosen) for chosen in ledger.indices]
    return PoolView(embeddings, rounds, labels, labels[ledger.selected])


def describe_selection(trainer: RoundSelectionTrainer, view: PoolView) -> dict[str, Any]:
    """The selection in a few numbers.

    `coverage_radius` is the greatest distance of a row in the view to the nearest chosen one, after each round: on
    L2-normalised embeddings of the trained model, so that strategies can be compared whatever they read.
    """
    ledger: Ledger = trainer.ledger
    seconds = [row["seconds"] for row in ledger.rows]
    radii = [
        round(coverage_radius(view.embeddings, view.embeddings[rows], normalize=True), 4)
        for rows in (np.concatenate(view.rounds[: number + 1]) for number in range(len(view.rounds)))
    ]
    return {
        "strategy": ledger.terms["strategy"],
        "pool": len(trainer.pool),
        "selected": len(ledger.selected),
        "share": len(ledger.selected) / len(trainer.pool),
        "rounds": len(ledger.rows),
        "coverage_radius": radii,
        "seconds": {name: sum(part[name] for part in seconds) for name in ("scoring", "selecting")},
    }
