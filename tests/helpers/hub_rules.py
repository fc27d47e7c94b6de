"""What the hub asks of a model card's front matter when it is pushed, as far as that is documented and known here.

`ModelCard.validate()` asks the hub itself, which tests do without.
"""

import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.inference._generated import types as inference_types
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from transformers.modelcard import TASK_MAPPING, TASK_TAG_TO_NAME_MAPPING

from tithe.evaluation import LICENSES, hub_id


TASKS = {*TASK_MAPPING, *TASK_TAG_TO_NAME_MAPPING}
TASKS |= {path.stem.replace("_", "-") for path in Path(inference_types.__path__[0]).glob("*.py")}
KEYS = {
    *("base_model", "base_model_relation", "co2_eq_emissions", "datasets", "language", "library_name", "license"),
    *("license_name", "license_link", "metrics", "model-index", "pipeline_tag", "tags"),
}


def check_card(path):
    """Assert the rules of the card at `path`, and that nothing of this machine is in it; returns its data."""
    text, found = path.read_text(), metadata_load(path)
    assert found.keys() <= KEYS
    assert found["pipeline_tag"] in TASKS and found["library_name"] in ("transformers", "peft", "tithe")
    assert "tithe" in found["tags"] and len(set(found["tags"])) == len(found["tags"])
    assert all(re.fullmatch(r"[\w:.-]+", tag) for tag in found["tags"])
    if (license := found.get("license")) is not None:
        assert license in LICENSES and (license == "other") == ("license_name" in found)
        assert re.fullmatch(r"[a-z0-9.-]+", found.get("license_name", "x"))
    for name in [found[key] for key in ("base_model",) if key in found] + found.get("datasets", []):
        assert hub_id(name) == name
    assert ("base_model_relation" in found) == ("base_model" in found)
    assert all(re.fullmatch(r"[a-z]{2,3}", code) for code in found.get("language", ["en"]))
    if index := found.get("model-index"):
        name, results = model_index_to_eval_results(index)
        assert eval_results_to_model_index(name, results) == index and len(results) > 0
        assert all(isinstance(result.metric_value, int | float) for result in results)
        assert {result.dataset_type for result in results} == set(found["datasets"])
    card = ModelCard.load(path)
    assert yaml.safe_load(card.data.to_yaml()) == found
    for part in (str(Path.home()), "/tmp", "/home", str(path.parent.parent.resolve())):
        assert part not in text, part
    return card.data
