"""Row arithmetic on labels and text hashes: stratified subsets, splits that no text straddles, duplicates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tithe.recipes.data_arguments import SourceArguments
from tithe.recipes.readers import DataError


SPLITS = ("train", "validation", "test")


@dataclass
class SplitRows:
    """The rows of a split: what is kept of them, a hash of the text of each, and its class."""

    table: pa.Table
    hashes: np.ndarray
    labels: np.ndarray

    def rows(self, chosen: np.ndarray) -> "SplitRows":
        indices = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return SplitRows(self.table.take(pa.array(indices)), self.hashes[indices], self.labels[indices])


def stratified_sample(labels: np.ndarray, count: int, rng: np.random.Generator, spare: int = 0) -> np.ndarray:
    """Indices of `count` rows, ascending, with the classes in their shares to within one row.

    At least `spare` rows of each class stay outside, so fewer than `count` come where classes are that rare. What the
    largest remainders decide, ties included, depends on `labels` and `rng` alone.
    """
    sizes = np.bincount(labels)
    room = np.maximum(sizes - spare, 0)
    wanted = min(count, int(room.sum()))
    exact = sizes * (wanted / max(len(labels), 1))
    taken = np.minimum(np.floor(exact).astype(np.int64), room)
    while (missing := wanted - int(taken.sum())) > 0:
        by_remainder = np.argsort(taken - exact, kind="stable")
        taken[[c for c in by_remainder if taken[c] < room[c]][:missing]] += 1
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels[order]]
    return np.sort(order[rank < taken[labels[order]]])


def carve(hashes: np.ndarray, labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of the rows of a stratified split of about `fraction`: rows of equal text go together, to one side.

    Each class keeps a text on the other side; the class of a text is that of its first row.
    """
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    chosen = stratified_sample(labels[first], max(1, round(fraction * len(first))), rng, spare=1)
    return np.isin(group, chosen)


def make_missing(splits: dict[str, SplitRows], args: SourceArguments) -> None:
    """Carve the splits that are not there out of train, as `args` say; `DataError` where train is too small."""
    fractions = {"test": args.test_fraction, "validation": args.validation_fraction}
    remaining = 1.0
    for number, (split, fraction) in enumerate(fractions.items()):
        if split in splits:
            continue
        train = splits["train"]
        rng = np.random.default_rng([args.split_seed, number])
        mask = carve(train.hashes, train.labels, fraction / remaining, rng)
        if not mask.any():
            raise DataError(
                f"train ({len(mask)} rows) has no class with two texts to make {split} from; give {split} data"
            )
        splits[split], splits["train"] = train.rows(mask), train.rows(~mask)
        remaining -= fraction


def finish_splits(
    splits: dict[str, SplitRows], args: SourceArguments, answers: Callable[[SplitRows], np.ndarray] | None = None
) -> dict[str, Any]:
    """Make the splits that are missing, count duplicates, remove and subset as `args` say, all in place.

    Args:
        answers: gives an integer per row; rows of equal text conflict where these differ. Default: their classes.

    Returns:
        `made`, the splits that were made from train, and `duplicates`, counted before any of them was removed.

    Raises:
        DataError: in one line.
    """
    made = [split for split in SPLITS if split not in splits]
    make_missing(splits, args)
    hashes, train = {split: splits[split].hashes for split in SPLITS}, splits["train"]
    told = train.labels if answers is None else answers(train)
    duplicates = count_duplicates(hashes, told)
    if args.deduplicate:
        splits["train"] = train.rows(distinct_rows(hashes, told))
        if not len(splits["train"].labels):
            raise DataError("`--deduplicate` leaves nothing of train: every text repeats or occurs in another split")
    duplicates["removed"] = len(train.labels) - len(splits["train"].labels)
    for number, split in enumerate(SPLITS):
        limit = args.max_train_samples if split == "train" else args.max_eval_samples
        if limit is not None and limit < len(splits[split].labels):
            rng = np.random.default_rng([args.split_seed, 10 + number])
            splits[split] = splits[split].rows(stratified_sample(splits[split].labels, limit, rng))
    return {"made": made, "duplicates": duplicates}


def count_duplicates(hashes: Mapping[str, np.ndarray], train_labels: np.ndarray) -> dict[str, int]:
    """Rows of train that repeat an earlier one, rows of the others that occur in train, texts of several labels."""
    train = hashes["train"]
    counts = {
        "train": len(train) - len(np.unique(train)),
        "conflicting": len(np.unique(_conflicting(train, train_labels))),
    }
    for split in hashes:
        if split != "train":
            counts[f"train_{split}"] = int(np.isin(hashes[split], train).sum())
    return counts


def distinct_rows(hashes: Mapping[str, np.ndarray], train_labels: np.ndarray) -> np.ndarray:
    """A mask of the rows of train that are the first of their text, have one label, and occur in no other split."""
    train = hashes["train"]
    keep = np.zeros(len(train), bool)
    keep[np.unique(train, return_index=True)[1]] = True
    keep &= ~np.isin(train, _conflicting(train, train_labels))
    for split in hashes:
        if split != "train":
            keep &= ~np.isin(train, hashes[split])
    return keep


def _conflicting(hashes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The hashes that occur with more than one label."""
    pairs = np.unique(np.stack([hashes, labels.astype(hashes.dtype)]), axis=1)
    values, counts = np.unique(pairs[0], return_counts=True)
    return values[counts > 1]
