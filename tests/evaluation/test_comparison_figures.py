import warnings

import numpy as np
import pytest
from PIL import Image

from tithe.evaluation import budget_curves, overlap_matrix, seed_scores


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) >= 250
        return np.asarray(image.convert("RGB")).astype(int)


def near(drawn, colour, within=40):
    """Number of pixels [height, width, 3] close to the colour "#rrggbb"."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(drawn - wanted).max(axis=2) < within).sum())


def curves(count, budgets=(0.05, 0.1, 0.4), seeds=3):
    rng = np.random.default_rng(0)
    return {f"strategy {n}": {b: (b + 0.1 * rng.random(seeds)).tolist() for b in budgets} for n in range(count)}


@pytest.mark.parametrize("count", [1, 6, 20])
def test_every_strategy_has_a_curve(tmp_path, count):
    drawn = pixels(budget_curves(tmp_path / "curves.png", curves(count), full=[0.9, 0.95]))
    colours = {0: "#0072B2", 1: "#D55E00", 2: "#009E73", 3: "#CC79A7", 5: "#E69F00"}
    assert [near(drawn, colour, 20) > 50 for colour in colours.values()] == [n < count for n in colours]


def test_a_curve_bears_one_seed_one_budget_and_gaps(tmp_path):
    some = {"random": {0.1: [0.5]}, "a": {0.2: [0.6, 0.7]}}
    first = budget_curves(tmp_path / "a.png", some).read_bytes()
    again = budget_curves(tmp_path / "b.png", dict(reversed(some.items()))).read_bytes()
    assert first == again  # the baseline keeps its look wherever it stands
    with pytest.raises(ValueError, match="`curves` is empty"):
        budget_curves(tmp_path / "none.png", {})


def test_scores_have_a_dot_for_each_seed(tmp_path):
    one = near(pixels(seed_scores(tmp_path / "one.png", {"a": [0.1], "b": [0.9]})), "#64A7CF", 30)
    three = near(
        pixels(seed_scores(tmp_path / "three.png", {"a": [0.1, 0.2, 0.4], "b": [0.5, 0.7, 0.9]})), "#64A7CF", 30
    )
    assert 0 < one < three
    with pytest.raises(ValueError, match="`scores` is empty"):
        seed_scores(tmp_path / "none.png", {})


@pytest.mark.parametrize("count", [1, 3, 25])
def test_overlaps_are_darker_the_greater_they_are(tmp_path, count):
    names = [f"strategy_{n}" for n in range(count)]
    low, high = np.full((count, count), 0.05), np.full((count, count), 0.95)
    shades = [pixels(overlap_matrix(tmp_path / f"{v[0, 0]}.png", names, v)).mean() for v in (low, high)]
    assert shades[0] > shades[1]
    low[0, 0] = np.nan
    pixels(overlap_matrix(tmp_path / "gap.png", names, low))


def test_overlaps_must_fit_the_names(tmp_path):
    with pytest.raises(ValueError, match="square matrix of the 2 names"):
        overlap_matrix(tmp_path / "x.png", ["a", "b"], np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        overlap_matrix(tmp_path / "x.png", ["a"], [[1.5]])
