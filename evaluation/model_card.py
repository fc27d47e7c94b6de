"""The model card of a run: `README.md` with the front matter the hub reads, in place of the one `Trainer` writes."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .card_metadata import front_matter, hub_id, license_fields
from .card_usage import usage_code
from .emissions import Emissions
from .files import PathLike, write_atomic
from .report import Section


CARD_NAME = "README.md"
BOOTSTRAPPED = "In brackets: 95 % intervals, by bootstrap over the rows of the split. They do not cover another seed."
_SIGNATURE = re.compile(r"\n<!-- Tithe wrote this card \(([0-9a-f]{16})\)[^\n]*-->\n?\Z")
_SIGNED = "\n<!-- Tithe wrote this card ({}) and writes it anew on each save, until somebody edits it. -->\n"

Scores = Mapping[str, Mapping[str, float | None]]
Bounds = Mapping[str, Mapping[str, Sequence[float]]]


def model_card(
    *,
    name: str,
    metrics: Scores,
    intervals: Bounds | None = None,
    interval_note: str = BOOTSTRAPPED,
    task: str | None = "text-classification",
    summary: str = "",
    sections: Sequence[Section] = (),
    training: Mapping[str, Any] | None = None,
    compute: Mapping[str, Any] | None = None,
    emissions: Emissions | None = None,
    usage: Mapping[str, Any] | None = None,
    location: str | None = None,
    library: str = "transformers",
    base_model: str | None = None,
    relation: str | None = None,
    dataset: str | Sequence[str] | None = None,
    dataset_config: str | None = None,
    tags: Sequence[str] = (),
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    license_link: str | None = None,
    licenses: Mapping[str, str | None] | None = None,
) -> str:
    """The Markdown text of a model card; write it with `write_atomic(output_dir / "README.md", …)`.

    Scores are also given as `model-index`, which the hub shows, if the data are on the hub.

    Args:
        name: the model's name or hub id.
        metrics: values by split and name; None and NaN are left out.
        intervals: low and high end, by the same names, where they are known.
        interval_note: how they were found.
        task: the hub's name of its task, such as `text-classification`.
        summary: a paragraph.
        sections: what else there is to say, before how it was trained: texts, facts and tables; figures are left out.
        training: the settings worth a line each.
        compute: what the training took and ran on, a line each.
        emissions: what that cost in energy; None: it says that it was not measured.
        usage: options of `usage_code`.
        location: what the code calls the model. Default: `name`.
        library: the hub's name of the library that loads it.
        base_model, dataset: named only where they are ids of the hub: a path on this machine says nothing to a reader.
        dataset_config: which part of the data set, where it has several.
        relation: `finetune`, `adapter`, `quantized` or `merge` of `base_model`.
        language: ISO 639-1 codes of its texts.
        license: the model's, as `license_fields` takes it, with `license_link`; None: the card asks for one.
        licenses: of what the model was made of, by name, where they are known.

    >>> card = model_card(name="me/tenth", metrics={"test": {"f1_macro": 0.75}}, base_model="bert-base-uncased")
    >>> "base_model: bert-base-uncased" in card, "| f1_macro | 0.7500 |" in card
    (True, True)
    """
    base_model, named = hub_id(base_model), [dataset] if isinstance(dataset, str) else dataset or ()
    datasets = [one for one in map(hub_id, named) if one]
    scores = {split: _finite(values) for split, values in metrics.items()}
    metadata = front_matter(
        name=name,
        scores=scores,
        task=task,
        library=library,
        base_model=base_model,
        relation=relation,
        datasets=datasets,
        dataset_config=dataset_config,
        tags=tags,
        language=language,
        license=license,
        license_link=license_link,
        emissions=emissions,
    )
    code = usage_code(task, location or name, **usage or {})
    settings = ({"base model": base_model} if base_model else {}) | dict(training or {})
    parts = [
        f"---\n{metadata}\n---",
        f"# {name.rpartition('/')[2]}",
        summary.strip() or _summary(task, base_model, datasets),
        f"## How to use\n\n```python\n{code}\n```",
        _results(scores, intervals or {}, interval_note),
        *map(_section, sections),
        _section(Section("How it was trained", facts=settings)),
        _section(_compute(compute or {}, emissions)),
        _license(license, license_link, licenses or {}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sign(card: str) -> str:
    """`card` with a last line that is hidden, and true for as long as nobody edits what stands above it."""
    return card + _SIGNED.format(_digest(card))


def is_unedited(text: str) -> bool:
    """Whether `text` is a card that `sign` signed, and as it was then.

    >>> is_unedited(sign("# A card")), is_unedited(sign("# A card").replace("A", "My")), is_unedited("# A card")
    (True, False, False)
    """
    found = _SIGNATURE.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def write_card(folder: PathLike, card: str, replaces: str = "") -> bool:
    """Write `card`, signed, as the README.md of `folder`, unless there is one that a person or a recipe wrote.

    Args:
        replaces: a text that marks cards of others as generated, too.

    Returns whether it was written.
    """
    path = Path(folder) / CARD_NAME
    if path.is_file():
        there = path.read_text(encoding="utf-8", errors="replace")
        if not (is_unedited(there) or (replaces and replaces.strip() in there)):
            return False
    write_atomic(path, sign(card))
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def _summary(task: str | None, base_model: str | None, datasets: Sequence[str]) -> str:
    purpose = f" for {task}" if task else ""
    origin = f", trained from `{base_model}`" if base_model else ""
    data = f" on {', '.join(f'`{name}`' for name in datasets)}" if datasets else ""
    return f"A model{purpose}{origin}{data}."


def _results(scores: Mapping[str, Mapping[str, float]], intervals: Bounds, note: str) -> str:
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    if not names:
        return ""
    rows, bracketed = [], False
    for name in names:
        cells: list[Any] = [name]
        for split, values in scores.items():
            low, high = intervals.get(split, {}).get(name, (math.nan, math.nan))
            known = name in values and low < high  # where all rows are alike, resampling says nothing
            bracketed |= known
            cells.append(f"{_cell(values.get(name))} [{_end(low)}, {_end(high)}]" if known else values.get(name))
        rows.append(cells)
    return f"## Results\n\n{_table(['metric', *scores], rows)}" + (f"\n\n{note}" if bracketed else "")


def _section(section: Section) -> str:
    facts = [(name, value) for name, value in section.facts.items() if value is not None]
    parts = [
        section.text.strip(),
        _table(["what", "value"], facts) if facts else "",
        _table(list(section.table[0]), [list(row.values()) for row in section.table]) if section.table else "",
    ]
    body = "\n\n".join(part for part in parts if part)
    return f"## {section.title}\n\n{body}" if body else ""


def _compute(compute: Mapping[str, Any], emissions: Emissions | None) -> Section:
    if emissions is None:
        return Section("Time and carbon", "Energy and emissions were not measured.", compute)
    found = {
        "electric energy": f"{emissions.kwh:.4g} kWh",
        "emissions": f"{emissions.grams:.4g} g CO₂ eq.",
        "tracked for": f"{emissions.seconds:,.0f} s",
        "electricity of": emissions.country,
        "tracked hardware": emissions.hardware,
    }
    text = f"Energy and emissions as {emissions.source} estimates them."
    return Section("Time and carbon", text, {**compute, **found})


def _license(license: str | None, link: str | None, others: Mapping[str, str | None]) -> str:
    fields = license_fields(license, link)
    if not fields:
        text = (
            "No licence of this model has been named yet: whoever publishes it has to fill in `license` in the front "
            "matter."
        )
    elif fields["license"] != "other":
        text = f"`{fields['license']}`"
    else:
        text = f"`{fields.get('license_name', 'other')}`: {fields.get('license_link', 'to be named by the author')}"
    facts = {name: f"`{found}`" if found else "not known here" for name, found in others.items()}
    return _section(Section("Licence", text, facts))


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    text = (f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}") if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _end(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e3 else f"{value:.4g}"


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
