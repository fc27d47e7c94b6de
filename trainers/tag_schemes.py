"""The schemes word labels of spans are written in: what they are, whether they hold, and the way to IOB2.

IOB2 (BIO) is what Tithe trains and scores: B-X opens an entity of type X, I-X goes on with it, O is outside. IOB1 has
B-X only where an entity follows another of its type at once (CoNLL-2003 as first published); IOBES and BILOU also mark
the last word (E or L) and entities of one word (S or U). See arXiv:cs/9907006 for IOB1 and IOB2.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


OUTSIDE = "O"
SHOWN_ROWS = 5
# BILOU says L and U for what IOBES calls E and S
_AS_IOB2 = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}


@dataclass(frozen=True)
class BioReport:
    """What `check_bio` counted: rows, words, entities (strict IOB2), and misaligned labels.

    `misaligned` counts labels I-X after nothing or after another type, in `misaligned_rows` rows; `examples` are the
    first few of them as (row, position, label before or None, label), rows and positions counted from 0.
    """

    rows: int = 0
    words: int = 0
    entities: int = 0
    misaligned: int = 0
    misaligned_rows: int = 0
    examples: list[tuple[int, int, str | None, str]] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.misaligned:
            return f"{self.entities} entities in {self.rows} rows, all labels aligned"
        shown = ", ".join(
            f"row {row}: {label} after {before or 'nothing'}" for row, _, before, label in self.examples[:SHOWN_ROWS]
        )
        return f"{self.misaligned} labels I-X in {self.misaligned_rows} of {self.rows} rows continue nothing ({shown})"


def split_tag(tag: str) -> tuple[str, str]:
    """The prefix and the type of a label: ("B", "PER") for B-PER, ("O", "") for O.

    Raises `ValueError` for a label that is neither O nor a prefix of one letter (B, I, E, S, L, U), "-" and a type.

    >>> split_tag("I-creative-work")
    ('I', 'creative-work')
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if len(tag) < 3 or tag[1] != "-" or tag[0] not in _AS_IOB2:
        raise ValueError(
            f"{tag!r} is no label of a span: wanted O, or B-TYPE and I-TYPE (E, S, L and U are known too)"
        )
    return tag[0], tag[2:]


def check_bio(
    rows: Iterable[Sequence[int | str]], names: Sequence[str], words: Iterable[Sequence[str]] | None = None
) -> BioReport:
    """Count the entities of rows of labels, and the labels I-X that continue nothing.

    `rows` are labels as names or as positions in `names`; -100 is no label and breaks an entity. Misaligned labels
    are counted, not refused: real sets have them. Raises `ValueError`, naming the row, for a label that `names` lacks
    and, with `words`, for a row with another number of words; also where `names` itself is no IOB2.

    >>> report = check_bio([["O", "I-PER", "I-PER"], ["B-PER", "I-LOC"]], ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    >>> report.misaligned, report.examples[0]
    (2, (0, 1, 'O', 'I-PER'))
    """
    parts = {name: split_tag(name) for name in names}
    strange = [name for name in names if parts[name][0] not in "BIO"]
    if strange:
        raise ValueError(f"`names` must be of the scheme IOB2, got {strange[0]!r}; see `to_iob2`")
    total = entities = misaligned = misaligned_rows = count = 0
    examples: list[tuple[int, int, str | None, str]] = []
    wanted = None if words is None else iter(words)
    for count, row in enumerate(rows, start=1):
        tags = _tags_of(row, names, parts, count - 1)
        if wanted is not None:
            _check_length(len(tags), next(wanted, None), count - 1)
        broken = [at for at, tag in enumerate(tags) if tag is not None and _continues_nothing(tags, at, parts)]
        total += len(tags)
        entities += sum(tag is not None and tag[0] == "B" for tag in tags)
        misaligned += len(broken)
        misaligned_rows += bool(broken)
        examples += [(count - 1, at, tags[at - 1] if at else None, str(tags[at])) for at in broken]
        del examples[SHOWN_ROWS:]
    if wanted is not None and next(wanted, None) is not None:
        raise ValueError(f"`words` has more rows than the labels, which have {count}")
    return BioReport(count, total, entities, misaligned, misaligned_rows, examples)


def detect_scheme(rows: Iterable[Sequence[str]]) -> str:
    """Which scheme rows of labels are written in: "IOB2", "IOB1" or "IOBES" (which stands for BILOU too).

    IOBES has labels E, S, L or U. IOB1 has entities that open with I-X, and no B-X but right after X; rows that would
    be right in both are called IOB2. Raises `ValueError`, naming the row, for what is no label of a span.

    >>> detect_scheme([["I-PER", "B-PER", "O"]]), detect_scheme([["B-PER", "O"], ["I-PER"]])
    ('IOB1', 'IOB2')
    """
    opens_with_i = opens_with_b = False
    for number, row in enumerate(rows):
        before = ""
        for tag in row:
            try:
                prefix, kind = split_tag(tag)
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from None
            if prefix not in "BIO":
                return "IOBES"
            opens_with_i |= prefix == "I" and kind != before
            opens_with_b |= prefix == "B" and kind != before
            before = kind
    return "IOB1" if opens_with_i and not opens_with_b else "IOB2"


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """The labels [n] of one row, written in `scheme` (as `detect_scheme` names them), in IOB2.

    Raises `ValueError` for an unknown scheme.

    >>> to_iob2(["I-PER", "B-PER", "I-LOC"], "IOB1"), to_iob2(["S-PER", "B-LOC", "E-LOC"], "IOBES")
    (['B-PER', 'B-PER', 'B-LOC'], ['B-PER', 'B-LOC', 'I-LOC'])
    """
    if scheme == "IOB2":
        return list(tags)
    if scheme not in ("IOB1", "IOBES"):
        raise ValueError(f"`scheme` must be IOB2, IOB1 or IOBES, got {scheme!r}")
    converted, before = [], ""
    for tag in tags:
        prefix, kind = split_tag(tag)
        if prefix == OUTSIDE:
            converted.append(OUTSIDE)
        else:
            opens = scheme == "IOB1" and kind != before
            converted.append(f"{'B' if opens else _AS_IOB2[prefix]}-{kind}")
        before = kind
    return converted


def _tags_of(
    row: Sequence[int | str], names: Sequence[str], parts: dict[str, tuple[str, str]], number: int
) -> list[str | None]:
    tags: list[str | None] = []
    for label in row:
        if isinstance(label, str):
            known = label in parts
        else:
            known = label == -100 or 0 <= label < len(names)
        if not known:
            raise ValueError(f"row {number}: label {label!r} is not among the {len(names)} `names`")
        tags.append(label if isinstance(label, str) else None if label == -100 else names[label])
    return tags


def _check_length(labels: int, words: Sequence[str] | None, number: int) -> None:
    if words is None:
        raise ValueError(f"row {number}: there are labels but no words; `words` has {number} rows")
    if len(words) != labels:
        raise ValueError(f"row {number}: {len(words)} words but {labels} labels; each word needs one")


def _continues_nothing(tags: list[str | None], at: int, parts: dict[str, tuple[str, str]]) -> bool:
    prefix, kind = parts[tags[at] or OUTSIDE]
    before = tags[at - 1] if at else None
    return prefix == "I" and (before is None or parts[before][1] != kind)
