"""Statistics of a comparison against values worked by hand."""

import csv
import io
import math

import numpy as np
import pytest

from tithe.evaluation import (
    ComparedRun,
    budget_text,
    comparison_rows,
    csv_text,
    difference_rows,
    jaccard,
    markdown_table,
    mean_overlaps,
    paired_difference,
    readable_rows,
    spread,
    time_rows,
)


def run(strategy, budget, seed, accuracy, chosen=(0,), pool=10, **seconds):
    metrics = {"test": {"accuracy": accuracy, "f1_macro": accuracy / 2}}
    return ComparedRun(strategy, budget, seed, metrics, np.array(chosen), pool, seconds)


@pytest.fixture
def runs():
    """Three seeds of two strategies; `best` lacks seed 3, and `all` has seeds 1 and 2."""
    scores = {"random": [0.70, 0.72, 0.74], "best": [0.72, 0.76], "worse": [0.60, 0.61, 0.65]}
    found = [run(name, 0.1, seed, a) for name, row in scores.items() for seed, a in enumerate(row, 1)]
    return [*found, run("all", None, 1, 0.80, range(10)), run("all", None, 2, 0.90, range(10))]


def test_the_spread_divides_by_one_less():
    found = spread([2.0, 4.0, 9.0])
    assert (found.mean, found.count) == (5.0, 3)
    assert found.sd == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert spread([3.0]).mean == 3.0 and math.isnan(spread([3.0]).sd) and math.isnan(spread([]).mean)
    assert math.isnan(spread([1.0, float("nan")]).mean)


def test_the_interval_is_students():
    # Differences 0.02, 0.04, 0.06: mean 0.04, sd 0.02, se 0.02 / √3; t(0.975, 2) = 4.302653 (any table).
    found = paired_difference({1: 0.52, 2: 0.64, 3: 0.76}, {3: 0.70, 2: 0.60, 1: 0.50, 4: 0.1})
    reach = 4.302653 * 0.02 / math.sqrt(3)
    assert (found.mean, found.se, found.count) == (pytest.approx(0.04), pytest.approx(0.02 / math.sqrt(3)), 3)
    assert (found.low, found.high) == (pytest.approx(0.04 - reach, abs=1e-7), pytest.approx(0.04 + reach, abs=1e-7))
    # At 90 % and one degree of freedom t is 6.313752.
    wide = paired_difference({1: 1.0, 2: 3.0}, {1: 0.0, 2: 0.0}, confidence=0.9)
    assert wide.high == pytest.approx(2 + 6.313752 * math.sqrt(2) / math.sqrt(2), abs=1e-5)


def test_one_pair_has_no_interval_and_none_no_difference():
    one, none = paired_difference({1: 0.5, 2: 0.5}, {2: 0.4}), paired_difference({1: 0.5}, {2: 0.4})
    assert one.mean == pytest.approx(0.1) and one.count == 1 and math.isnan(one.low) and math.isnan(one.se)
    assert math.isnan(none.mean) and none.count == 0


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 1.0, (2000, 4))
    intervals = [paired_difference(dict(enumerate(row)), dict.fromkeys(range(4), 0.0)) for row in draws]
    covered = np.mean([found.low <= 0.3 <= found.high for found in intervals])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_overlaps_by_hand():
    runs = [
        run("a", 0.2, 1, 0.5, [0, 1, 2]),
        run("a", 0.2, 2, 0.5, [2, 3, 4]),
        run("b", 0.2, 1, 0.5, [2, 1, 5]),
        run("b", 0.2, 2, 0.5, [7, 8, 9]),
        run("c", 0.2, 3, 0.5, [0, 1, 2]),
    ]
    names, found = mean_overlaps(runs)
    assert names == ["a", "b", "c"]
    nan = float("nan")
    # a with a: seeds 1 and 2 share row 2 of five. a with b: 2 of 4 and 0 of 6. b with b: nothing. c has no seed in
    # common with any.
    np.testing.assert_allclose(found, [[1 / 5, 1 / 4, nan], [1 / 4, 0, nan], [nan, nan, nan]])


def test_jaccard_takes_sets():
    assert jaccard([1, 2], [2, 1]) == 1.0 and jaccard([1], [2]) == 0.0 and math.isnan(jaccard([], []))


def test_rows_compare_over_the_seeds_that_both_have(runs):
    rows = comparison_rows(runs, "test", ["accuracy"])
    assert [row["strategy"] for row in rows] == ["all", "best", "random", "worse"]
    by = {row["strategy"]: row for row in rows}
    assert [by[name]["seeds"] for name in by] == [2, 2, 3, 3]
    assert by["random"]["accuracy_mean"] == pytest.approx(0.72) and by["random"]["accuracy_sd"] == pytest.approx(0.02)
    assert by["random"]["accuracy_share_of_full"] == pytest.approx(0.71 / 0.85)  # seeds 1 and 2 alone
    assert by["best"]["accuracy_minus_random"] == pytest.approx(0.03)  # 0.02 and 0.04
    assert by["best"]["accuracy_minus_random_se"] == pytest.approx(0.01)
    assert by["worse"]["accuracy_minus_random_high"] < 0
    assert by["all"]["accuracy_minus_random"] == pytest.approx((0.10 + 0.18) / 2)
    assert by["all"]["share_selected"] == 1.0 and by["best"]["share_selected"] == 0.1
    assert by["all"]["accuracy_share_of_full"] == 1.0


def test_each_budget_has_its_own_baseline(runs):
    more = [run("random", 0.2, seed, 0.9) for seed in (1, 2)] + [run("best", 0.2, seed, 0.8) for seed in (1, 2)]
    rows = {(r["strategy"], r["budget"]): r for r in comparison_rows([*runs, *more], "test", ["accuracy"])}
    assert rows["best", 0.1]["accuracy_minus_random"] == pytest.approx(0.03)
    assert rows["best", 0.2]["accuracy_minus_random"] == pytest.approx(-0.1)
    assert math.isnan(rows["all", None]["accuracy_minus_random"])


def test_without_baseline_or_full_what_depends_on_them_is_undefined():
    row = comparison_rows([run("best", 0.1, 1, 0.7)], "test", ["accuracy", "roc_auc"])[0]
    assert row["accuracy_mean"] == 0.7
    undefined = ("accuracy_sd", "accuracy_share_of_full", "accuracy_minus_random", "roc_auc_mean")
    assert all(math.isnan(row[name]) for name in undefined)
    cells = readable_rows([row], ["accuracy", "roc_auc"])[0]
    assert cells["accuracy"] == "70.00" and cells["ROC-AUC"] == "–" and cells["share of full"] == "–"


def test_tables_to_read(runs):
    cells = {row["strategy"]: row for row in readable_rows(comparison_rows(runs, "test", ["accuracy"]), ["accuracy"])}
    assert cells["random"]["accuracy"] == "72.00 ± 2.00" and cells["random"]["budget"] == "10 %"
    # Seeds 1 and 2: differences 2 and 4; t(0.975, 1) = 12.7062.
    assert cells["best"]["minus random [95 %]"] == "+3.00 [-9.71, +15.71]"
    assert cells["random"]["minus random [95 %]"] == "–"
    apart = {row["strategy"]: row for row in difference_rows(comparison_rows(runs, "test"))}
    assert list(apart) == ["all", "best", "worse"]
    assert apart["best"]["accuracy"] == "+3.00 [-9.71, +15.71]" and apart["best"]["macro F1"] == "+1.50 [-4.85, +7.85]"
    assert apart["best"]["ROC-AUC"] == "–"
    lines = markdown_table(list(cells.values())).splitlines()
    assert len(lines) == 6 and lines[1].startswith("| --- | ---: |") and len({line.count("|") for line in lines}) == 1
    assert markdown_table([]) == "" and "a\\|b" in markdown_table([{"x": "a|b"}])


def test_csv_holds_the_numbers_as_they_are(runs):
    rows = comparison_rows(runs, "test", ["accuracy"])
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [row["strategy"] for row in read] == ["all", "best", "random", "worse"]
    assert float(read[1]["accuracy_minus_random"]) == rows[1]["accuracy_minus_random"]
    assert read[0]["budget"] == "" and csv_text([]) == ""


def test_times_are_means():
    runs = [run("a", 0.1, s, 0.5, selection=1.0 * s, training=10.0) for s in (1, 3)]
    assert time_rows(runs) == [
        {"strategy": "a", "budget": "10 %", "seeds": 2}
        | {"selection (s)": "2.00", "training (s)": "10.00", "selection / training": "20.00 %"}
    ]
    assert time_rows([run("a", 0.1, 1, 0.5)])[0]["selection / training"] == "–"


def test_budgets_in_words():
    assert [budget_text(b) for b in (0.125, 1, 1000, None)] == ["12.5 %", "100 %", "1000 rows", "all"]
