"""How a label or a text surprises a model that predicts it."""

import numpy as np
from numpy.typing import NDArray


_LEAST_LOSS = 1e-3  # nats: of a class that is nearly all of the pool


def conditional_scores(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """`perplexity` and `ifd` of labelled rows under a classifier, each float32[n].

    `perplexity` is −log p(y|x), the loss of the label given the text, in nats. `ifd` (2308.12032) divides it by the
    loss of the label alone, −log of the class's share of the rows, at least 0.001: that takes one value per class, so
    compare rows within their class.

    Args:
        probabilities: (n, c)
        labels: class index of each row.

    >>> scores = conditional_scores(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1]))
    >>> scores["perplexity"].round(3).tolist(), scores["ifd"].round(3).tolist()
    ([0.693, 0.693], [1.0, 1.0])
    """
    given = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    loss = -np.log(given, dtype=np.float32)
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / max(len(labels), 1)
    alone = np.maximum(-np.log(np.maximum(shares, np.finfo(np.float32).tiny)), _LEAST_LOSS)
    return {"perplexity": loss, "ifd": (loss / alone[labels]).astype(np.float32)}
