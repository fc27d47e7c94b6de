"""The card that each trainer writes: what it says, when it is written, that its code runs, what a push uploads."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import prompting
import pytest
from card_code import code_of, run_cards
from datasets import Dataset, DatasetInfo
from hub_rules import check_card
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    LlamaConfig,
    LlamaForCausalLM,
    set_seed,
)

from tithe.evaluation import ClassificationMetrics, EntityMetrics, is_unedited, keep_predictions
from tithe.models import factorize_embeddings
from tithe.recipes.choice_data import ChoiceCollator, tokenise_choices
from tithe.trainers import (
    DistillationConfig,
    DistillationTrainer,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    PTSeq2SeqConfig,
    PTSeq2SeqTrainer,
    RoundSelectionConfig,
    RoundSelectionTrainer,
    Teacher,
    TrackEmissions,
)


COMMON = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "num_train_epochs": 2}
SECRET = "hf_" + "x" * 34
TOKENIZER = prompting.make_tokenizer()


def bert(kind, seed=0, labels=2):
    set_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(TOKENIZER), max_position_embeddings=128, num_labels=labels, **sizes)
    return kind(config)


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(prompting.WORDS, 4)) for _ in range(count)]


def pool(count=40, seed=0, **more):
    texts = sentences(count, seed)
    rows = {**TOKENIZER(texts), "label": [int(text < "s") for text in texts], "text": texts}
    return Dataset.from_dict(rows, **more)


def selection(folder, model=None, callbacks=(), **options):
    settings = {"budget": 0.5, "rounds": 2, "strategy": "margin", "eval_strategy": "epoch", **COMMON, **options}
    return RoundSelectionTrainer(
        bert(BertForSequenceClassification) if model is None else model,
        RoundSelectionConfig(str(folder), **settings),
        train_dataset=pool(),
        eval_dataset=pool(16, 1),
        processing_class=TOKENIZER,
        data_collator=DataCollatorWithPadding(TOKENIZER),
        compute_metrics=ClassificationMetrics(),
        callbacks=list(callbacks),
    )


def distillation(folder):
    texts = sentences(24)
    rows = TOKENIZER(texts)
    rows["labels"] = [[1 if n % 2 else 0 for n in range(len(ids))] for ids in rows["input_ids"]]
    student = bert(BertForTokenClassification)
    factorize_embeddings(student, 4)
    data = Dataset.from_dict(dict(rows))
    return DistillationTrainer(
        student,
        DistillationConfig(str(folder), temperature=3.0, eval_strategy="epoch", **COMMON),
        train_dataset=data,
        eval_dataset=data,
        processing_class=TOKENIZER,
        data_collator=DataCollatorForTokenClassification(TOKENIZER),
        compute_metrics=EntityMetrics(["O", "B-X"]),
        preprocess_logits_for_metrics=keep_predictions,
        teachers=[bert(BertForTokenClassification, 1), Teacher(bert(BertForTokenClassification, 2), weight=2.0)],
    )


def loop(folder):
    rows = [{"text": text, "choices": ["one", "two", "six"], "label": n % 3} for n, text in enumerate(sentences(30))]
    data = tokenise_choices(Dataset.from_list(rows), TOKENIZER, 64)
    settings = {"initial_pool_size": 8, "query_size": 4, "max_iterations": 1, "epochs_per_iteration": 1, **COMMON}
    return ExpertLoopTrainer(
        bert(BertForMultipleChoice),
        ExpertLoopConfig(str(folder), **settings),
        train_dataset=data,
        eval_dataset=data,
        processing_class=TOKENIZER,
        data_collator=ChoiceCollator(TOKENIZER),
    )


def language(folder):
    set_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENIZER), max_position_embeddings=128, **sizes))
    rows = TOKENIZER(sentences(16), return_token_type_ids=False)
    data = Dataset.from_dict({**rows, "labels": rows["input_ids"]})
    return DistillationTrainer(
        model,
        DistillationConfig(str(folder), **COMMON),
        train_dataset=data,
        processing_class=TOKENIZER,
        data_collator=DataCollatorForSeq2Seq(TOKENIZER),
    )


def adapters(folder, **options):
    base = folder.parent / "base"
    if not base.exists():
        prompting.make_base().save_pretrained(base)
    return PTSeq2SeqTrainer(
        AutoModelForSeq2SeqLM.from_pretrained(base),
        PTSeq2SeqConfig(str(folder), **{"lora_rank": 2, "virtual_tokens": 3, **COMMON, **options}),
        train_dataset=prompting.make_rows(16),
        processing_class=TOKENIZER,
    )


def lora_classifier(folder):
    encoder = folder.parent / "encoder"
    bert(BertForSequenceClassification, labels=5).base_model.save_pretrained(encoder)
    model = BertForSequenceClassification.from_pretrained(encoder, num_labels=2)
    return selection(folder, get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2)))


class OwnForSequenceClassification(BertForSequenceClassification):
    """What a project derives."""


def untokenised(folder):
    trainer = selection(folder)
    trainer.processing_class, trainer.data_collator = None, without_attribute
    return trainer


def without_attribute(rows):
    return DataCollatorWithPadding(TOKENIZER)(rows)


KINDS = {
    "selection": selection,
    "distillation": distillation,
    "loop": loop,
    "language": language,
    "both": adapters,
    "lora": lambda folder: adapters(folder, virtual_tokens=0),
    "lora classifier": lora_classifier,
    "untokenised": untokenised,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each kind of trainer, trained and saved: name → its trainer."""
    folder, found = tmp_path_factory.mktemp("trained"), {}
    for name, make in KINDS.items():
        found[name] = make(folder / name)
        found[name].train()
        found[name].save_model()
    return found


def card_of(trainer):
    return Path(trainer.args.output_dir) / "README.md"


def test_the_code_of_every_card_runs(trained):
    said = dict(zip(KINDS, run_cards(*map(card_of, trained.values())), strict=True))
    assert said["selection"].startswith("[{'label': 'LABEL_")
    assert said["loop"] in ("red", "seven", "to run")
    assert json.loads(said["untokenised"]) in ([0], [1])
    assert "This is" in said["language"]
    assert "import tithe.models" in card_of(trained["distillation"]).read_text()
    assert "load_lora_and_prompt" in code_of(card_of(trained["both"]).read_text())
    assert "tithe" not in code_of(card_of(trained["lora"]).read_text()), "LoRA alone takes PEFT alone"


@pytest.mark.parametrize(
    "name, task, library, tag",
    [
        ("selection", "text-classification", "transformers", "data-selection"),
        ("distillation", "token-classification", "transformers", "distillation"),
        ("loop", "multiple-choice", "transformers", "active-learning"),
        ("language", "text-generation", "transformers", "generated_from_trainer"),
        ("both", "text2text-generation", "tithe", "prompt-tuning"),
        ("lora", "text2text-generation", "peft", "lora"),
        ("lora classifier", "text-classification", "peft", "data-selection"),
    ],
)
def test_front_matter_is_valid_and_says_what_it_is(trained, name, task, library, tag):
    data = check_card(card_of(trained[name]))
    assert (data.pipeline_tag, data.library_name) == (task, library) and tag in data.tags
    assert ("data-selection" in data.tags) == (name in ("selection", "lora classifier"))


def test_selection_history_is_that_of_the_ledger(trained):
    trainer, text = trained["selection"], card_of(trained["selection"]).read_text()
    assert "| rows | 20 of 40 (50.0%) |" in text and "| strategy | Margin() |" in text
    assert f"| fingerprint of the pool | {trainer.ledger.terms['pool']} |" in text
    for row in trainer.ledger.rows:
        assert f"| {row['round']} | {row['step']} | {row['strategy'].split('(')[0]} | 10 | {row['size']} |" in text


def test_teachers_queries_and_adapters_are_told(trained):
    text = card_of(trained["distillation"]).read_text()
    assert "| temperature | 3 |" in text and "| soft weight | 0.5000 |" in text
    counted = sum(p.numel() for p in bert(BertForTokenClassification).parameters())
    for weight in ("1", "2"):
        assert f"| BertForTokenClassification | {counted:,} | {weight} |" in text
    text = card_of(trained["loop"]).read_text()
    assert "| labels | 12 of 30 rows |" in text and "| oracle | ColumnOracle |" in text
    assert "| 0 | 0 | Random | 8 | 8 |" in text and "| 1 | 2 | Margin | 4 | 12 |" in text
    text, model = card_of(trained["both"]).read_text(), trained["both"].model
    count, whole = model.get_nb_trainable_parameters()
    assert f"| trained parameters | {count:,} of {whole:,} ({count / whole:.2%}) |" in text
    assert "| LoRA rank | 2 |" in text and "| vectors of the prompt | 3 |" in text


def test_scores_are_the_logged_ones_with_the_interval_of_a_share_of_rows(trained):
    trainer, text = trained["selection"], card_of(trained["selection"]).read_text()
    logged = [log for log in trainer.state.log_history if "eval_accuracy" in log][-1]
    (line,) = [line for line in text.splitlines() if line.startswith("| accuracy |")]
    value, low, high = (
        float(part)
        for part in line[len("| accuracy |") : -1].replace("[", "").replace("]", "").replace(",", " ").split()
    )
    assert value == pytest.approx(logged["eval_accuracy"], abs=5e-5) and low < value < high
    share, z = logged["eval_accuracy"], 1.959964
    # Wilson's ends are where the share lies z standard errors of theirs away
    for end in (low, high):
        assert abs(share - end) == pytest.approx(z * np.sqrt(end * (1 - end) / 16), rel=1e-3)
    assert "accuracy" in card_of(trained["distillation"]).read_text()
    tagged = [line for line in card_of(trained["distillation"]).read_text().splitlines() if "| accuracy |" in line]
    assert "[" not in tagged[0], "of tokens, which are not drawn one by one"


def test_scores_of_the_best_weights_are_told_where_these_are_kept(tmp_path):
    trainer = selection(
        tmp_path / "best",
        load_best_model_at_end=True,
        save_strategy="epoch",
        metric_for_best_model="loss",
        learning_rate=1.0,
    )
    trainer.train()
    trainer.save_model()
    by_step = {log["step"]: log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log}
    best = by_step[trainer.state.best_global_step]
    assert len(set(by_step.values())) == 2 and best == min(by_step.values())
    assert f"| loss | {best:.4f} |" in card_of(trainer).read_text()
    trainer.evaluate()
    trainer.evaluate(pool(8, 5), metric_key_prefix="test")
    trainer.save_model()
    assert "| metric | evaluation | test |" in card_of(trainer).read_text()
    assert not list((tmp_path / "best").glob("checkpoint-*/README.md")) and list(
        (tmp_path / "best").glob("checkpoint-*")
    )


def test_a_persons_card_stays_and_a_generated_one_is_written_anew(trained, tmp_path):
    trainer = trained["both"]
    folder = tmp_path / "kept"
    trainer.save_model(str(folder))
    card = folder / "README.md"
    first = card.read_text()
    assert is_unedited(first)
    card.write_text(first.replace("\n# kept", "\n# kept and read"))
    trainer.save_model(str(folder))
    assert "# kept and read" in card.read_text(), "edited by somebody"
    card.write_text("mine, without any front matter")
    trainer.save_model(str(folder))
    assert card.read_text() == "mine, without any front matter", "nor may PEFT put its own lines in"
    card.unlink()
    trainer.save_model(str(folder))
    assert card.read_text() == first
    assert not list(folder.glob(".README*"))


def test_no_card_in_a_checkpoint_not_even_pefts(trained, tmp_path):
    trainer = adapters(tmp_path / "run", save_strategy="epoch")
    trainer.train()
    checkpoints = list((tmp_path / "run").glob("checkpoint-*"))
    assert len(checkpoints) == 2 and not list((tmp_path / "run").rglob("README.md"))
    trainer.save_model(str(checkpoints[0]))
    assert not (checkpoints[0] / "README.md").exists()


def test_what_the_author_gives_stays_through_later_saves(tmp_path):
    trainer = selection(tmp_path / "given")
    trainer.create_model_card(
        language="en",
        license="My Own 1.0",
        tags="banking",
        model_name="banker",
        finetuned_from="org/base",
        tasks="text-classification",
        dataset="org/rows",
        dataset_args="plain",
    )
    trainer.evaluate()
    trainer.save_model()
    card = card_of(trainer)
    data = check_card(card)
    assert (data.license, data.license_name, data.license_link) == ("other", "my-own-1.0", "LICENSE")
    assert data.language == ["en"] and data.base_model == "org/base" and data.base_model_relation == "finetune"
    assert data.datasets == ["org/rows"] and "banking" in data.tags and "\n# banker\n" in card.read_text()
    assert {(r.dataset_type, r.dataset_config, r.dataset_split) for r in data.eval_results} == {
        ("org/rows", "plain", "evaluation")
    }


def test_the_hubs_own_record_of_the_data_and_its_licence_are_taken_over(tmp_path):
    info = DatasetInfo(
        license="cc-by-4.0",
        config_name="plain",
        download_checksums={"hf://datasets/org/rows@0123abc/plain/train.parquet": {"num_bytes": 1, "checksum": None}},
    )
    trainer = selection(tmp_path / "hub")
    trainer.train_dataset = pool(info=info)
    trainer.create_model_card()
    text = card_of(trainer).read_text()
    assert ModelCard(text).data.datasets == ["org/rows"]
    assert (
        "| revision | 0123abc |" in text and "| data | `cc-by-4.0` |" in text and "| configuration | plain |" in text
    )
    assert "fill in `license`" in text and ModelCard(text).data.license is None


def test_a_base_that_lies_here_tells_its_licence_but_not_its_place(tmp_path):
    trainer = adapters(tmp_path / "licensed")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mpl-2.0\n---\n# Base\n")
    trainer.create_model_card(license="apache-2.0")
    data, text = check_card(card_of(trainer)), card_of(trainer).read_text()
    assert data.license == "apache-2.0" and data.base_model is None
    assert "| base model | `mpl-2.0` |" in text and 'from_pretrained("base")' in text


@pytest.mark.parametrize("name", ["selection", "both"])
def test_a_push_uploads_our_card_without_paths_or_keys(tmp_path, hub, name):
    trainer = KINDS[name](tmp_path / "pushed")
    trainer.args.hub_model_id, trainer.args.hub_token = "me/tenth", SECRET
    trainer.push_to_hub(license="mit", tags=["mine"])
    ((repository, files),) = hub
    assert repository == "me/tenth"
    text = files["README.md"].decode()
    assert is_unedited(text) and "me/tenth" in code_of(text) and "\n# tenth\n" in text
    data = ModelCard(text).data
    assert data.license == "mit" and "mine" in data.tags and "tithe" in data.tags
    assert SECRET not in text and str(tmp_path) not in text and "/" not in code_of(text).replace("me/tenth", "")
    if name == "both":
        assert 'snapshot_download("me/tenth")' in code_of(text)


def test_saving_where_pushing_is_on_pushes_the_card_too(tmp_path, hub):
    trainer = selection(tmp_path / "on", push_to_hub=True, hub_model_id="tenth")
    trainer.save_model()
    ((repository, files),) = hub
    assert repository == "me/tenth" and 'model="me/tenth"' in files["README.md"].decode()
    card_of(trainer).write_text("mine")
    trainer.push_to_hub()
    assert hub[-1][1]["README.md"] == b"mine"


def test_a_class_of_the_projects_own_is_imported_from_there(tmp_path, monkeypatch):
    (tmp_path / "my_project.py").write_text(
        "from transformers import BertForSequenceClassification\n\n\n"
        "class OwnForSequenceClassification(BertForSequenceClassification):\n    pass\n"
    )
    monkeypatch.setattr(OwnForSequenceClassification, "__module__", "my_project")
    trainer = selection(tmp_path / "own", bert(OwnForSequenceClassification))
    trainer.save_model()
    assert check_card(card_of(trainer)).pipeline_tag == "text-classification"
    assert "from my_project import OwnForSequenceClassification" in code_of(card_of(trainer).read_text())
    count = sum(p.numel() for p in trainer.model.parameters())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert run_cards(card_of(trainer)) == [f"{count:,} parameters; takes input_ids"]


def test_transformers_own_draft_is_replaced(trained, tmp_path):
    from transformers import Trainer

    trainer = trained["selection"]
    Trainer.create_model_card(trainer)
    assert "Training procedure" in card_of(trainer).read_text()
    trainer.save_model()
    assert is_unedited(card_of(trainer).read_text())


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason='needs pip install "tithe[carbon]"')
def test_what_training_took_is_tracked_and_told(tmp_path):
    trainer = selection(tmp_path / "tracked", callbacks=[callback := TrackEmissions("FRA")], num_train_epochs=20)
    trainer.train()
    trainer.save_model()
    data, text = check_card(card_of(trainer)), card_of(trainer).read_text()
    assert callback.emissions.country == "France" and callback.emissions.kwh > 0
    assert data.co2_eq_emissions["geographical_location"] == "France" and "not measured" not in text
    assert f"| electric energy | {callback.emissions.kwh:.4g} kWh |" in text
    kept = json.loads((tmp_path / "tracked" / "emissions.json").read_text())
    assert kept["kwh"] == callback.emissions.kwh
