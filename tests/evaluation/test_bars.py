"""Grouped bars: drawn for groups that differ in their settings, the same each time, and never from nothing."""

import pytest

from tithe.evaluation import grouped_bars


GROUPS = {
    "one": {"none": (0.2, 0.1, 0.3), "oracle": (0.8, 0.7, 0.9)},
    "other": {"oracle": (0.9, 0.9, 0.9), "bm25 × 3": (0.5, 0.45, 0.55)},
}


def test_the_same_scores_give_the_same_picture(tmp_path):
    first, second = (grouped_bars(tmp_path / f"{name}.png", GROUPS, metric="Token Recall") for name in "ab")
    other = GROUPS | {"other": {"oracle": (0.4, 0.3, 0.5)}}
    third = grouped_bars(tmp_path / "c.png", other, metric="Token Recall")
    assert first.read_bytes() == second.read_bytes() != third.read_bytes()


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no scores to draw"):
        grouped_bars(tmp_path / "a.png", {"one": {}}, metric="x")
    with pytest.raises(ValueError, match="png"):
        grouped_bars(tmp_path / "a.pdf", GROUPS, metric="x")
