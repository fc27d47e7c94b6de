import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from tithe.evaluation import (
    class_balance,
    confusion_matrix,
    pr_curves,
    reliability_diagram,
    roc_curves,
    softmax,
)
from tithe.evaluation.drawing import drawing, shorten, thinned
from tithe.evaluation.figures import _precision_recall, _roc


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path):
    """The figure as an array [height, width, 3], after checks that it is a PNG of decent size and not blank."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        drawn = np.asarray(image.convert("RGB"))
    assert drawn.shape[0] >= 250 and drawn.shape[1] >= 400
    assert 0.005 < (drawn.min(axis=2) < 200).mean() < 0.9
    return drawn


def scored(classes, n=600):
    rng = np.random.default_rng(classes)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 2.0
    return softmax(logits), labels, [f"class number {k} of a long name" for k in range(classes)]


def draw_all(folder, classes):
    p, y, names = scored(classes)
    predictions = p.argmax(axis=1)
    return [
        confusion_matrix(folder / "counts.png", y, predictions, names),
        confusion_matrix(folder / "shares.png", y, predictions, names, normalise=True),
        roc_curves(folder / "roc.png", p, y, names),
        pr_curves(folder / "pr.png", p, y, names),
        reliability_diagram(folder / "reliability.png", p, y),
        class_balance(folder / "balance.png", y, y[:50], names),
    ]


@pytest.mark.parametrize("classes", [2, 15, 77])
def test_every_figure_is_a_picture_and_the_same_each_time(tmp_path, classes):
    first, second = draw_all(tmp_path / "a", classes), draw_all(tmp_path / "b", classes)
    assert len({path.read_bytes() for path in first}) == len(first)
    for path, again in zip(first, second, strict=True):
        pixels(path)
        assert path.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in first) == sorted(entry.name for entry in (tmp_path / "a").iterdir())


def test_matrix_shows_where_the_mistakes_are(tmp_path):
    right = confusion_matrix(tmp_path / "right.png", [0, 1, 2], [0, 1, 2], list("abc"))
    wrong = confusion_matrix(tmp_path / "wrong.png", [0, 1, 2], [2, 1, 0], list("abc"))
    mirrored = pixels(right) != pixels(wrong)
    assert mirrored.any(axis=2).mean() > 0.05


def test_normalised_matrix_shows_shares_of_each_row(tmp_path):
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    three_times = [np.concatenate([column, column[:2], column[:2]]) for column in (labels, predictions)]
    drawn = [
        confusion_matrix(tmp_path / f"{k}.png", *pair, list("abc"), normalise=normalise).read_bytes()
        for k, (pair, normalise) in enumerate(
            [((labels, predictions), True), (three_times, True), ((labels, predictions), False), (three_times, False)]
        )
    ]
    assert drawn[0] == drawn[1] and drawn[2] != drawn[3]


def test_matrix_with_a_class_without_rows_and_odd_names(tmp_path):
    names = ["$5 to $10", "a\nb & <c>", "x" * 80]
    pixels(confusion_matrix(tmp_path / "m.png", [0, 0, 1], [0, 1, 2], names, normalise=True))


def test_curves_of_a_split_without_positives_say_so(tmp_path):
    p = np.array([[0.8, 0.2], [0.6, 0.4]])
    for draw in (roc_curves, pr_curves):
        assert (
            draw(tmp_path / "none.png", p, [0, 0]).read_bytes() != draw(tmp_path / "one.png", p, [0, 1]).read_bytes()
        )


def test_many_classes_show_the_thirty_that_differ_most(tmp_path):
    pool, names = np.repeat(np.arange(50), 2), [str(k) for k in range(50)]
    with Image.open(class_balance(tmp_path / "50.png", pool, [0, 49], names)) as fifty:
        with Image.open(class_balance(tmp_path / "30.png", pool[:60], [0, 29], names[:30])) as thirty:
            assert fifty.size == thirty.size


@pytest.mark.parametrize("seed", range(5))
def test_drawn_curves_enclose_the_reported_area(seed):
    rng = np.random.default_rng(seed)
    positive, score = rng.random(60) < 0.3, rng.integers(12, size=60) / 12  # with ties
    for curve in (_roc, _precision_recall):
        x, height, area = curve(positive, score)
        assert ((height[1:] + height[:-1]) / 2 * np.diff(x)).sum() == pytest.approx(area)
        assert x[0] == 0 and x[-1] == 1 and (np.diff(x) >= 0).all()


def test_failed_drawing_leaves_the_old_figure(tmp_path):
    path = tmp_path / "figure.png"
    path.write_text("old")
    with pytest.raises(KeyError), drawing(path):
        raise KeyError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="figure.pdf"):
        confusion_matrix(tmp_path / "figure.pdf", [0], [0], ["a", "b"])
    with pytest.raises(ValueError, match="predictions must be from 0 to 1, got from 2"):
        confusion_matrix(tmp_path / "f.png", [0], [2], ["a", "b"])
    with pytest.raises(ValueError, match="`chosen_labels` is empty"):
        class_balance(tmp_path / "f.png", [0, 1], [], ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_users_matplotlib_is_left_alone(tmp_path):
    script = (
        "import sys, matplotlib\n"
        "def settings():  # reading the backend would choose one\n"
        "    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != 'backend'}\n"
        "from tithe.evaluation import loss_curve\n"
        "matplotlib.rcParams['axes.facecolor'] = 'red'\n"
        "before = settings()\n"
        "loss_curve(sys.argv[1], [{'step': 0, 'value': 1.0}])\n"
        "assert settings() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = tmp_path / "loss.png"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    red = (pixels(path) == [255, 0, 0]).all(axis=2)
    assert not red.any()


def test_import_of_the_room_is_light():
    script = (
        "import sys, tithe.evaluation\n"
        "heavy = {'matplotlib', 'sklearn', 'torch', 'pyarrow', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_labels_are_shortened_and_thinned():
    assert shorten("a  b\nc") == "a b c"
    assert len(shorten("x" * 50, 10)) == 10 and shorten("x" * 50, 10).endswith("…")
    assert list(thinned(5, 10)) == [0, 1, 2, 3, 4] and list(thinned(77, 40)) == list(range(0, 77, 2))
