import pytest
from huggingface_hub import ModelCard

from tithe.evaluation import model_card


METRICS = {"validation": {"f1_macro": 0.5, "roc_auc": float("nan")}, "test": {"f1_macro": 0.75, "accuracy": 0.8}}


def test_front_matter_is_what_the_hub_reads():
    card = ModelCard(
        model_card(name="me/tenth", metrics=METRICS, base_model="org/base", dataset="org/data", tags=["x"])
    )
    assert card.data.library_name == "transformers"
    assert card.data.base_model == "org/base" and card.data.tags == ["tithe", "x"]
    assert card.data.metrics == ["f1", "accuracy"]
    results = {(result.dataset_split, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert results == {("validation", "f1_macro"): 0.5, ("test", "f1_macro"): 0.75, ("test", "accuracy"): 0.8}


@pytest.mark.parametrize("path", ["/srv/models/base", "./base", "a/b/c", None])
def test_paths_of_this_machine_are_not_published(path):
    text = model_card(name="tenth", metrics=METRICS, base_model=path, dataset=path)
    card = ModelCard(text)
    assert card.data.base_model is None and card.data.datasets is None and card.data.eval_results is None
    assert path is None or path not in text


def test_existing_folder_that_looks_like_an_id_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    assert "runs/base" not in model_card(name="tenth", metrics={}, base_model="runs/base")


def test_body_has_the_settings_the_metrics_and_how_to_load():
    text = model_card(
        name="me/tenth", metrics=METRICS, summary="Small.", training={"strategy": "a|b", "teacher": None}
    )
    assert "\n# tenth\n\nSmall.\n" in text
    assert "| strategy | a\\|b |" in text and "teacher" not in text
    assert "| metric | validation | test |" in text
    assert "| f1_macro | 0.5000 | 0.7500 |" in text and "| accuracy | – | 0.8000 |" in text
    assert 'pipeline("text-classification", model="me/tenth")' in text
    assert "nan" not in text.lower().split("## use")[0]
