"""AFLite: leave out the rows that a linear model predicts without having seen them, and rank the rest by readability.

The faithful filter fits thousands of logistic regressions. A ridge regression on the one-hot labels has a closed
form, one Gram matrix per partition, and orders the rows nearly the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .pool import Pool, Selection, check_request
from .rows import Rows


# Of the mean variance of a feature; little enough to leave the fit to the rows.
_RIDGE = 0.01
_FORMULAS = {"flesch_reading_ease": 1, "flesch_kincaid_grade": -1, "script_neutral": -1}


@dataclass(frozen=True)
class AfliteReadability:
    """The most readable of the rows that adversarial filtering leaves (AFLite, 2002.04108, Algorithm 1).

    Again and again, `partitions` times a linear model is fitted to a random `train_share` of the rows that are left
    and predicts the others; the predictability of a row is the share of right predictions. Then the most predictable
    rows with at least `threshold` are removed, at most `slice_share` of each class. A class is finished when fewer
    than that reach the threshold, or when `floor` of its rows are left, or k / n of them where that is more: so k
    rows always remain, and no class vanishes. The rest is ranked by readability; texts without words come last.

    Needs `embeddings`, `labels` and `texts`. Scores are the readability by the formula. Columns: `predictability`,
    as of the last time (NaN if there was none), and `removed`, the iteration that removed a row, 0 for survivors.

    It removes what is easy to predict: survivors are the hard rows, and the mislabelled ones. Prefer it to look for
    shortcuts in a data set, not to train on a tenth: with small budgets hard rows lose to random ones. The embeddings
    must not come from a model trained on these rows, or everything is predictable. With one class, or fewer than ten
    rows, nothing is filtered. Where the threshold stops the filter early, readability alone decides.

    Args:
        model: "ridge", or "logistic", scikit-learn's logistic regression as in the paper, which takes four to
            seven times as long.
        partitions: how many models per iteration; 64 in the paper.
        threshold: least predictability of removed rows, tau in the paper.
        train_share: share of the rows that each model is fitted to.
        slice_share: largest share of a class's remaining rows that one iteration removes.
        floor: share of each class that remains at least.
        readability: "flesch_reading_ease", "flesch_kincaid_grade" (both English), or "script_neutral".
        direction: "easy" or "hard" texts first.

    >>> pool = Pool(ids=[3, 5], embeddings=np.eye(2), labels=[0, 1], texts=["The cat sat.", "Notwithstanding that."])
    >>> AfliteReadability().select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [3]
    """

    model: str = "ridge"
    partitions: int = 64
    threshold: float = 0.75
    train_share: float = 0.5
    slice_share: float = 0.1
    floor: float = 1 / 3
    readability: str = "flesch_reading_ease"
    direction: str = "easy"

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "labels", "texts"})

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", ("ridge", "logistic")),
            ("readability", tuple(_FORMULAS)),
            ("direction", ("easy", "hard")),
        ):
            if getattr(self, name) not in allowed:
                options = " or ".join(f'"{option}"' for option in allowed)
                raise ValueError(f"`{name}` must be {options}, got {getattr(self, name)!r}.")
        if self.partitions < 2:
            raise ValueError(f"`partitions` must be at least 2, got {self.partitions}.")
        for name in ("threshold", "slice_share", "floor"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be a share above 0 and at most 1, got {getattr(self, name)}.")
        if not 0 < self.train_share < 1:
            raise ValueError(f"`train_share` must be a share above 0 and below 1, got {self.train_share}.")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        from .readability import readability

        check_request("aflite_readability", pool, k, self.needs)
        assert pool.embeddings is not None and pool.labels is not None and pool.texts is not None
        if pool.labels.ndim != 1:
            raise ValueError(
                f"`aflite_readability` needs one label per row, got `labels` of shape {pool.labels.shape}."
            )
        by_id = np.argsort(pool.ids)
        removed, votes = np.empty(len(pool), dtype=np.int64), np.empty(len(pool))
        classes = np.unique(pool.labels[by_id], return_inverse=True)[1]
        removed[by_id], votes[by_id] = self._filter(_centred(pool.embeddings, by_id), classes, k, rng)
        values = readability(pool.texts, self.readability)
        ease = values * _FORMULAS[self.readability] * (1 if self.direction == "easy" else -1)
        ranked = np.lexsort((pool.ids, np.where(np.isnan(ease), np.inf, -ease), removed > 0))
        return Selection(pool.ids[ranked[:k]], values, {"predictability": votes, "removed": removed})

    def _filter(
        self, rows: np.ndarray, classes: np.ndarray, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """In which iteration each row is removed, 0 for never, and its last predictability."""
        removed, votes = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), np.nan)
        sizes = np.bincount(classes)
        least = np.ceil(max(self.floor, k / len(rows)) * sizes - 1e-9).astype(np.int64)
        active = set(np.flatnonzero(sizes > least).tolist()) if len(sizes) > 1 and len(rows) >= 10 else set()
        iteration = 0
        while active:
            iteration += 1
            left = np.flatnonzero(removed == 0)
            votes[left] = predictability(rows[left], classes[left], rng, self.model, self.partitions, self.train_share)
            for number in sorted(active):
                members = left[classes[left] == number]
                room = min(max(1, int(self.slice_share * len(members))), len(members) - int(least[number]))
                ranked = members[np.argsort(-np.nan_to_num(votes[members]), kind="stable")[:room]]
                out = ranked[np.nan_to_num(votes[ranked]) >= self.threshold]
                removed[out] = iteration
                if len(out) < room or len(members) - len(out) <= least[number]:
                    active.remove(number)
        return removed, votes


def predictability(
    rows: np.ndarray,
    classes: np.ndarray,
    rng: np.random.Generator,
    model: str = "ridge",
    partitions: int = 64,
    train_share: float = 0.5,
) -> np.ndarray:
    """How often a linear model predicts each row's class when fitted without it, float64[n], NaN if never.

    `rows` float[n, d] should be centred; `classes` int[n] from 0. Each of the `partitions` models is fitted to a
    random `train_share` of the rows.
    """
    n = len(rows)
    size = min(n - 1, max(1, round(train_share * n)))
    # The constant column is the intercept.
    extended = np.ones((n, rows.shape[1] + 1), dtype=np.float32)
    extended[:, :-1] = rows
    predict = _ridge(extended, classes) if model == "ridge" else _logistic(rows, classes)
    right, asked = np.zeros(n), np.zeros(n)
    for _ in range(partitions):
        out = np.ones(n, dtype=bool)
        out[rng.permutation(n)[:size]] = False
        right += out & (predict(~out) == classes)
        asked += out
    return np.divide(right, asked, out=np.full(n, np.nan), where=asked > 0)


def _ridge(rows: np.ndarray, classes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Predictions for all rows of a ridge regression of the one-hot classes, fitted to the rows of a mask."""
    targets = np.eye(classes.max() + 1, dtype=np.float32)[classes]

    def predict(fitted: np.ndarray) -> np.ndarray:
        part = rows[fitted]
        gram = (part.T @ part).astype(np.float64)
        slope = gram[:-1, :-1]
        slope.flat[:: len(slope) + 1] += _RIDGE * max(float(np.trace(slope)) / len(slope), 1e-12)
        weights = np.linalg.solve(gram, (part.T @ targets[fitted]).astype(np.float64))
        return (rows @ weights.astype(np.float32)).argmax(axis=1)

    return predict


def _logistic(rows: np.ndarray, classes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    def predict(fitted: np.ndarray) -> np.ndarray:
        if len(np.unique(classes[fitted])) == 1:
            return np.full(len(rows), classes[fitted][0])
        return LogisticRegression(max_iter=200).fit(rows[fitted], classes[fitted]).predict(rows)

    return predict


def _centred(embeddings: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The rows in the order of `positions`, L2-normalised and centred, with a mean variance of 1, float32."""
    rows = Rows(embeddings, positions, normalize=True).take(np.arange(len(positions))).vectors
    rows = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = float(np.sqrt(np.square(rows, dtype=np.float32).mean(dtype=np.float64)))
    return rows / np.float32(spread or 1.0)
