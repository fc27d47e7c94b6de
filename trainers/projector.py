"""The pool as TensorBoard's projector shows it: embeddings of the trained model, with label and round of each row."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset
from transformers.integrations import TensorBoardCallback

from ..models import plain_model
from .trackers import tensorboard_writer


if TYPE_CHECKING:
    from .round_selection import RoundSelectionTrainer

MOST_POINTS = 5_000
HEADER = ["label", "round", "row"]
NOT_CHOSEN = "not chosen"


def log_pool_embeddings(trainer: "RoundSelectionTrainer") -> None:
    """Show up to 5,000 rows of the pool in TensorBoard's projector: what was chosen, and a sample of the rest.

    All processes must call it. Nothing happens where `report_to` has no `tensorboard`.
    """
    callbacks = trainer.callback_handler.callbacks
    boards: list[Any] = [callback for callback in callbacks if isinstance(callback, TensorBoardCallback)]
    if not boards:
        return
    rows = rows_to_show(len(trainer.pool), trainer.ledger.indices, trainer.args.seed)
    dataset = trainer.train_dataset
    part = dataset.select(rows) if hasattr(dataset, "select") else Subset(dataset, rows.tolist())
    embeddings = trainer.signals(part, {"embeddings"}).get("embeddings")
    if embeddings is None:  # of another process
        return
    about = describe_rows(rows, trainer.ledger.indices, trainer.pool.labels(), class_names(trainer.model))
    with tensorboard_writer(boards[0].logging_dir or Path(str(trainer.args.output_dir)) / "runs") as writer:
        writer.add_embedding(
            embeddings, about, tag="pool", metadata_header=HEADER, global_step=trainer.state.global_step
        )


def rows_to_show(
    pool: int, rounds: Sequence[NDArray[np.int64]], seed: int, most: int = MOST_POINTS
) -> NDArray[np.int64]:
    """At most `most` of the rows of a pool, ascending: half of them, or more if others are few, chosen ones."""
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([np.empty(0, dtype=np.int64), *rounds])
    others = np.setdiff1d(np.arange(pool), chosen)
    from_chosen = min(len(chosen), max(most // 2, most - len(others)))
    parts = (rng.permutation(chosen)[:from_chosen], rng.permutation(others)[: most - from_chosen])
    return np.sort(np.concatenate(parts))


def describe_rows(
    rows: NDArray[np.int64],
    rounds: Sequence[NDArray[np.int64]],
    labels: NDArray[np.int64] | None,
    names: Sequence[str],
) -> list[list[str]]:
    """Label, round and number of each row, as `HEADER` says."""
    round_of = {int(row): str(number) for number, chosen in enumerate(rounds) for row in chosen}
    found = []
    for row in rows.tolist():
        label = -1 if labels is None else int(labels[row])
        name = names[label] if 0 <= label < len(names) else "unknown"
        found.append([" ".join(name.split()), round_of.get(row, NOT_CHOSEN), str(row)])
    return found


def class_names(model: Any) -> list[str]:
    """What the classes of a model are called; none for one without such a config."""
    config = getattr(plain_model(model), "config", None)
    return [str(name) for _, name in sorted(getattr(config, "id2label", {}).items())]
