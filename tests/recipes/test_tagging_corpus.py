"""Names in docstrings as entities: hand-worked summaries, and the invariants of the splits on a real library."""

from pathlib import Path

import pyarrow as pa
import pytest

from tithe.recipes.harvest import LIBRARIES, harvest, marked_pieces, plain_text
from tithe.recipes.tagging_corpus import MAX_PER_PATTERN, api_tagging_tables
from tithe.trainers import check_bio


TYPES = ("CLASS", "CODE", "FUNCTION", "PARAMETER", "VALUE")


def records(*summaries: str, signature: str = "grow(self, by, *rest)") -> pa.Table:
    rows = [
        {"library": "shop", "kind": "method", "qualname": f"Tree.name_{n}", "signature": signature, "summary": summary}
        for n, summary in enumerate(summaries)
    ]
    rows.append({**rows[0], "kind": "function", "qualname": "plant", "summary": "Nothing is marked in this one."})
    return pa.Table.from_pylist(rows)


def tagged(*summaries: str) -> list[str]:
    """The sentences of all splits, entities as `word/LABEL`."""
    rows = [row for table in api_tagging_tables(records(*summaries)).values() for row in table.to_pylist()]
    return sorted(
        " ".join(w if k == "O" else f"{w}/{k}" for w, k in zip(r["words"], r["labels"], strict=True)) for r in rows
    )


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("Grow a :class:`~shop.Tree` by some units.", "Grow a Tree/B-CLASS by some units ."),
        (
            "See :py:meth:`shop.Tree.grow` for what it does.",
            "See shop/B-FUNCTION ./I-FUNCTION Tree/I-FUNCTION ./I-FUNCTION grow/I-FUNCTION for what it does .",
        ),
        ("Grow this tree by ``by`` units.", "Grow this tree by by/B-PARAMETER units ."),
        ("Return `None` if there is nothing left.", "Return None/B-VALUE if there is nothing left ."),
        ("First call `plant` and then wait.", "First call plant/B-FUNCTION and then wait ."),
        ("First call `other` and then wait.", "First call other/B-CODE and then wait ."),
        ("A few `TreeNode`s in a row.", "A few TreeNodes/B-CLASS in a row ."),
        ("Make a [`LinkedTree`](http://a.b) for this.", "Make a LinkedTree/B-CLASS for this ."),
        ("Uses :func:`the planter <shop.plant>` for it all.", "Uses the/B-FUNCTION planter/I-FUNCTION for it all ."),
    ],
)
def test_what_is_marked_is_an_entity_and_the_mark_is_gone(summary: str, expected: str) -> None:
    assert tagged(summary) == [expected]


@pytest.mark.parametrize(
    "summary",
    ["Nothing in here is marked at all.", "The root :math:`x^2` of `by` in this.", "`by` alone", "See :ref:`x`."],
)
def test_summaries_that_teach_nothing_are_left_out(summary: str) -> None:
    assert tagged(summary) == []


def test_patterns_are_limited_and_stay_in_one_split() -> None:
    summaries = [f"Make one more :class:`Tree{n}` of this kind." for n in range(40)]
    tables = api_tagging_tables(records(*summaries))
    assert sorted(map(len, tables.values())) == [0, 0, MAX_PER_PATTERN]
    assert len(tagged("See the `by` of it here.", "See the `by` of it here.", "See the by of `it` here.")) == 1


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    return harvest({"networkx": LIBRARIES["networkx"], "Werkzeug": LIBRARIES["Werkzeug"]})


def test_a_real_library(library: pa.Table) -> None:
    tables = api_tagging_tables(library)
    names = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")]
    texts = [" ".join(words).lower() for table in tables.values() for words in table["words"].to_pylist()]
    assert len(texts) == len(set(texts)) > 100
    for table in tables.values():
        report = check_bio(table["labels"].to_pylist(), names, table["words"].to_pylist())
        assert report.misaligned == 0 and report.entities >= report.rows > 0
        assert not any("`" in word for words in table["words"].to_pylist() for word in words)
    assert tables == api_tagging_tables(library)


def test_pieces_together_are_the_plain_text(library: pa.Table) -> None:
    summaries = library["summary"].to_pylist()
    pieces = ["".join(piece for piece, _ in marked_pieces(summary)) for summary in summaries]
    different = [
        a for a, b in zip(pieces, map(plain_text, summaries), strict=True) if "".join(a.split()) != "".join(b.split())
    ]
    assert len(different) < 0.01 * len(library)
