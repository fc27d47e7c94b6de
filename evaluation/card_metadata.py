"""The front matter of a model card: what the hub reads, in its own words, and nothing of this machine."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .emissions import Emissions


LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0
    lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1
    openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()
)
"""The hub's identifiers of licences (huggingface.co/docs/hub/repositories-licenses)."""

# The hub's names of metrics; of ours that are not among them, such as ece, it knows nothing.
_METRICS = frozenset("accuracy bleu chrf exact_match f1 meteor perplexity precision recall roc_auc rouge".split())
_RELATIONS = ("finetune", "adapter", "quantized", "merge")


def front_matter(
    *,
    name: str,
    scores: Mapping[str, Mapping[str, float]],
    task: str | None = None,
    library: str = "transformers",
    base_model: str | None = None,
    relation: str | None = None,
    datasets: Sequence[str] = (),
    dataset_config: str | None = None,
    tags: Sequence[str] = (),
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    license_link: str | None = None,
    emissions: Emissions | None = None,
) -> str:
    """The YAML of a card, without its fences; arguments as in `model_card`, ids checked by `hub_id` before.

    Raises `ValueError` for a `relation` that the hub does not know.
    """
    from huggingface_hub import ModelCardData

    if relation not in (None, *_RELATIONS):
        raise ValueError(f"`relation` must be one of {', '.join(_RELATIONS)}; got {relation!r}")
    # of several data sets nobody could say which one a score is of
    results = _eval_results(scores, task, datasets[0], dataset_config) if task and len(datasets) == 1 else []
    metrics = dict.fromkeys(hub_metric(metric) for values in scores.values() for metric in values)
    data = ModelCardData(
        library_name=library,
        pipeline_tag=task,
        tags=list(dict.fromkeys(["tithe", *tags])),
        base_model=base_model,
        datasets=list(datasets) or None,
        language=[language] if isinstance(language, str) else list(language) if language else None,
        metrics=[metric for metric in metrics if metric in _METRICS] or None,
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
        base_model_relation=relation if base_model else None,
        co2_eq_emissions=emissions.metadata() if emissions else None,
    )
    vars(data).update(license_fields(license, license_link))
    return data.to_yaml().strip()


def license_fields(license: str | None, link: str | None = None) -> dict[str, str]:
    """What the hub wants of a licence: its identifier or, for one that it has none of, `other` with name and link.

    Args:
        license: an identifier in `LICENSES`, or the name of another licence; None: nothing is said.
        link: of another licence: a URL, or the name of a file beside the card. Default: `LICENSE`.

    >>> license_fields("apache-2.0"), license_fields("My Licence 1.0")["license_name"]
    ({'license': 'apache-2.0'}, 'my-licence-1.0')
    """
    if license is None:
        return {}
    if (known := license.strip().lower()) in LICENSES - {"other"}:
        return {"license": known}
    if known == "other":
        return {"license": "other"} | ({"license_link": link} if link else {})
    return {"license": "other", "license_name": "-".join(known.split()), "license_link": link or "LICENSE"}


def known_license(name: str | None, kind: str = "model") -> str | None:
    """The licence that the card of a model (or `dataset`) names, where that card lies on this machine.

    `name` is a folder with a README.md, or an id of the hub whose card is in the hub's local cache. Nothing is asked
    of the network; what is not known is None.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.repocard import metadata_load

    path: Any = None
    if name and os.path.isdir(name):
        path = Path(name) / "README.md"
    elif name and hub_id(name):
        path = try_to_load_from_cache(name, "README.md", repo_type=kind)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    try:
        data = metadata_load(path) or {}
    except (OSError, ValueError):
        return None
    found = data.get("license_name") or data.get("license")
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, str) else None


def hub_id(name: str | None) -> str | None:
    """`name` if it can be an id of the hub and is no path that exists here, else None."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not name or os.path.exists(name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def public_name(name: str | None) -> str | None:
    """What may be said of a model's or data set's whereabouts: its id on the hub, of a folder the last part alone."""
    return None if name is None else hub_id(name) or Path(name).name


def hub_metric(name: str) -> str:
    """The hub's name of a metric: it knows f1 and rouge, not their variants.

    >>> hub_metric("f1_macro"), hub_metric("rougeL")
    ('f1', 'rouge')
    """
    return "rouge" if name.startswith("rouge") else name.removesuffix("_macro").removesuffix("_weighted")


def _eval_results(scores: Mapping[str, Mapping[str, float]], task: str, dataset: str, config: str | None) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_config=config,
            dataset_split=split,
            metric_type=hub_metric(metric),
            metric_name=metric,
            metric_value=value,
        )
        for split, values in scores.items()
        for metric, value in values.items()
    ]
