"""`entities.html`: what a tagger found beside what it should have found, sentence by sentence, on one page."""

import importlib.resources
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from .entities import Entity, check_tag_rows, entity_metrics, entity_table
from .entity_errors import CORRECT, ERROR_KINDS, EntityMatch, match_entities
from .files import PathLike, write_atomic
from .report import html_table


SHOWN_AT_ONCE = 100
# Each kind has words and a sign of its own, and a border of its own: nothing depends on seeing colours.
_SIGNS = {
    CORRECT: ("✓", "right words and type"),
    "wrong_type": ("≠ type", "right words, another type"),
    "wrong_boundary": ("↔ boundary", "shares words with an entity of the reference, but not all of them"),
    "missed": ("− missed", "an entity of the reference where nothing was predicted"),
    "spurious": ("+ spurious", "predicted where the reference has no entity"),
}


@dataclass(frozen=True)
class TaggedSentence:
    """The words [n] of a sentence, the predicted and the right labels [n] in IOB2, and what to call it, if at all."""

    words: Sequence[str]
    prediction: Sequence[str]
    reference: Sequence[str]
    name: str = ""


def entity_page(
    path: PathLike, sentences: Sequence[TaggedSentence], *, title: str = "Entities, predicted and right"
) -> Path:
    """Write a page of the sentences with their entities marked, in one step. Returns `path`.

    The sentences with most errors come first, and `SHOWN_AT_ONCE` are shown until more are asked for; they can be
    filtered by kind of error (see `match_entities`) and by type. A sentence without errors is written once, others as
    reference and as prediction. The page refers to no other file, follows the reader's light or dark scheme, and
    shows all sentences where scripts are off. Raises `ValueError`, naming the sentence, where words and labels differ
    in number, and as `entity_metrics` does.
    """
    for number, sentence in enumerate(sentences):
        if len(sentence.words) != len(sentence.reference):
            raise ValueError(
                f"sentence {number}: {len(sentence.words)} words but {len(sentence.reference)} labels in `reference`"
            )
    predictions = [sentence.prediction for sentence in sentences]
    references = [sentence.reference for sentence in sentences]
    check_tag_rows(predictions, references)
    scores = entity_metrics(predictions, references)
    matches = [match_entities(*rows) for rows in zip(predictions, references, strict=True)]
    rows = entity_table(predictions, references)
    types = [str(row["type"]) for row in rows]
    worst_first = sorted(range(len(sentences)), key=lambda n: -sum(match.kind != CORRECT for match in matches[n]))
    html = _template("entity_page.html").substitute(
        title=escape(title),
        style=_style(),
        summary=f'<p class="summary">{len(sentences):,} sentences with {scores["entities"]:,.0f} entities. F1 '
        f"{scores['f1']:.4f}, precision {scores['precision']:.4f}, recall {scores['recall']:.4f}.</p>",
        table=html_table(_with_errors(rows, matches), "Scores and errors by type"),
        legend="\n".join(
            f'<dt><mark class="{kind}">words<b>TYPE {sign}</b></mark></dt><dd>{meaning}</dd>'
            for kind, (sign, meaning) in _SIGNS.items()
        ),
        kinds="".join(f'<option value="{kind}">{kind.replace("_", " ")}</option>' for kind in ERROR_KINDS),
        types="".join(f'<option value="{number}">{escape(kind)}</option>' for number, kind in enumerate(types)),
        sentences="\n".join(_sentence(sentences[n], matches[n], types) for n in worst_first),
        step=SHOWN_AT_ONCE,
    )
    return write_atomic(path, html)


def _template(name: str) -> Template:
    return Template(importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _style() -> str:
    """That of the report, so that the pages of a run look alike."""
    return _template("report.html").template.partition("<style>")[2].partition("</style>")[0].strip()


def _with_errors(
    rows: Sequence[dict[str, str | int | float]], matches: Sequence[Sequence[EntityMatch]]
) -> list[dict[str, str | int | float]]:
    """The table by type with the kinds of errors beside; one of two types counts for the reference's."""
    counts: Counter[tuple[str, str]] = Counter()
    for match in (match for row in matches for match in row):
        entity = match.reference or match.prediction
        assert entity is not None
        counts[entity.type, match.kind] += 1
    return [
        {**row, **{kind.replace("_", " "): counts[str(row["type"]), kind] for kind in ERROR_KINDS}} for row in rows
    ]


def _sentence(sentence: TaggedSentence, matches: Sequence[EntityMatch], types: Sequence[str]) -> str:
    found = [(match.prediction, match.kind) for match in matches if match.prediction is not None]
    wanted = [(match.reference, match.kind) for match in matches if match.reference is not None]
    data = sorted({f"{kind}:{types.index(entity.type)}" for entity, kind in (*found, *wanted)})
    name = f"<small>{escape(sentence.name)}</small>" if sentence.name else ""
    if all(match.kind == CORRECT for match in matches):
        lines = [_line("both", sentence.words, found)]
    else:
        lines = [_line("reference", sentence.words, wanted), _line("predicted", sentence.words, found)]
    return f'<li data-matches="{" ".join(data)}">{name}{"".join(lines)}</li>'


def _line(whose: str, words: Sequence[str], entities: Sequence[tuple[Entity, str]]) -> str:
    pieces, at = [f"<i>{whose}</i>"], 0
    for entity, kind in sorted(entities, key=lambda pair: pair[0].start):
        pieces += [escape(word) for word in words[at : entity.start]]
        inside = escape(" ".join(words[entity.start : entity.end]))
        pieces.append(f'<mark class="{kind}">{inside}<b>{escape(entity.type)} {_SIGNS[kind][0]}</b></mark>')
        at = entity.end
    pieces += [escape(word) for word in words[at:]]
    return f"<p>{' '.join(pieces)}</p>"
