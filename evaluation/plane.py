"""Points of many dimensions as points of a plane, and samples of them that a figure can show."""

import numpy as np
from numpy.typing import NDArray


Floats = NDArray[np.float64]


def sampled(groups: list[NDArray[np.int64]], at_most: int) -> list[NDArray[np.int64]]:
    """Each group whole, or its proportional part of a fixed random sample of about `at_most`, in ascending order."""
    total = sum(map(len, groups))
    if total <= at_most:
        return groups
    rng = np.random.default_rng(0)
    parts = (-(-len(group) * at_most // total) for group in groups)
    return [np.sort(rng.choice(group, part, replace=False)) for group, part in zip(groups, parts, strict=True)]


def principal_plane(points: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean [d], the first two principal axes [d, 2] and their shares of the variance [2] of the points [n, d].

    The sign of an axis is such that its largest entry is positive, so the figure does not flip between machines. Of
    one-dimensional points the second axis is zero.
    """
    mean = points.mean(axis=0)
    covariance = np.cov(points - mean, rowvar=False, bias=True).reshape(points.shape[1], points.shape[1])
    variances, vectors = np.linalg.eigh(covariance)
    plane = vectors[:, ::-1][:, :2]
    plane = plane * np.where(plane[np.abs(plane).argmax(axis=0), np.arange(plane.shape[1])] < 0, -1.0, 1.0)
    shares = np.maximum(variances[::-1][:2], 0) / max(float(variances.sum()), np.finfo(float).tiny)
    missing = 2 - plane.shape[1]
    return mean, np.pad(plane, ((0, 0), (0, missing))), np.pad(shares, (0, missing))
