"""Bootstrap intervals and the sign-flip test against closed forms and against enumeration."""

import itertools
import math
import time

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from tithe.evaluation import bootstrap_interval, intervals, paired_comparison


class TestBootstrap:
    @pytest.mark.parametrize("confidence", [0.95, 0.8])
    @pytest.mark.parametrize("kind", ["reals", "binary"])
    def test_a_large_sample_is_normal(self, kind, confidence):
        """mean ± z · sd / √n; both ways of resampling."""
        rng = np.random.default_rng(3)
        values = rng.gamma(4, size=2000) if kind == "reals" else (rng.random(2000) < 0.3).astype(float)
        found = bootstrap_interval(values, confidence)
        reach = norm.ppf(0.5 + confidence / 2) * values.std() / math.sqrt(2000)
        assert found.mean == pytest.approx(values.mean()) and found.count == 2000
        assert found.mean - found.low == pytest.approx(reach, rel=0.06)
        assert found.high - found.mean == pytest.approx(reach, rel=0.06)

    def test_the_two_ways_of_resampling_agree(self):
        values = np.random.default_rng(0).integers(4, size=400) / 3
        by_counts = bootstrap_interval(values, samples=20_000)
        by_rows = bootstrap_interval(values + np.arange(400) * 1e-12, samples=20_000)  # no two are equal
        assert by_counts != by_rows
        assert (by_counts.low, by_counts.high) == pytest.approx((by_rows.low, by_rows.high), abs=2e-3)

    def test_many_values_that_repeat_take_no_time(self):
        """Row by row it would be 5 · 10⁹ draws."""
        start = time.process_time()
        found = bootstrap_interval(np.arange(500_000) % 2)
        assert time.process_time() - start < 5
        assert found.high - found.low == pytest.approx(2 * norm.ppf(0.975) * 0.5 / math.sqrt(500_000), rel=0.06)

    def test_of_two_values_all_resamples_are_known(self):
        """0 and 1: means 0, ½, 1 with chances ¼, ½, ¼."""
        assert bootstrap_interval([0, 1], confidence=0.4) == intervals.Interval(0.5, 0.5, 0.5, 2)
        assert bootstrap_interval([0, 1], confidence=0.6) == intervals.Interval(0.5, 0.0, 1.0, 2)

    def test_constant_values_have_no_width(self):
        for count in (2, 100):
            found = bootstrap_interval([0.1] * count)
            assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-15)

    def test_one_value_has_no_interval(self):
        found = bootstrap_interval([0.3])
        assert found.mean == 0.3 and found.count == 1 and math.isnan(found.low) and math.isnan(found.high)

    def test_seeds(self):
        values = np.random.default_rng(1).random(50)
        np.random.seed(0)
        state = np.random.get_state()[1].copy()
        first, again, other = (bootstrap_interval(values, samples=500, seed=seed) for seed in (0, 0, 1))
        assert first == again and first != other
        assert (np.random.get_state()[1] == state).all()

    @pytest.mark.parametrize("values", [np.linspace(0, 1, 37), [0, 1] * 40])
    def test_blocks_change_nothing_and_bound_the_memory(self, values, monkeypatch):
        whole = bootstrap_interval(values, samples=333)
        monkeypatch.setattr(intervals, "NUMBERS_AT_ONCE", 100)
        assert bootstrap_interval(values, samples=333) == whole

    @pytest.mark.parametrize(
        ("values", "settings", "message"),
        [
            ([], {}, "at least one number"),
            ([[1.0]], {}, r"shape \(1, 1\)"),
            ([1.0, math.nan, math.inf], {}, "2 of 3 are not, the first in row 1"),
            ([1.0, 2.0], {"confidence": 95}, "between 0 and 1, got 95"),
            ([1.0, 2.0], {"samples": 0}, "at least 1, got 0"),
        ],
    )
    def test_bad_input(self, values, settings, message):
        with pytest.raises(ValueError, match=message):
            bootstrap_interval(values, **settings)


def enumerated(differences):
    """The p-value by all 2ⁿ flips, one by one."""
    sums = [abs(sum(flips)) for flips in itertools.product(*((d, -d) for d in differences))]
    return np.mean([total >= abs(sum(differences)) - 1e-9 for total in sums])


class TestPairedComparison:
    def test_by_hand(self):
        """Differences 0.5, 0.25, 0, -0.25: a sum of 0.5, and of ±0.5 ± 0.25 ± 0.25 six in eight are as far from 0."""
        found = paired_comparison([1, 0.75, 0.3, 0], [0.5, 0.5, 0.3, 0.25])
        assert found.difference == pytest.approx(0.125) and (found.wins, found.ties, found.losses) == (2, 1, 1)
        assert found.p_value == pytest.approx(6 / 8)

    @pytest.mark.parametrize(("wins", "losses"), [(1, 0), (5, 1), (7, 7), (2, 9), (12, 3), (30, 14), (300, 240)])
    def test_of_zeros_and_ones_it_is_mcnemars_test(self, wins, losses):
        """Exact McNemar: the discordant pairs are tosses of a coin. Ties of either kind count for nothing."""
        first = [1] * wins + [0] * losses + [1] * 5 + [0] * 3
        second = [0] * wins + [1] * losses + [1] * 5 + [0] * 3
        found = paired_comparison(first, second, samples=1000)
        assert found.p_value == pytest.approx(binomtest(wins, wins + losses, 0.5).pvalue)
        assert (found.wins, found.ties, found.losses) == (wins, 8, losses)

    @pytest.mark.parametrize("seed", range(4))
    def test_few_rows_are_enumerated(self, seed):
        rng = np.random.default_rng(seed)
        first, second = rng.integers(5, size=(2, 9)) / 4 if seed % 2 else rng.random((2, 9))
        assert paired_comparison(first, second, samples=512).p_value == pytest.approx(enumerated(first - second))

    def test_sums_equal_but_for_rounding_are_equal(self):
        differences = np.array([0.1, 0.2, -0.3, 0.1])
        zero = np.zeros(4)
        for order in itertools.permutations(range(4)):
            found = paired_comparison(differences[list(order)], zero)
            assert found.p_value == pytest.approx(enumerated(differences))

    def test_many_rows_are_sampled(self):
        differences = np.random.default_rng(5).normal(0.4, 1, size=14)
        exact = enumerated(differences)
        sampled = paired_comparison(differences, np.zeros(14), samples=4000).p_value
        assert sampled != exact and 0.02 < exact < 0.98
        assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))

    def test_a_sampled_p_value_is_never_zero(self):
        found = paired_comparison(np.linspace(1, 2, 60), np.zeros(60), samples=200)
        assert found.p_value == pytest.approx(1 / 201)

    def test_large_runs_follow_the_normal_approximation(self):
        rng = np.random.default_rng(1)
        first, second = rng.normal(0.05, 1, 1000), rng.normal(0, 1, 1000)
        differences = first - second
        expected = 2 * norm.sf(abs(differences.sum()) / math.sqrt((differences**2).sum()))
        found = paired_comparison(first, second, samples=4000).p_value
        assert found == pytest.approx(expected, abs=0.03) and 0.03 < expected < 0.97

    def test_the_interval_is_that_of_the_differences(self):
        rng = np.random.default_rng(0)
        first = rng.random(80)
        second = first - rng.normal(0.1, 0.05, size=80)  # hard for both or for neither
        found = paired_comparison(first, second, confidence=0.9, samples=2000, seed=7)
        expected = bootstrap_interval(first - second, 0.9, 2000, 7)
        assert (found.difference, found.low, found.high) == (expected.mean, expected.low, expected.high)
        assert 0.08 < found.low < found.high < 0.12 and found.p_value < 0.01

    def test_swapping_the_runs_turns_the_sign(self):
        first, second = np.random.default_rng(4).random((2, 40))
        one, other = paired_comparison(first, second), paired_comparison(second, first)
        assert one.difference == -other.difference and (one.wins, one.losses) == (other.losses, other.wins)
        assert one.p_value == pytest.approx(other.p_value, abs=0.02)
        assert one == paired_comparison(first, second) and one != paired_comparison(first, second, seed=1)

    def test_equal_runs(self):
        found = paired_comparison([0.5, 1.0], [0.5, 1.0])
        assert found == intervals.PairedComparison(0.0, 0.0, 0.0, 1.0, 0, 2, 0)

    def test_blocks_bound_the_memory(self, monkeypatch):
        first, second = np.random.default_rng(4).random((2, 40))
        whole = paired_comparison(first, second, samples=500)
        monkeypatch.setattr(intervals, "NUMBERS_AT_ONCE", 100)
        assert paired_comparison(first, second, samples=500) == whole

    def test_bad_input(self):
        with pytest.raises(ValueError, match="scores of the same rows, got 2 and 3"):
            paired_comparison([1, 2], [1, 2, 3])
        with pytest.raises(ValueError, match="`second` must be finite"):
            paired_comparison([1, 2], [1, math.nan])
        with pytest.raises(ValueError, match="`confidence`"):
            paired_comparison([1, 2], [1, 2], confidence=1)
