"""IOB1, IOB2 and IOBES: told apart, turned into each other, and checked."""

import numpy as np
import pytest

from tithe.trainers import check_bio, detect_scheme, to_iob2


NAMES = ["O", "B-PER", "I-PER", "B-creative-work", "I-creative-work"]


def random_spans(rng, length):
    """Spans (type, start, end) that do not overlap, some of them right after each other."""
    spans, at = [], 0
    while at < length:
        if rng.random() < 0.5:
            end = min(length, at + int(rng.integers(1, 4)))
            spans.append((str(rng.choice(["PER", "creative-work"])), at, end))
            at = end
        else:
            at += 1
    return spans


def written(spans, length, scheme):
    """Spans as labels, from the definition of each scheme."""
    tags, previous = ["O"] * length, None
    for kind, start, end in spans:
        follows = previous is not None and previous[0] == kind and previous[2] == start
        for at in range(start, end):
            prefix = "I"
            if at == start and (scheme == "IOB2" or (scheme == "IOB1" and follows)):
                prefix = "B"
            if scheme in ("IOBES", "BILOU"):
                single, first, last = ("S", "B", "E") if scheme == "IOBES" else ("U", "B", "L")
                prefix = single if end - start == 1 else first if at == start else last if at == end - 1 else "I"
            tags[at] = f"{prefix}-{kind}"
        previous = (kind, start, end)
    return tags


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES", "BILOU"])
def test_schemes_are_detected_and_turned_into_iob2(scheme):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, 50)
    spans = [random_spans(rng, int(length)) for length in lengths]
    rows = [written(row, n, scheme) for row, n in zip(spans, lengths, strict=True)]
    found = detect_scheme(rows)
    assert found == {"BILOU": "IOBES"}.get(scheme, scheme)
    expected = [written(row, n, "IOB2") for row, n in zip(spans, lengths, strict=True)]
    assert [to_iob2(row, found) for row in rows] == expected
    assert check_bio(expected, NAMES).entities == sum(map(len, spans))


def test_a_set_without_adjacent_entities_of_iob1_is_iob1_and_one_misaligned_label_is_not():
    assert detect_scheme([["I-PER", "I-PER", "O"], ["O", "O"]]) == "IOB1"
    assert detect_scheme([["B-PER", "I-PER"], ["O", "I-PER"]]) == "IOB2"
    assert detect_scheme([["O"], []]) == "IOB2"


@pytest.mark.parametrize("label", ["PER", "B", "B-", "X-PER", "b-PER", "NN", "", "o"])
def test_labels_of_no_scheme_are_refused(label):
    with pytest.raises(ValueError, match="row 1: .*no label of a span"):
        detect_scheme([["O"], ["O", label]])


def test_unknown_schemes_are_refused():
    with pytest.raises(ValueError, match="`scheme` must be"):
        to_iob2(["O"], "IOB3")


def test_misaligned_labels_are_counted_with_examples():
    rows = [
        ["I-PER", "I-PER", "O", "I-PER"],
        ["B-PER", "I-PER", "I-creative-work", "I-creative-work"],
        ["B-PER", "B-PER", "I-PER"],
    ]
    report = check_bio(rows, NAMES)
    assert (report.rows, report.words, report.entities) == (3, 11, 3)
    assert (report.misaligned, report.misaligned_rows) == (3, 2)
    assert report.examples == [
        (0, 0, None, "I-PER"),
        (0, 3, "O", "I-PER"),
        (1, 2, "I-PER", "I-creative-work"),
    ]
    assert "3 labels I-X in 2 of 3 rows" in str(report) and "row 1: I-creative-work after I-PER" in str(report)
    ids = [[NAMES.index(tag) for tag in row] for row in rows]
    assert check_bio(ids, NAMES) == report
    assert len(check_bio(rows * 9, NAMES).examples) == 5


def test_a_missing_label_breaks_an_entity():
    report = check_bio([[1, -100, 2]], NAMES)
    assert (report.misaligned, report.examples) == (1, [(0, 2, None, "I-PER")])


@pytest.mark.parametrize("label", [5, -1, "B-LOC"])
def test_unknown_labels_name_their_row(label):
    with pytest.raises(ValueError, match="row 1: label .* is not among the 5 `names`"):
        check_bio([["O"], ["O", label]], NAMES)


def test_lengths_and_rows_must_fit_the_words():
    with pytest.raises(ValueError, match="row 1: 1 words but 2 labels"):
        check_bio([["O"], ["O", "O"]], NAMES, [["a"], ["b"]])
    with pytest.raises(ValueError, match="row 1: there are labels but no words"):
        check_bio([["O"], ["O"]], NAMES, [["a"]])
    with pytest.raises(ValueError, match="`words` has more rows"):
        check_bio([["O"]], NAMES, [["a"], ["b"]])
    with pytest.raises(ValueError, match="scheme IOB2, got 'E-PER'"):
        check_bio([], ["O", "E-PER"])
