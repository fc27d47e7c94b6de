import numpy as np
import pytest

from tithe.evaluation import optimisation_history, parallel_coordinates, parameter_importance, trial_curves
from tithe.evaluation.report import PNG_SIGNATURE
from tithe.evaluation.tuning_figures import _scale


NAMES = ["learning_rate", "weight_decay", "adam_betas", "lr_scheduler_type"]
NOT_DONE = {"trial": 3, "state": "pruned", "loss": None, **dict.fromkeys(NAMES)}


def trials(count=6):
    rng = np.random.default_rng(0)
    return [
        {
            "trial": number if number < 3 else number + 1,
            "state": "complete",
            "loss": float(rng.random()),
            "learning_rate": float(10 ** rng.uniform(-5, -3)),
            "weight_decay": [0.0, 0.1][number % 2],
            "adam_betas": [(0.9, 0.99), [0.9, 0.999]][number % 2],
            "lr_scheduler_type": ["linear", "cosine"][number % 2],
        }
        for number in range(count)
    ]


def draw_all(folder, rows, **options):
    yield optimisation_history(folder / "history.png", rows, "loss", **options)
    yield parallel_coordinates(folder / "parallel.png", rows, "loss", NAMES, logarithmic=["learning_rate"], **options)


@pytest.mark.parametrize("greater_is_better", [False, True])
@pytest.mark.parametrize("rows", [trials(), [*trials(), NOT_DONE], trials(1), [NOT_DONE]])
def test_are_drawn_of_any_trials(tmp_path, rows, greater_is_better):
    for path in draw_all(tmp_path, rows, greater_is_better=greater_is_better):
        assert path.read_bytes().startswith(PNG_SIGNATURE)


def test_the_best_trial_depends_on_the_direction(tmp_path):
    first = [path.read_bytes() for path in draw_all(tmp_path, trials(), greater_is_better=False)]
    second = [path.read_bytes() for path in draw_all(tmp_path, trials(), greater_is_better=True)]
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.parametrize("importance", [{}, {"learning_rate": 0.7, "head_dropout": 0.3}])
def test_importance(tmp_path, importance):
    assert parameter_importance(tmp_path / "i.png", importance).read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.parametrize("curves", [{}, {0: {1: 0.5, 2: 0.4}, 3: {1: 0.9}}])
def test_curves(tmp_path, curves):
    assert trial_curves(tmp_path / "c.png", curves, 0, "loss").read_bytes().startswith(PNG_SIGNATURE)


def test_scales():
    logarithmic = _scale([1e-5, 1e-4, 1e-3], logarithmic=True)
    np.testing.assert_allclose(logarithmic.heights, [0, 0.5, 1], atol=1e-12)
    assert logarithmic.ticks == [(0.0, "1e-05"), (0.5, "0.0001"), (1.0, "0.001")]
    assert _scale([4.0, 1.0, 2.0], logarithmic=False).heights == pytest.approx([1, 0, 1 / 3])
    words = _scale(["b", "a", "b"], logarithmic=False)
    assert (words.heights, words.ticks) == ([1.0, 0.0, 1.0], [(0.0, "a"), (1.0, "b")])
    assert _scale([0.1, 0.1], logarithmic=False).heights == [0.5, 0.5]


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="`trials` is empty"):
        optimisation_history(tmp_path / "h.png", [], "loss")
    with pytest.raises(ValueError, match="`names` is empty"):
        parallel_coordinates(tmp_path / "p.png", trials(), "loss", [])
    with pytest.raises(ValueError, match=r"must end in \.png"):
        parameter_importance(tmp_path / "i.svg", {})
