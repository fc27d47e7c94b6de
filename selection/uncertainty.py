"""How unsure a model, or several, is of each row: pure functions from probabilities to one number per row.

All take each distribution as it comes out of a softmax: at least 0, with a sum of 1 within 5 % (16-bit softmax), which
is rescaled to 1. Logits are refused with a ValueError. The arrays are read block by block.
"""

from collections.abc import Callable

import numpy as np


_BLOCK_ELEMENTS = 1 << 20
_BLOCK_ROWS = 1 << 14


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of each row divided by log C: 0 for a certain prediction, 1 for a uniform one.

    `probabilities` is float[n, c]; the result is float64[n], all zero for a single class.

    >>> normalised_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return _per_row(lambda p: _shares_of_log(_entropy(p), p.shape[-1]), "probabilities", probabilities)


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """One minus the largest probability of each row: 0 for a certain prediction, 1 - 1/C for a uniform one.

    `probabilities` is float[n, c]; the result is float64[n].

    >>> least_confidence(np.array([[0.5, 0.5], [0.75, 0.25]])).tolist()
    [0.5, 0.25]
    """
    return _per_row(lambda p: 1 - p.max(axis=-1), "probabilities", probabilities)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """The largest probability of each row minus the second largest: **small** where the model is unsure.

    `probabilities` is float[n, c]; the result is float64[n], all one for a single class.

    >>> margin(np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])).tolist()
    [0.25, 0.0]
    """

    def of(p: np.ndarray) -> np.ndarray:
        if p.shape[-1] == 1:
            return np.ones(len(p))
        top = np.partition(p, p.shape[-1] - 2, axis=-1)
        return top[:, -1] - top[:, -2]

    return _per_row(of, "probabilities", probabilities)


def bald(mc_probabilities: np.ndarray) -> np.ndarray:
    """What a row's label would tell of the model: H[mean p] - mean H[p] over dropout passes, in nats (1703.02910).

    High where the passes are sure and disagree; 0 where they agree, however unsure each is. `mc_probabilities` is
    float[s, n, c], one distribution per pass; the result is float64[n], from 0 to log C.

    >>> sure_but_at_odds, unsure = [[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.5, 0.5]], [[0.5, 0.5]]]
    >>> np.round(bald(np.concatenate([sure_but_at_odds, unsure], axis=1)), 3).tolist()
    [0.693, 0.0]
    """

    def of(p: np.ndarray) -> np.ndarray:
        return np.maximum(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0), 0)

    return _per_row(of, "mc_probabilities", mc_probabilities)


def vote_entropy(committee_probabilities: np.ndarray) -> np.ndarray:
    """Entropy, divided by log C, of the members' votes for their most probable class (Dagan & Engelson 1995).

    `committee_probabilities` is float[t, n, c]; the result is float64[n]. A member that is torn votes for the first
    of its classes. With few members only few values occur.

    >>> vote_entropy(np.array([[[0.9, 0.1]], [[0.4, 0.6]]])).tolist()
    [1.0]
    """

    def of(p: np.ndarray) -> np.ndarray:
        votes = (p.argmax(axis=-1)[..., None] == np.arange(p.shape[-1])).mean(axis=0)
        return _shares_of_log(_entropy(votes), p.shape[-1])

    return _per_row(of, "committee_probabilities", committee_probabilities)


def consensus_entropy(committee_probabilities: np.ndarray) -> np.ndarray:
    """Entropy, divided by log C, of the members' mean distribution: high where they disagree or are all unsure.

    `committee_probabilities` is float[t, n, c]; the result is float64[n].

    >>> consensus_entropy(np.array([[[1.0, 0.0]], [[0.0, 1.0]]])).tolist()
    [1.0]
    """

    def of(p: np.ndarray) -> np.ndarray:
        return _shares_of_log(_entropy(p.mean(axis=0)), p.shape[-1])

    return _per_row(of, "committee_probabilities", committee_probabilities)


def mean_kl_to_consensus(committee_probabilities: np.ndarray) -> np.ndarray:
    """Mean over the members of KL(member ‖ mean of all), in nats (McCallum & Nigam 1998): disagreement alone.

    `committee_probabilities` is float[t, n, c]; the result is float64[n], from 0 to log C. With equal weights this is
    the generalised Jensen-Shannon divergence, and so the same number as `bald` of the same array; it is summed from
    its own definition here, which keeps more digits where the members nearly agree.

    >>> np.round(mean_kl_to_consensus(np.array([[[1.0, 0.0]], [[0.0, 1.0]]])), 3).tolist()
    [0.693]
    """

    def of(p: np.ndarray) -> np.ndarray:
        ratio = np.divide(p, p.mean(axis=0), out=np.ones_like(p), where=p > 0)
        return np.maximum((p * np.log(ratio)).sum(axis=-1).mean(axis=0), 0)

    return _per_row(of, "committee_probabilities", committee_probabilities)


def _per_row(of: Callable[[np.ndarray], np.ndarray], name: str, probabilities: np.ndarray) -> np.ndarray:
    """`of` blocks of rows in float64, [rows, c] or [members, rows, c], put together."""
    members, n, classes = (1, *probabilities.shape)[-3:]
    step = max(1, min(_BLOCK_ROWS, _BLOCK_ELEMENTS // (members * classes)))
    values = np.empty(n)
    for start in range(0, n, step):
        p = np.asarray(probabilities[..., start : start + step, :], dtype=np.float64)
        sums = p.sum(axis=-1, keepdims=True)
        wrong = (p.min(axis=-1) < 0) | (np.abs(sums[..., 0] - 1) > 0.05)
        if wrong.any():
            position = start + wrong.reshape(members, -1).any(axis=0).argmax()
            raise ValueError(
                f"`{name}` must be at least 0 and sum to 1 in each row; the row at position {position} is not so. "
                "Apply a softmax if these are logits."
            )
        values[start : start + step] = of(p / sums)
    return values


def _entropy(p: np.ndarray) -> np.ndarray:
    """Over the last axis, in nats."""
    return (p * -np.log(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1)


def _shares_of_log(entropy: np.ndarray, classes: int) -> np.ndarray:
    return np.clip(entropy / np.log(classes), 0, 1) if classes > 1 else np.zeros_like(entropy)
