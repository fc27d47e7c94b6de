"""The NER recipe end to end on a tiny corpus: three stages, their re-use, and what it refuses."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from card_code import run_cards
from hub_rules import check_card
from transformers import AutoModelForTokenClassification, BertConfig, BertForTokenClassification

from tithe.models import FactorizedEmbedding
from tithe.recipes import distill_ner
from tithe.recipes.small_model import train_tokenizer


NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
FIRST, LAST, PLACES = ["Ann", "Ben", "Cleo", "Dan"], ["Lee", "Moss", "Ray"], ["Rome", "Oslo", "Lima"]


def sentence(number):
    first, last, place = FIRST[number % 4], LAST[number % 3], PLACES[(number // 2) % 3]
    words = [first, last, "went", "to", place, "on", "day", str(number)]
    return words, ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "O", "O"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for split, numbers in {"train": range(64), "validation": range(64, 80), "test": range(80, 100)}.items():
        rows = [zip(*sentence(n), strict=True) for n in numbers]
        text = "\n".join("".join(f"{word}\t{label}\n" for word, label in row) for row in rows)
        (folder / f"{split}.conll").write_text(text)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([" ".join(sentence(n)[0]) for n in range(64)], lowercase=False)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)  # whatever ran before
    BertForTokenClassification(config).save_pretrained(folder)
    return folder


def flags(corpus, model, output, *more):
    files = [part for s in ("train", "validation", "test") for part in (f"--{s}_file", str(corpus / f"{s}.conll"))]
    common = ["--model_name_or_path", str(model), "--output_dir", str(output), "--use_cpu", "true"]
    common += ["--teacher_learning_rate", "3e-3", "--factorize_learning_rate", "1e-3", "--learning_rate", "3e-3"]
    common += ["--teacher_epochs", "6", "--embedding_rank", "8", "--num_train_epochs", "4", "--report_to", "none"]
    common += ["--per_device_train_batch_size", "8", "--disable_tqdm", "true", "--max_length", "32"]
    return [*files, *common, *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus, model):
    output = tmp_path_factory.mktemp("runs") / "ner"
    distill_ner.main(flags(corpus, model, output, "--train_alone", "true"))
    return output


def test_leaves_three_models_and_a_table(finished):
    results = json.loads((finished / "results.json").read_text())
    rows = {row["model"]: row for row in results["models"]}
    assert list(rows) == ["teacher", "factorized", "student", "student alone"]
    assert rows["teacher"]["f1"] == rows["teacher"]["f1"] * rows["teacher"]["share"] > 0.9
    assert rows["student"]["parameters"] == rows["student alone"]["parameters"] < rows["teacher"]["parameters"]
    assert rows["factorized"]["parameters"] < rows["teacher"]["parameters"]
    assert all(row["throughput"] > 0 and row["latency_ms"] > 0 and row["bytes"] > 0 for row in rows.values())
    assert results["metrics"]["test"]["f1"] == rows["student"]["f1"]
    assert results["data"]["rows"] == {"train": 64, "validation": 16, "test": 20}


def test_models_load_without_the_recipe(finished):
    for name, layers in (("teacher", 2), ("factorized", 2), ("student", 1)):
        model = AutoModelForTokenClassification.from_pretrained(finished / name)
        assert model.config.num_hidden_layers == layers
        assert [model.config.id2label[i] for i in range(5)] == NAMES
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, FactorizedEmbedding) == (name == "factorized")


def test_predictions_are_those_that_were_scored(finished):
    rows = pq.read_table(finished / "predictions.parquet").to_pylist()
    assert len(rows) == 20 and rows[0]["words"] == sentence(80)[0] and rows[0]["label"] == sentence(80)[1]
    assert all(len(row["words"]) == len(row["prediction"]) for row in rows)
    f1 = json.loads((finished / "results.json").read_text())["metrics"]["test"]["f1"]
    from seqeval.metrics import f1_score

    truth, guesses = [row["label"] for row in rows], [row["prediction"] for row in rows]
    assert f1_score(truth, guesses) == pytest.approx(f1, abs=1e-9)


def test_reports(finished):
    page = (finished / "report.html").read_text()
    assert "Of the student, on test" in page and "student alone" in page and page.count("<img") == 9
    assert "Cleo" in (finished / "entities.html").read_text()
    for name in ("memory_usage.json", "run.yaml", "figures/token_confusion.png"):
        assert (finished / name).stat().st_size > 0


def test_cards_tell_teachers_and_intervals_and_their_code_runs(finished):
    cards = [finished / "README.md", finished / "student" / "README.md", finished / "factorized" / "README.md"]
    assert len(run_cards(*cards)) == 3
    data, text = check_card(cards[0]), cards[0].read_text()
    assert data.pipeline_tag == "token-classification" and "distillation" in data.tags
    assert "## Teachers" in text and "| student alone |" in text and f"{finished.name}/student" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| f1 |")]
    f1 = json.loads((finished / "results.json").read_text())["metrics"]["test"]["f1"]
    assert f"{f1:.4f} [" in line or f1 == 1
    assert "import tithe.models" in cards[2].read_text(), "its word embeddings are factorised"


def test_one_model_is_published_with_its_card_and_nothing_else(tmp_path, corpus, model, finished, hub):
    more = ["--push_to_hub", "true", "--hub_model_id", "me/tagger", "--stages", "student"]
    more += ["--teacher_checkpoint", str(finished / "teacher")]
    distill_ner.main(flags(corpus, model, tmp_path / "run", *more, "--num_train_epochs", "1"))
    ((repository, files),) = hub
    assert repository == "me/tagger"
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert not {"stage.json", "training_args.bin"} & files.keys() and not any("/" in name for name in files)
    assert (tmp_path / "run" / "student" / "stage.json").is_file() and 'model="me/tagger"' in files[
        "README.md"
    ].decode()
    assert not any(str(tmp_path).encode() in content for content in files.values())


def test_started_again_is_complete(finished, corpus, model, capsys):
    distill_ner.main(flags(corpus, model, finished, "--train_alone", "true"))
    assert "is complete" in capsys.readouterr().out


def test_a_teacher_that_finds_nothing_has_no_share(tmp_path, corpus, model, capsys):
    more = ["--stages", "teacher", "--teacher_epochs", "0.1", "--teacher_learning_rate", "1e-9"]
    for _ in range(2):  # the second time its results are read back
        distill_ner.main(flags(corpus, model, tmp_path / "none", *more))
    assert json.loads((tmp_path / "none" / "results.json").read_text())["models"][0]["share"] is None
    assert capsys.readouterr().out.count("–") == 2


def test_goes_on_after_a_stage(tmp_path, finished, corpus, model, capsys, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tithe.recipes.distillation_stages.build_student", stopped)
        distill_ner.main(flags(corpus, model, tmp_path / "ner", "--train_alone", "true"))
    capsys.readouterr()
    distill_ner.main(flags(corpus, model, tmp_path / "ner", "--train_alone", "true"))
    out = capsys.readouterr().out
    assert "teacher: finished already" in out and "factorized: finished already" in out
    for name in ("teacher", "factorized", "student"):
        files = [run / name / "model.safetensors" for run in (finished, tmp_path / "ner")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_teacher_is_used_again(tmp_path, finished, corpus, model):
    teacher = ["--stages", "student", "--teacher_checkpoint", str(finished / "teacher")]
    distill_ner.main(flags(corpus, model, tmp_path / "again", *teacher))
    results = json.loads((tmp_path / "again" / "results.json").read_text())
    before = json.loads((finished / "results.json").read_text())
    assert [row["model"] for row in results["models"]] == ["teacher", "student"]
    assert results["models"][0]["f1"] == before["models"][0]["f1"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stages", "student"], "pass `teacher_checkpoint`"),
        (["--stages", "pupil"], "`stages` must be some of teacher, factorize, student"),
        (["--teacher_checkpoint", "x"], "leave `teacher` out"),
        (["--max_parameters", "100"], "`max_parameters`"),
        (["--embedding_rank", "3000"], "`embedding_rank` must be from 1 to 32"),
        (["--temperature", "0"], "`temperature` must be above 0"),
        (["--student_initialization", "copy"], "`teacher` or `random`"),
        (["--stages", "student", "--teacher_checkpoint", "nowhere"], "`teacher_checkpoint` nowhere is no tagger"),
    ],
)
def test_bad_input_ends_before_training(tmp_path, corpus, model, capsys, more, message):
    with pytest.raises(SystemExit):
        distill_ner.main(flags(corpus, model, tmp_path / "bad", *more))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bad" / "teacher" / "model.safetensors").exists()
