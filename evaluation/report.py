"""`report.html`: a run on one page that needs no other file, so that it can be mailed, archived and printed."""

import base64
import importlib.resources
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from .files import PathLike, to_plain, write_atomic


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCREEN_DPI, FIGURE_DPI = 96, 144
WIDE = 720  # pixels; a figure above it gets a row of its own
UNDEFINED = "–"


@dataclass(frozen=True)
class Section:
    """A heading of the report and what stands under it, in this order; whatever is empty is left out.

    `text`: plain text, a blank line between paragraphs. `facts`: names and values, shown as a list; nested mappings
    are flattened to `outer.inner`. `table`: rows with the same keys, which head the columns. `figures`: pairs of the
    path of a PNG and its caption. All text is escaped.
    """

    title: str
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    table: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[tuple[PathLike, str]] = ()


def write_report(path: PathLike, *, title: str, sections: Sequence[Section], summary: str = "") -> Path:
    """Write a page with the sections and a table of contents, in one step. Returns `path`.

    Figures are embedded, so the page refers to no other file. What it is made of is kept beside it, as JSON of the
    same name, for `rewrite_report`. Raises `ValueError` if a figure is not a PNG.
    """
    target = Path(path)
    told = [_told(part, target.parent) for part in sections]
    text = json.dumps({"title": title, "summary": summary, "sections": told}, indent=1, ensure_ascii=False)
    written = _write_page(target, title, sections, summary)
    write_atomic(target.with_suffix(".json"), text + "\n")
    return written


def rewrite_report(path: PathLike) -> list[str]:
    """Write the page `path` again from the JSON beside it and the figures as they are now.

    Returns the figures that are gone, which the page then lacks. Raises `OSError` or `ValueError` where the JSON is
    missing or broken.
    """
    target = Path(path)
    told = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    sections, gone = [], []
    for part in told["sections"]:
        figures = [(target.parent / name, caption) for name, caption in part.pop("figures")]
        gone += [str(figure) for figure, _ in figures if not figure.is_file()]
        sections.append(Section(**part, figures=[(figure, text) for figure, text in figures if figure.is_file()]))
    _write_page(target, told["title"], sections, told["summary"])
    return gone


def _told(part: Section, folder: Path) -> dict[str, Any]:
    """A section as JSON; its figures by their path from `folder`, so that the folder may be moved."""
    figures = [[os.path.relpath(path, folder), caption] for path, caption in part.figures]
    rows = [dict(row) for row in part.table]
    return to_plain({"title": part.title, "text": part.text, "facts": part.facts, "table": rows, "figures": figures})


def _write_page(path: Path, title: str, sections: Sequence[Section], summary: str) -> Path:
    page = Template(importlib.resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    contents = (f'<li><a href="#section-{n}">{escape(part.title)}</a></li>' for n, part in enumerate(sections, 1))
    html = page.substitute(
        title=escape(title),
        summary=_paragraphs(summary, ' class="summary"'),
        contents="\n".join(contents),
        sections="\n".join(_section(part, n) for n, part in enumerate(sections, 1)),
    )
    return write_atomic(path, html)


def run_sections(
    results: Mapping[str, Any],
    *,
    rounds: Sequence[Mapping[str, Any]] = (),
    figures: Sequence[tuple[PathLike, str]] = (),
    extra: Sequence[Section] = (),
) -> list[Section]:
    """The sections of a run's report, from what its `results.json` holds; a part that is missing is left out.

    In this order: metrics of each split, what was selected (`rounds` are rows of `rounds.jsonl`; their long lists of
    indices and scores are not shown), `figures`, the `extra` sections, timings, memory (as `PeakMemory.to_dict`
    gives it), data, environment, arguments.
    """
    metrics = [{"split": split} | dict(values) for split, values in results.get("metrics", {}).items()]
    sections = [
        Section("Results", table=metrics),
        Section("What was selected", facts=results.get("selection", {}), table=[_scalars(row) for row in rounds]),
        Section("Figures", figures=figures),
        *extra,
        Section("Timings", facts={name: _duration(value) for name, value in _flat(results.get("timings", {}))}),
        Section("Peak memory", table=_memory_rows(results.get("memory", {}))),
        Section("Data", facts=results.get("data", {})),
        Section("Environment", facts=results.get("environment", {})),
        Section("Arguments", facts=results.get("args", {})),
    ]
    return [part for part in sections if part.text or part.facts or part.table or part.figures]


def _section(part: Section, number: int) -> str:
    pieces = [
        f'<section id="section-{number}">',
        f"<h2>{escape(part.title)}</h2>",
        _paragraphs(part.text),
        _facts(part.facts),
        html_table(part.table, part.title),
        _figures(part.figures),
        "</section>",
    ]
    return "\n".join(piece for piece in pieces if piece)


def _paragraphs(text: str, attributes: str = "") -> str:
    blocks = (block.strip() for block in text.split("\n\n"))
    return "\n".join(f"<p{attributes}>{escape(block)}</p>" for block in blocks if block)


def _facts(facts: Mapping[str, Any]) -> str:
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_fact(value))}</td></tr>' for name, value in _flat(facts)
    ]
    return _scrolling(f'<table class="facts"><tbody>\n{_joined(lines)}\n</tbody></table>') if lines else ""


def html_table(rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """The rows as a table of HTML, their keys heading the columns; empty without rows. `label` names it to readers."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {name for name in columns if all(row.get(name) is None or _is_number(row[name]) for row in rows)}
    style = {name: ' class="number"' if name in numeric else "" for name in columns}
    head = "".join(f'<th scope="col"{style[name]}>{escape(_heading(name))}</th>' for name in columns)
    body = [
        "<tr>" + "".join(f"<td{style[name]}>{escape(_value(row.get(name)))}</td>" for name in columns) + "</tr>"
        for row in rows
    ]
    opening = f'<table aria-label="{escape(label)}"><thead><tr>{head}</tr></thead>'
    return _scrolling(f"{opening}\n<tbody>\n{_joined(body)}\n</tbody></table>")


def _figures(figures: Sequence[tuple[PathLike, str]]) -> str:
    drawn = [_figure(Path(path), caption) for path, caption in figures]
    return f'<div class="figures">\n{_joined(drawn)}\n</div>' if drawn else ""


def _figure(path: Path, caption: str) -> str:
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise ValueError(f"figures of a report must be PNG files, {path.name!r} is not")
    # Width and height are the first fields of a PNG; shown at its own size, the text in a figure is that of the page.
    width, height = (
        round(int.from_bytes(content[start : start + 4], "big") * SCREEN_DPI / FIGURE_DPI) for start in (16, 20)
    )
    source = base64.b64encode(content).decode("ascii")
    text, style = escape(caption), ' class="wide"' if width > WIDE else ""
    image = f'<img src="data:image/png;base64,{source}" width="{width}" height="{height}" alt="{text}">'
    return f"<figure{style}>{image}<figcaption>{text}</figcaption></figure>"


def _memory_rows(memory: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for phase, record in memory.items():
        row = {"phase": phase, "peak (MiB)": _mebibytes(record.get("peak_bytes"))}
        row["at its start (MiB)"] = _mebibytes(record.get("start_bytes"))
        if record.get("cuda_peak_bytes") is not None:
            row["GPU peak (MiB)"] = _mebibytes(record["cuda_peak_bytes"])
        rows.append(row | {"seconds": record.get("seconds"), "method": record.get("method")})
    return rows


def _mebibytes(size: int | None) -> int | None:
    return None if size is None else round(size / 2**20)


def _scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, list | tuple | dict | np.ndarray)}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Pairs of name and value, those of nested mappings with the outer name in front."""
    pairs: list[tuple[str, Any]] = []
    for name, value in facts.items():
        nested = isinstance(value, Mapping) and value
        pairs += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return pairs


def _value(value: Any) -> str:
    """A cell of a table: four decimals, so that a column lines up."""
    plain = to_plain(value)
    if isinstance(plain, float) and (plain == 0 or 1e-3 <= abs(plain) < 1e3):
        return f"{plain:.4f}"
    return _fact(plain)


def _fact(value: Any) -> str:
    plain = to_plain(value)
    if plain is None:
        return UNDEFINED
    if isinstance(plain, float):
        return f"{plain:.6g}"
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _duration(value: Any) -> Any:
    """Seconds as text a person reads; whatever is not a number stays as it is."""
    if not _is_number(value) or not math.isfinite(value):
        return value
    if value < 120:
        return f"{value:.3g} s"
    hours, minutes = divmod(round(value) // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(value) % 60:02d} s"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def _scrolling(table: str) -> str:
    return f'<div class="scroll">{table}</div>'
