"""The tables of docs/strategies.md say what the code and RESULTS.md say."""

import re
from pathlib import Path

import pytest

from tithe.selection import STRATEGIES, WRAPPERS


ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
DATA = {"77": "## banking77 (77 classes, 900", "2": "## rotten_tomatoes (2 classes, 853"}
DASH = "–"


def table(header):
    """The cells of the table of `page` whose first line begins with `header`, as dicts by the names of columns."""
    lines = PAGE[PAGE.index(f"\n| {header} |") + 1 :].split("\n\n")[0].splitlines()
    names, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows[1:]]


def cells(section):
    """The rows of a section's table of results on test, by strategy."""
    part = RESULTS[RESULTS.index(section) :].split("### Test")[1].split("###")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
    return {row[0]: row for row in rows[2:]}


def measured(section):
    """Accuracy on test in per cent, as printed, and the difference to random with its interval, by strategy."""
    return {name: (row[3].split(" ")[0], row[9]) for name, row in cells(section).items()}


ROWS = table("strategy")


def name_of(cell):
    return re.match(r"\[`(?:(?:\w+):)?(\w+)`\]\(api/selection\.md#tithe\.selection\.(\w+)\)", cell).groups()


def test_the_table_has_every_strategy_in_order():
    assert [name_of(row["strategy"]) for row in ROWS] == [(name, cls.__name__) for name, cls in STRATEGIES.items()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: name_of(row["strategy"])[0])
def test_a_row_says_what_the_strategy_reads_where_it_is_from_and_what_it_reached(row):
    name, _ = name_of(row["strategy"])
    strategy = STRATEGIES[name]
    needs = sorted(strategy().needs - {"selected_embeddings"})
    assert row["reads"] == (", ".join(needs) or "nothing")
    if row["source"]:
        assert row["source"].split(" ")[0] in strategy.__doc__ and row["source"].split(" ")[-1] in strategy.__doc__
    for column, section in DATA.items():
        assert row[column] == measured(section).get(name, (DASH,))[0]


def test_the_figure_of_the_first_page_shows_the_shares_of_the_results():
    parts = (ROOT / "docs" / "index.md").read_text().split("<h4>")[1:]
    for part, section in zip(parts, DATA.values(), strict=True):
        share = {name: row[8] for name, row in cells(section).items()}
        bars = re.findall(r"--share: ([\d.]+).*<span>(\w+)</span><b>([\d.]+)</b>", part)
        assert len(bars) == 4 and [(drawn, said) for drawn, _, said in bars] == [(share[n],) * 2 for _, n, _ in bars]


def test_the_wrappers_are_those_that_there_are():
    found = [re.match(r"\[`(\w+):", row["wrapper"])[1] for row in table("wrapper")]
    assert found == list(WRAPPERS)


def test_figures_of_the_decisions_are_those_of_the_results():
    reached = {data: measured(section) for data, section in DATA.items()}
    several = PAGE.split("## A table to decide by")[1].split("## On your own data")[0]
    for figure in re.findall(r"\d\d\.\d\d %", several):
        plain = figure.removesuffix(" %")
        tried = (ROOT / "docs" / "margin_coverage.md").read_text()
        assert plain in RESULTS or plain in tried, figure
    for data, name in (("77", "margin_coverage"), ("2", "margin_coverage"), ("77", "facility_location")):
        accuracy, difference = reached[data][name]
        low, high = re.search(r"\[\+?(-?[\d.]+), \+?(-?[\d.]+)\]", difference).groups()
        assert f"{accuracy} %" in several and f"[{low}, {high}]" in several, (data, name)
