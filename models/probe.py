"""Linear probes: what a cheap model on fixed embeddings says of a pool, in place of the model in training."""

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


_BLOCK_ROWS = 1 << 14
_ITERATIONS = 300
_EARLY_ITERATIONS = 10


class LinearProbe:
    """Multinomial logistic regression on L2-normalised embeddings.

    Minimises `C · Σ cross-entropy + ½‖W‖²` by L-BFGS (scikit-learn), from zero at each fit: what it says depends on
    the rows it was fitted on and not on the rounds before. Selection by such a proxy is Coleman et al., 1906.11829.

    Args:
        classes: number of classes; those without a labelled row get the probability 0.
        C: inverse strength of the L2 penalty.
        iterations: at most so many L-BFGS iterations.

    >>> probe = LinearProbe(classes=3).fit(np.eye(2, dtype=np.float32), np.array([0, 2]))
    >>> probe.probabilities(np.eye(2, dtype=np.float32)).argmax(axis=1).tolist()
    [0, 2]
    """

    def __init__(self, classes: int, C: float = 20.0, iterations: int = _ITERATIONS) -> None:
        self.classes, self.C, self.iterations = classes, C, iterations

    def fit(self, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> "LinearProbe":
        """Fit to `embeddings` (n, d) with one class index each.

        Raises:
            ValueError: no rows, or a label that is no class.
        """
        if len(labels) == 0:
            raise ValueError("a probe needs at least one labelled row")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(f"labels must be from 0 to {self.classes - 1}, got {labels.min()} to {labels.max()}")
        found = np.unique(labels)
        self._weights = np.zeros((embeddings.shape[1], self.classes), dtype=np.float32)
        self._biases = np.full(self.classes, -np.inf, dtype=np.float32)
        self._biases[found] = 0
        if len(found) > 1:
            self._fit(unit_rows(embeddings), labels, found)
        return self

    def _fit(self, rows: NDArray[np.float32], labels: NDArray[np.int64], found: NDArray[np.int64]) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=self.C, max_iter=self.iterations)
        with warnings.catch_warnings():  # stopped early, a probe serves as well
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Few rows for many classes is what selection begins with.
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            model.fit(rows, labels)
        if len(found) == 2:  # scikit-learn keeps the difference of the two
            self._weights[:, found[1]], self._biases[found[1]] = model.coef_[0], model.intercept_[0]
        else:
            self._weights[:, found], self._biases[found] = model.coef_.T, model.intercept_

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (n, classes) of `embeddings` (n, d); a memory-mapped array is read in blocks."""
        result = np.empty((len(embeddings), self.classes), dtype=np.float32)
        for start in range(0, len(embeddings), _BLOCK_ROWS):
            logits = unit_rows(embeddings[start : start + _BLOCK_ROWS]) @ self._weights + self._biases
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            result[start : start + _BLOCK_ROWS] = logits / logits.sum(axis=1, keepdims=True)
        return result


def bagged_probabilities(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    fitted: NDArray[np.int64],
    classes: int,
    members: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Probabilities (members, n, classes) of probes that are each fitted to a bootstrap sample of the rows `fitted`.

    Their disagreement stands in for that of dropout passes or of a committee (query by bagging: Abe & Mamitsuka 1998).
    """
    result = np.empty((members, len(embeddings), classes), dtype=np.float32)
    for member in range(members):
        rows = rng.choice(fitted, size=len(fitted))
        result[member] = LinearProbe(classes).fit(embeddings[rows], labels[rows]).probabilities(embeddings)
    return result


def out_of_fold_el2n(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    proxies: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """EL2N (Paul et al., 2107.07075) as the mean over `proxies` early-trained linear probes: float32[n].

    Each proxy divides the rows at random into halves, fits a probe of few iterations to each, and scores each half by
    the probe that has not seen it: ‖p − onehot(label)‖₂. It reads every label.
    """
    total = np.zeros(len(labels))
    for _ in range(proxies):
        for fitted, scored in _halves(len(labels), rng):
            probe = LinearProbe(classes, iterations=_EARLY_ITERATIONS).fit(embeddings[fitted], labels[fitted])
            errors = probe.probabilities(embeddings[scored])
            errors[np.arange(len(scored)), labels[scored]] -= 1
            total[scored] += np.linalg.norm(errors, axis=1)
    return (total / proxies).astype(np.float32)


def _halves(n: int, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    order = rng.permutation(n)
    first, second = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    if len(first) == 0:
        yield second, second  # of a single row there is no half
        return
    yield first, second
    yield second, first


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows` (n, d), each divided by its L2 norm; a row of zeros stays."""
    rows = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)
