"""The model card of a run: `README.md` with the front matter the hub reads, in place of the one `Trainer` writes."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any


def model_card(
    *,
    name: str,
    metrics: Mapping[str, Mapping[str, float | None]],
    task: str = "text-classification",
    summary: str = "",
    training: Mapping[str, Any] | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    tags: Sequence[str] = (),
    language: str | None = None,
    license: str | None = None,
) -> str:
    """The Markdown text of a model card; write it with `write_atomic(output_dir / "README.md", …)`.

    `name` is the model's name or hub id, `metrics` the values by split and name (None and NaN are left out), `task`
    the name of its `transformers.pipeline`, `summary` a paragraph, `training` the settings worth a line each.
    `base_model` and `dataset` are named only where they are ids of the hub: a path on this machine says nothing to a
    reader.
    Scores are also given as `model-index`, which the hub shows, if the data are on the hub.

    >>> card = model_card(name="me/tenth", metrics={"test": {"f1_macro": 0.75}}, base_model="bert-base-uncased")
    >>> "base_model: bert-base-uncased" in card, "| f1_macro | 0.7500 |" in card
    (True, True)
    """
    base_model = base_model if _is_hub_id(base_model) else None
    dataset = dataset if _is_hub_id(dataset) else None
    scores = {split: _finite(values) for split, values in metrics.items()}
    origin = f", trained from `{base_model}`" if base_model else ""
    source = f" on `{dataset}`" if dataset else ""
    parts = [
        "---\n" + _front_matter(name, scores, task, base_model, dataset, tags, language, license) + "\n---",
        f"# {name.rpartition('/')[2]}",
        summary.strip() or f"A model for {task}{origin}{source}.",
        _training(training or {}, base_model),
        _results(scores),
        f'## Use\n\n```python\nfrom transformers import pipeline\n\nmodel = pipeline("{task}", model="{name}")\n```',
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(
    name: str,
    scores: Mapping[str, Mapping[str, float]],
    task: str,
    base_model: str | None,
    dataset: str | None,
    tags: Sequence[str],
    language: str | None,
    license: str | None,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    named = [(split, metric, value) for split, values in scores.items() for metric, value in values.items()]
    results = [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=split,
            metric_type=_hub_metric(metric),
            metric_name=metric,
            metric_value=value,
        )
        for split, metric, value in named
        if dataset
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=list(dict.fromkeys(["tithe", *tags])),
        base_model=base_model,
        datasets=dataset,
        language=language,
        license=license,
        metrics=list(dict.fromkeys(_hub_metric(metric) for _, metric, _ in named)) or None,
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _training(settings: Mapping[str, Any], base_model: str | None) -> str:
    rows = {"base model": base_model} if base_model else {}
    rows |= {str(key): value for key, value in settings.items() if value is not None}
    return "## How it was trained\n\n" + _table(["setting", "value"], list(rows.items())) if rows else ""


def _results(scores: Mapping[str, Mapping[str, float]]) -> str:
    names = dict.fromkeys(name for values in scores.values() for name in values)
    rows = [(name, *(values.get(name) for values in scores.values())) for name in names]
    return "## Results\n\n" + _table(["metric", *scores], rows) if rows else ""


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


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _hub_metric(name: str) -> str:
    """The hub's name of a metric: it knows f1, not its averages."""
    return name.removesuffix("_macro").removesuffix("_weighted")


def _is_hub_id(name: str | None) -> bool:
    """Whether `name` can be an id of the hub and is no path that exists here."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not name or os.path.exists(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
