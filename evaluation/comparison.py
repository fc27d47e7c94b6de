"""Statistics over the runs of a comparison: strategies × budgets × seeds, each with its metrics and what it chose."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


COMPARED_METRICS = ("accuracy", "f1_macro", "f1_weighted", "roc_auc", "pr_auc")
_NAMES = {"f1_macro": "macro F1", "f1_weighted": "weighted F1", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
BASELINE, FULL = "random", "all"
UNDEFINED = "–"
_NAN = float("nan")


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1 in its denominator, NaN for a single value) of `count` values."""

    mean: float
    sd: float
    count: int


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, its standard error, and its confidence interval; NaN where `count` pairs give none."""

    mean: float
    se: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ComparedRun:
    """One complete run.

    Attributes:
        strategy: name; `all` is the run on the full data and `random` the baseline.
        budget: as it was asked for; None for `all`, which has none.
        seed: what pairs the runs of two strategies.
        metrics: split → metric → value; None and NaN are undefined.
        chosen: indices of the rows it chose, of one and the same pool.
        pool: rows of that pool.
        seconds: `selection` and `training`, which does not contain it.
    """

    strategy: str
    budget: float | None
    seed: int
    metrics: Mapping[str, Mapping[str, float | None]]
    chosen: NDArray[np.int64]
    pool: int
    seconds: Mapping[str, float] = field(default_factory=dict)


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of the values; NaN of none, and if one of them is NaN.

    >>> spread([1.0, 2.0, 3.0])
    Spread(mean=2.0, sd=1.0, count=3)
    """
    numbers = np.asarray(values, dtype=np.float64)
    count = len(numbers)
    mean = float(numbers.mean()) if count else _NAN
    return Spread(mean, float(numbers.std(ddof=1)) if count > 1 else _NAN, count)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """How much greater `ours` is than `theirs`, both by seed, over the seeds that they share.

    The interval is Student's: mean ± t · sd / √n with n - 1 degrees of freedom. It takes the differences for normal,
    and speaks of one comparison: of twenty strategies that equal the baseline, one will lie outside at 95 %.

    >>> found = paired_difference({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.8})
    >>> round(found.mean, 4), round(found.se, 4), found.count
    (0.05, 0.05, 2)
    """
    from scipy.stats import t

    found = spread([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
    if found.count < 2:
        return Difference(found.mean, _NAN, _NAN, _NAN, found.count)
    error = found.sd / math.sqrt(found.count)
    reach = float(t.ppf(0.5 + confidence / 2, found.count - 1)) * error
    return Difference(found.mean, error, found.mean - reach, found.mean + reach, found.count)


def jaccard(one: ArrayLike, other: ArrayLike) -> float:
    """Share of the rows in either set that are in both: |A ∩ B| / |A ∪ B|; NaN if both are empty.

    Two random choices of a share b of the pool come to about b / (2 - b): 0.053 at a tenth.

    >>> jaccard([1, 2, 3], [2, 3, 4])
    0.5
    """
    common, union = np.intersect1d(one, other), np.union1d(one, other)
    return len(common) / len(union) if len(union) else _NAN


def mean_overlaps(runs: Sequence[ComparedRun]) -> tuple[list[str], NDArray[np.float64]]:
    """The strategies [s] of `runs`, which share one budget, and the mean Jaccard overlap [s, s] of what they chose.

    Off the diagonal over the seeds that both strategies have, seed by seed; on it over the pairs of seeds of the
    strategy itself: how much its choice depends on the seed. NaN where there is no pair.
    """
    chosen: dict[str, dict[int, NDArray[np.int64]]] = {}
    for run in runs:
        chosen.setdefault(run.strategy, {})[run.seed] = run.chosen
    names = list(chosen)
    overlaps = np.full((len(names), len(names)), np.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names[: i + 1]):
            pairs = [
                jaccard(chosen[one][a], chosen[other][b])
                for a in chosen[one]
                for b in chosen[other]
                if (a < b if i == j else a == b)
            ]
            overlaps[i, j] = overlaps[j, i] = spread(pairs).mean
    return names, overlaps


def comparison_rows(
    runs: Sequence[ComparedRun], split: str, metrics: Sequence[str] = COMPARED_METRICS
) -> list[dict[str, Any]]:
    """One row of numbers for each strategy and budget, over its seeds, on `split`; `all` first, then the best first.

    Keys: `strategy`, `budget`, `seeds` (their number), `share_selected` (of the pool), and for each metric M:
    `M_mean`, `M_sd`; `M_share_of_full`, the ratio of the mean to that of `all` over the seeds that both have; and
    `M_minus_random`, `…_se`, `…_low`, `…_high`, the paired difference to `random` at the same budget (for `all` at
    the only one, else undefined) with its 95 % interval. NaN where undefined.
    """
    groups: dict[tuple[float | None, str], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault((run.budget, run.strategy), []).append(run)
    budgets = {budget for budget, _ in groups if budget is not None}
    rows = []
    for (budget, strategy), members in groups.items():
        beside = next(iter(budgets)) if budget is None and len(budgets) == 1 else budget
        row: dict[str, Any] = {"strategy": strategy, "budget": budget, "seeds": len(members)}
        row["share_selected"] = spread([len(run.chosen) / run.pool for run in members]).mean
        for metric in metrics:
            ours, full, baseline = (
                {run.seed: _value(run, split, metric) for run in groups.get(key, [])}
                for key in ((budget, strategy), (None, FULL), (beside, BASELINE))
            )
            row |= {f"{metric}{name}": value for name, value in _statistics(ours, full, baseline).items()}
        rows.append(row)
    best = f"{metrics[0]}_mean"
    return sorted(rows, key=lambda row: (row["budget"] or 0, -np.nan_to_num(row[best], nan=-1), row["strategy"]))


def _statistics(
    ours: Mapping[int, float], full: Mapping[int, float], baseline: Mapping[int, float]
) -> dict[str, float]:
    own, shared = spread(list(ours.values())), ours.keys() & full.keys()
    whole = spread([full[seed] for seed in shared]).mean
    difference = paired_difference(ours, baseline)
    return {
        "_mean": own.mean,
        "_sd": own.sd,
        "_share_of_full": spread([ours[seed] for seed in shared]).mean / whole if whole else _NAN,
        "_minus_random": difference.mean,
        "_minus_random_se": difference.se,
        "_minus_random_low": difference.low,
        "_minus_random_high": difference.high,
    }


def readable_rows(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str] = COMPARED_METRICS
) -> list[dict[str, str | int]]:
    """`comparison_rows` as a person reads them, in percent; share and difference of the first metric alone."""
    first, table = metrics[0], []
    for row in rows:
        cells: dict[str, str | int] = {"strategy": row["strategy"], "budget": budget_text(row["budget"])}
        cells["seeds"] = row["seeds"]
        for metric in metrics:
            mean, sd = (_percent(row[f"{metric}_{name}"]) for name in ("mean", "sd"))
            cells[_NAMES.get(metric, metric)] = mean if sd == UNDEFINED else f"{mean} ± {sd}"
        cells["share of full"] = _percent(row[f"{first}_share_of_full"])
        cells["minus random [95 %]"] = _difference(row, first)
        table.append(cells)
    return table


def difference_rows(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str] = COMPARED_METRICS
) -> list[dict[str, str]]:
    """Of `comparison_rows` the difference to the baseline in every metric, as a person reads it, in percent."""
    return [
        {"strategy": row["strategy"], "budget": budget_text(row["budget"])}
        | {_NAMES.get(metric, metric): _difference(row, metric) for metric in metrics}
        for row in rows
        if row["strategy"] != BASELINE
    ]


def _difference(row: Mapping[str, Any], metric: str) -> str:
    mean, low, high = (_percent(row[f"{metric}_minus_random{end}"], signed=True) for end in ("", "_low", "_high"))
    if row["strategy"] == BASELINE:
        return UNDEFINED
    return mean if low == UNDEFINED else f"{mean} [{low}, {high}]"


def time_rows(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """What selection cost beside training: mean seconds of each strategy and budget over its seeds."""
    groups: dict[tuple[str, float | None], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault((run.strategy, run.budget), []).append(run)
    rows = []
    for (strategy, budget), members in groups.items():
        selection, training = (
            spread([run.seconds.get(name, _NAN) for run in members]).mean for name in ("selection", "training")
        )
        share = selection / training if training else _NAN
        rows.append(
            {"strategy": strategy, "budget": budget_text(budget), "seeds": len(members)}
            | {"selection (s)": _seconds(selection), "training (s)": _seconds(training)}
            | {"selection / training": f"{_percent(share)} %" if math.isfinite(share) else UNDEFINED}
        )
    return rows


def budget_text(budget: float | None) -> str:
    """A budget in words: a share of the pool up to 1, above it a number of rows, None for all of it.

    >>> budget_text(0.1), budget_text(500), budget_text(None)
    ('10 %', '500 rows', 'all')
    """
    if budget is None:
        return "all"
    return f"{100 * budget:g} %" if budget <= 1 else f"{budget:g} rows"


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows, which have the same keys, as a Markdown table; all but the first column are aligned to the right."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[str(row[name]).replace("|", "\\|") for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows, which have the same keys, as CSV with a header; what is undefined is empty."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if _is_undefined(value) else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def _value(run: ComparedRun, split: str, metric: str) -> float:
    value = run.metrics.get(split, {}).get(metric)
    return _NAN if value is None else float(value)


def _seconds(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else UNDEFINED


def _is_undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _percent(share: float, *, signed: bool = False) -> str:
    if not math.isfinite(share):
        return UNDEFINED
    return f"{100 * share:{'+' if signed else ''}.2f}"
