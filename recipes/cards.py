"""The model cards of recipes: what a trainer says of itself, with the run's data, scores, intervals and costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tithe.evaluation import (
    CARD_NAME,
    Section,
    known_license,
    model_card,
    to_plain,
    write_atomic,
)
from tithe.recipes.corpus import CORPUS_NAME, hub_dataset


# What a model is loaded from. Beside it lie logs, caches, texts of the data and paths of this machine.
MODEL_FILES = (
    *(CARD_NAME, "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *(
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    *("vocab.*", "merges.txt", "spiece.model", "chat_template*"),
)
_KEPT = ("task", "sections", "training", "compute", "usage", "library", "relation", "base_model", "tags")
_TABLES = ("title", "text", "facts", "table")
_SMALL = "small"  # what recipes call a model that they build themselves
_HARVESTED = "Docstrings of the Python packages that were installed where this was run, harvested there."


def facts_of(trainer: Any) -> dict[str, Any]:
    """What the card of a trainer's model says, but for its scores, as JSON can hold it."""
    found = {name: value for name, value in trainer.card_facts().items() if name in _KEPT}
    found["sections"] = [{name: getattr(part, name) for name in _TABLES} for part in found["sections"]]
    return to_plain(found)


def publish(args: Any, folder: Path, files: Sequence[str] = MODEL_FILES) -> None:
    """Upload model, tokenizer and card from `folder`, or what of it matches `files`, and nothing else."""
    from huggingface_hub import HfApi

    api = HfApi(token=args.hub_token)
    name = args.hub_model_id or folder.absolute().name
    repository = api.create_repo(name, private=args.hub_private_repo, exist_ok=True).repo_id
    api.upload_folder(
        repo_id=repository,
        folder_path=str(folder),
        allow_patterns=list(files),
        revision=args.hub_revision,
        commit_message="End of the run",
    )


def write_run_cards(
    run: Any,
    facts: Mapping[str, Any],
    *,
    metrics: Mapping[str, Mapping[str, float | None]],
    intervals: Mapping[str, Mapping[str, Sequence[float]]],
    summary: str,
    model: Path | None = None,
    base: str | None = None,
    sections: Sequence[Section] = (),
    **changes: Any,
) -> None:
    """Write the card of `run` into its folder and, where its model lies in one of its own, into that one, too.

    Args:
        run: has `folder`, `data`, `args`, `timings`, `emissions` and `publish`, as a `StagedRun` has.
        facts: what `facts_of` gave of the trainer of its model.
        model: the folder of that model; None: it lies in that of the run.
        base: a folder beside it that adapters lie on, in place of what `facts` say.
        sections: what the recipe has to say besides.
        changes: further arguments of `model_card`, which win over `facts`.
    """
    model = run.folder if model is None else model
    told = [Section(**part) for part in facts.get("sections", ()) if part["title"] != "Data"]
    found = {
        **facts,
        **_of_run(run, facts),
        "sections": [_data_section(run), *sections, *told],
        "metrics": metrics,
        "intervals": intervals,
        "summary": summary,
    }
    for folder in dict.fromkeys((run.folder, model)):
        card = model_card(**{**found, **_names(run, facts, folder, model, base), **changes})
        write_atomic(folder / CARD_NAME, card)
    if run.publish is not None:
        run.publish(model)


def _of_run(run: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments and the costs of the run say."""
    return {
        "base_model": _started(run.args),
        "dataset": hub_dataset(run.args.get("dataset")),
        "tags": [tag for tag in facts.get("tags", ()) if tag != "generated_from_trainer"],
        "license": run.args.get("model_license"),
        "licenses": _licenses(run.args),
        "compute": dict(facts.get("compute", {})) | _times(run.timings),
        "emissions": run.emissions,
    }


def _names(run: Any, facts: Mapping[str, Any], folder: Path, model: Path, base: str | None) -> dict[str, Any]:
    """What the card in `folder` calls itself and the model: its id, or where it lies as seen from beside `folder`."""
    on_hub, usage = run.args.get("hub_model_id"), dict(facts.get("usage", {}))
    if base is not None and "base" in usage:
        usage["base"] = _seen_from(folder, model.parent / base)
    return {
        "name": on_hub or folder.resolve().name,
        "location": on_hub or _seen_from(folder, model),
        "usage": usage | {"on_hub": on_hub is not None},
    }


def _seen_from(folder: Path, model: Path) -> str:
    """What a model is called where `folder` is called by its name: from the folder that holds it."""
    folder, model = folder.resolve(), model.resolve()
    inside = model.relative_to(folder.parent) if model.is_relative_to(folder.parent) else Path(model.name)
    return inside.as_posix()


def _data_section(run: Any) -> Section:
    data = run.data if isinstance(run.data, Mapping) else {"name": run.data.name, "fingerprint": run.data.fingerprint}
    report = run.data if isinstance(run.data, Mapping) else run.data.report
    rows = report.get("rows")
    counts = {f"rows of {split}": count for split, count in rows.items()} if isinstance(rows, Mapping) else {}
    facts = {"data set": data["name"], "fingerprint": data["fingerprint"], **counts}
    return Section("Data", _HARVESTED if data["name"] == CORPUS_NAME else "", facts)


def _times(timings: Mapping[str, Any]) -> dict[str, str]:
    return {f"{name} of the run": f"{seconds:,.1f} s" for name, seconds in timings.items()}


def _licenses(args: Mapping[str, Any]) -> dict[str, str | None]:
    """Of the base model and the data, where there are such and their cards lie here."""
    found = {}
    if started := _started(args):
        found["base model"] = known_license(started)
    if dataset := hub_dataset(args.get("dataset")):
        found["data"] = known_license(dataset, "dataset")
    return found


def _started(args: Mapping[str, Any]) -> str | None:
    """The model that training began with, unless the recipe built it."""
    name = args.get("model_name_or_path")
    return None if name == _SMALL else name
