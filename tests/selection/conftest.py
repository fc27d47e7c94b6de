"""Brute force in float64, one pick at a time: what the fast code must agree with."""

from types import SimpleNamespace

import numpy as np
import pytest


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def distances(rows, others):
    return np.sqrt(((rows[:, None] - others[None]) ** 2).sum(-1))


def medoid(rows):
    return int(distances(rows, rows.mean(axis=0)[None])[:, 0].argmin())


def greedy(rows, k, chosen=(), earlier=None, quality=None, alpha=0.0):
    """Positions picked and their values, given the positions `chosen` and the rows `earlier` to start from.

    Ties go to the first row.
    """
    chosen = list(chosen)
    centres = rows[chosen] if earlier is None else np.concatenate([earlier, rows[chosen]])
    least = distances(rows, centres).min(axis=1)
    scale = (least.max() or 1.0) if quality is not None else 1.0
    quality = np.zeros(len(rows)) if quality is None else quality
    values = [np.nan] * len(chosen)
    while len(chosen) < k:
        value = (1 - alpha) * least / scale + alpha * quality
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        values.append(value.max())
        least = np.minimum(least, distances(rows, rows[chosen[-1:]])[:, 0])
    return chosen, values, least


def facility_location(rows, k, quality, alpha, earlier=None):
    """Positions picked by (1 - alpha) · gain / scale + alpha · quality, all pairs of rows counted.

    Two rows that are each other's best gain the same: the first is meant, whatever the rounding.
    """
    cosines = np.maximum(unit(rows) @ unit(rows).T, 0)
    best = np.zeros(len(rows))
    if earlier is not None:
        best = np.maximum((unit(rows) @ unit(earlier).T).max(axis=1), 0)
    scale = np.maximum(cosines - best[:, None], 0).sum(axis=0).max()
    chosen, values = [], []
    while len(chosen) < k:
        value = (1 - alpha) * np.maximum(cosines - best[:, None], 0).sum(axis=0) / scale + alpha * quality
        value[chosen] = -np.inf
        chosen.append(int((value > value.max() - 1e-9).argmax()))
        values.append(value.max())
        best = np.maximum(best, cosines[:, chosen[-1]])
    return chosen, values


@pytest.fixture
def reference():
    return SimpleNamespace(
        unit=unit, distances=distances, medoid=medoid, greedy=greedy, facility_location=facility_location
    )
