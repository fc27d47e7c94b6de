import pytest
from hub_rules import check_card
from huggingface_hub import ModelCard, metadata_eval_result

from tithe.evaluation import Emissions, Section, known_license, model_card, sign, write_card


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
    assert "nan" not in text.lower()


def test_intervals_stand_beside_their_scores():
    intervals = {"test": {"f1_macro": (0.7, 0.8), "ece": (0.0, 1.0)}, "validation": {"f1_macro": (0.5, float("nan"))}}
    intervals["test"]["accuracy"] = (0.8, 0.8)
    text = model_card(name="tenth", metrics=METRICS, intervals=intervals)
    assert "| f1_macro | 0.5000 | 0.7500 [0.7000, 0.8000] |" in text and "ece" not in text
    assert "| accuracy | – | 0.8000 |" in text, "an interval without width says nothing"
    assert "by bootstrap" in text and "by bootstrap" not in model_card(name="tenth", metrics=METRICS)


def test_sections_become_headings_texts_and_tables():
    sections = [
        Section("Teachers", "Two.", {"temperature": 2.0, "none": None}, [{"name": "a", "weight": 1.0}]),
        Section("Empty"),
    ]
    text = model_card(name="tenth", metrics={}, sections=sections)
    wanted = "## Teachers\n\nTwo.\n\n| what | value |\n| --- | --- |\n| temperature | 2 |\n\n| name | weight |"
    assert wanted in text and "Empty" not in text


def test_energy_is_told_or_that_it_was_not_measured():
    bare = model_card(name="tenth", metrics={}, compute={"training": "3 s"})
    assert "not measured" in bare and "| training | 3 s |" in bare and "co2_eq_emissions" not in bare
    found = Emissions(1234.5678, 2.5, 3600.0, "Germany", "1 x H100", "CodeCarbon 3.3.2")
    card = ModelCard(model_card(name="tenth", metrics={}, emissions=found))
    assert card.data.co2_eq_emissions == {
        "emissions": 1235.0,
        "source": "CodeCarbon 3.3.2",
        "training_type": "fine-tuning",
        "geographical_location": "Germany",
        "hardware_used": "1 x H100",
    }
    assert "| electric energy | 2.5 kWh |" in card.text and "| tracked for | 3,600 s |" in card.text
    assert "not measured" not in card.text


@pytest.mark.parametrize(
    "license, fields",
    [
        (None, {}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("My Own 1.0", {"license": "other", "license_name": "my-own-1.0", "license_link": "LICENSE"}),
        ("other", {"license": "other"}),
    ],
)
def test_licence_is_named_as_the_hub_wants_it_or_asked_for(tmp_path, license, fields):
    path = tmp_path / "m" / "README.md"
    path.parent.mkdir()
    path.write_text(model_card(name="m", metrics={}, license=license, licenses={"base model": "mit", "data": None}))
    data = vars(check_card(path)) if license != "other" else vars(ModelCard.load(path).data)
    assert {name: data[name] for name in ("license", "license_name", "license_link") if data.get(name)} == fields
    text = path.read_text()
    assert ("fill in `license`" in text) == (license is None)
    assert "| base model | `mit` |" in text and "| data | not known here |" in text


def test_adapters_are_an_adapter_of_their_base(tmp_path):
    options = {"base_model": "org/base", "relation": "adapter", "library": "peft", "usage": {"base": "org/base"}}
    path = tmp_path / "m" / "README.md"
    path.parent.mkdir()
    path.write_text(model_card(name="me/m", metrics={}, task="text2text-generation", **options))
    data = check_card(path)
    assert (data.base_model_relation, data.library_name) == ("adapter", "peft")
    with pytest.raises(ValueError, match="`relation` must be one of finetune"):
        model_card(name="m", metrics={}, relation="distilled")


def test_of_several_data_sets_no_score_is_said_to_be_of_one():
    several = ModelCard(model_card(name="m", metrics=METRICS, dataset=["org/a", "/srv/b", "org/c"])).data
    assert several.datasets == ["org/a", "org/c"] and several.eval_results is None
    one = ModelCard(model_card(name="m", metrics=METRICS, dataset="org/a", dataset_config="plain")).data
    assert {result.dataset_config for result in one.eval_results} == {"plain"}


def test_result_in_the_index_is_as_the_hubs_own_function_writes_it():
    card = ModelCard(model_card(name="me/m", metrics={"test": {"accuracy": 0.75}}, dataset="org/a"))
    theirs = metadata_eval_result(
        model_pretty_name="m",
        task_pretty_name="Text Classification",
        task_id="text-classification",
        metrics_pretty_name="accuracy",
        metrics_id="accuracy",
        metrics_value=0.75,
        dataset_pretty_name="org/a",
        dataset_id="org/a",
        dataset_split="test",
    )
    (ours,) = card.data.to_dict()["model-index"]
    (wanted,) = theirs["model-index"]
    del wanted["results"][0]["task"]["name"]
    wanted["results"][0]["metrics"][0].pop("verified")
    assert ours == wanted


def test_write_card_replaces_what_was_generated_and_nothing_else(tmp_path):
    card, path = model_card(name="m", metrics={}), tmp_path / "README.md"
    assert write_card(tmp_path, card) and path.read_text() == sign(card)
    assert write_card(tmp_path, card + "more") and "more" in path.read_text()
    for edited in (
        "mine",
        path.read_text().replace("---\n\n# m", "license: mit\n---\n\n# m"),
        "# by others\n<!-- it -->",
    ):
        path.write_text(edited)
        assert not write_card(tmp_path, card) and path.read_text() == edited
    assert write_card(tmp_path, card, replaces="<!-- it -->") and path.read_text() == sign(card)


def test_licence_of_a_card_that_lies_here(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("---\nlicense: other\nlicense_name: own-1.0\n---\n")
    assert known_license(str(tmp_path / "base")) == "own-1.0"
    (tmp_path / "base" / "README.md").write_text("no front matter")
    assert known_license(str(tmp_path / "base")) is None
    cached = tmp_path / "hub" / "datasets--org--rows"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "README.md").write_text("---\nlicense:\n- cc0-1.0\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert known_license("org/rows", "dataset") == "cc0-1.0" and known_license("org/rows") is None
