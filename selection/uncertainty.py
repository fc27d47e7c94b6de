"""How unsure a model is of each row: pure functions from probabilities to one number per row."""

import numpy as np


_BLOCK_ROWS = 1 << 14


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of each row divided by log C: 0 for a certain prediction, 1 for a uniform one.

    `probabilities` is float[n, c], each row summing to 1 within 5 % (16-bit softmax); the result is float64[n], all
    zero for a single class.

    Raises:
        ValueError: a value is below 0 or a row does not sum to 1, as when logits are passed.

    >>> normalised_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    n, classes = probabilities.shape
    entropy = np.empty(n)
    for start in range(0, n, _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        p = np.asarray(probabilities[part], dtype=np.float64)
        wrong = (p.min(axis=1) < 0) | (np.abs(p.sum(axis=1) - 1) > 0.05)
        if wrong.any():
            raise ValueError(
                f"`probabilities` must be at least 0 and sum to 1 in each row; the row at position "
                f"{start + wrong.argmax()} is not so. Apply a softmax if these are logits."
            )
        p = p / p.sum(axis=1, keepdims=True)
        entropy[part] = (p * -np.log(p, out=np.zeros_like(p), where=p > 0)).sum(axis=1)
    return np.clip(entropy / np.log(classes), 0, 1) if classes > 1 else np.zeros(n)
