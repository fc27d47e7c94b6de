"""The figure of a round: what it shows of what is known, and the plane of its map."""

import numpy as np
import pytest
from matplotlib.image import imread

from tithe.evaluation import PoolPlane, RoundMap, round_figure


rng = np.random.default_rng(0)
LABELS = rng.integers(0, 3, 60)
SCORES = rng.random(60)
MAP = RoundMap(rng.normal(size=(60, 2)), np.empty((0, 2)), rng.normal(size=(6, 2)))
CLASSES = {"names": ["a", "b", "c"], "pool_labels": LABELS, "selected_labels": LABELS[:6]}


@pytest.mark.parametrize(
    "panels, known",
    [
        (1, CLASSES),
        (1, {"scores": SCORES, "chosen_scores": SCORES[:6]}),
        (1, {"places": MAP}),
        (3, {**CLASSES, "scores": SCORES, "chosen_scores": SCORES[:6], "places": MAP}),
    ],
)
def test_every_thing_that_is_known_has_a_panel(tmp_path, panels, known):
    path = round_figure(tmp_path / "round.png", title="Round 1", **known)
    assert path == tmp_path / "round.png"
    height, width = imread(path).shape[:2]
    assert round(width / 144) == round(4.6 * panels) and height / 144 == pytest.approx(4.4, abs=0.02)


def test_the_same_round_gives_the_same_bytes_and_another_another(tmp_path):
    def drawn(name, scores):
        return round_figure(tmp_path / name, title="x", scores=scores, chosen_scores=scores[:6]).read_bytes()

    assert drawn("a.png", SCORES) == drawn("b.png", SCORES) != drawn("c.png", SCORES**2)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"scores": np.full(60, np.nan), "chosen_scores": np.full(6, np.nan)},
        {"scores": np.zeros(60), "chosen_scores": np.zeros(6)},
        {"names": ["a"], "pool_labels": [0, 0]},
    ],
)
def test_without_anything_to_show_there_is_no_file(tmp_path, known):
    assert round_figure(tmp_path / "round.png", title="Round 1", **known) is None
    assert not list(tmp_path.iterdir())


def test_the_plane_is_that_of_the_first_two_components():
    spread = np.diag([5.0, 3.0, 0.01])
    points = (rng.normal(size=(200, 3)) @ spread).astype(np.float32)
    plane = PoolPlane.of(points)
    np.testing.assert_allclose(plane.places(points), plane.sample, atol=1e-6)
    np.testing.assert_allclose(np.abs(plane.axes[:2]), np.eye(2), atol=0.1)
    distances = np.linalg.norm(points[:50, None] - points[None, :50], axis=2)
    np.testing.assert_allclose(
        np.linalg.norm(plane.sample[:50, None] - plane.sample[None, :50], axis=2), distances, atol=0.1
    )
