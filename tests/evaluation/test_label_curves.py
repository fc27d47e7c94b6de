"""How many labels reach a score, by hand; the figure of it."""

import numpy as np
import pytest
from PIL import Image

from tithe.evaluation import label_curves, labels_to_reach


@pytest.mark.parametrize(
    ("curve", "score", "labels"),
    [
        ({100: 0.5, 200: 0.7}, 0.6, 150),
        ({100: 0.5, 200: 0.7}, 0.7, 200),
        ({100: 0.5, 200: 0.7}, 0.4, 100),
        ({100: 0.5, 200: 0.7}, 0.71, None),
        ({100: 0.7, 200: 0.6, 300: 0.8}, 0.65, 225),  # for good: not at 100
        ({300: 0.8, 100: 0.5, 200: 0.7}, 0.75, 250),  # in any order
    ],
)
def test_labels_to_reach(curve, score, labels):
    found = labels_to_reach(curve, score)
    assert found is None if labels is None else found == pytest.approx(labels)


def test_the_figure_shows_each_curve(tmp_path):
    curves = {"expert loop": [{100: 0.5, 200: 0.7}, {100: 0.55, 200: 0.72}], "random queries": [{100: 0.4, 200: 0.5}]}
    path = label_curves(tmp_path / "curves.png", curves, levels={"supervised": 0.8})
    with_one = label_curves(tmp_path / "one.png", {"expert loop": curves["expert loop"]})
    first, second = (np.asarray(Image.open(p).convert("RGB")) for p in (path, with_one))
    assert first.shape[1] == second.shape[1] and (first != 255).any()
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > len(np.unique(second.reshape(-1, 3), axis=0))


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no curve to draw"):
        label_curves(tmp_path / "none.png", {})
