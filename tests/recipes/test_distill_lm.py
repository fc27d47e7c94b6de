"""The language-model recipe end to end on a tiny corpus, its perplexity and packing against brute force."""

import json
import math
import re

import numpy as np
import pytest
import torch
from card_code import run_cards
from datasets import Dataset
from hub_rules import check_card
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tithe.recipes import distill_lm
from tithe.recipes.byte_tokenizer import train_byte_tokenizer
from tithe.recipes.language_data import LanguageArguments, load_language_data, packed
from tithe.recipes.language_model import token_sums


NAMES, PLACES = ["Ann", "Ben", "Cleo", "Dan"], ["Rome", "Oslo", "Lima"]
TEXTS = [f"{NAMES[n % 4]} went to {PLACES[n // 2 % 3]}  on day {n}" for n in range(120)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.txt"
    path.write_text("\n\n".join(TEXTS))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_byte_tokenizer(TEXTS)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def flags(corpus, model, output, *more):
    common = ["--train_file", str(corpus), "--model_name_or_path", str(model), "--output_dir", str(output)]
    common += ["--teacher_learning_rate", "1e-2", "--learning_rate", "1e-2", "--block_size", "16", "--use_cpu", "true"]
    common += ["--teacher_epochs", "4", "--num_train_epochs", "3", "--report_to", "none", "--disable_tqdm", "true"]
    return [*common, "--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "3", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus, model):
    output = tmp_path_factory.mktemp("runs") / "lm"
    distill_lm.main(flags(corpus, model, output, "--train_alone", "true"))
    return output


def test_leaves_models_that_learnt(finished):
    results = json.loads((finished / "results.json").read_text())
    rows = {row["model"]: row for row in results["models"]}
    assert list(rows) == ["teacher", "student", "student alone"]
    assert all(row["perplexity"] < row["untrained"] / 2 for name, row in rows.items() if name != "student alone")
    assert rows["student"]["untrained"] == rows["student alone"]["untrained"]
    assert rows["student"]["parameters"] == rows["student alone"]["parameters"] < rows["teacher"]["parameters"]
    assert results["metrics"]["test"]["perplexity"] == rows["student"]["perplexity"]
    assert results["data"]["rows"] == {"train": 96, "validation": 12, "test": 12}


def test_perplexity_is_that_of_each_token_once(finished, corpus):
    """Scored block by block, without padding or batches: the last block of test is shorter than the others."""
    data = load_language_data(LanguageArguments(train_file=str(corpus)))
    tokenizer = AutoTokenizer.from_pretrained(finished / "student")
    blocks = packed(data.test, tokenizer, 16)["input_ids"]
    assert len(blocks[-1]) < 16 and len(blocks) % 3
    model, losses, right = AutoModelForCausalLM.from_pretrained(finished / "student").eval(), [], []
    for block in blocks:
        with torch.no_grad():
            logits = model(torch.tensor([block])).logits[0, :-1].double().numpy()
        logits -= logits.max(-1, keepdims=True)
        scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [-score[token] for score, token in zip(scores, block[1:], strict=True)]
        right += list(scores.argmax(-1) == np.array(block[1:]))
    found = json.loads((finished / "results.json").read_text())["metrics"]["test"]
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert found["token_accuracy"] == pytest.approx(np.mean(right))


def test_token_sums_leave_out_what_is_padded():
    logits, labels = torch.zeros(1, 4, 8), torch.tensor([[3, 0, 5, -100]])
    assert token_sums(logits, labels)[0].tolist() == pytest.approx([2 * math.log(8), 1, 2])


def test_packing_loses_nothing(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = packed(Dataset.from_dict({"text": TEXTS}), tokenizer, 16)
    assert {len(ids) for ids in rows["input_ids"][:-1]} == {16}
    stream = [token for ids in rows["input_ids"] for token in ids]
    assert tokenizer.decode(stream).split(tokenizer.eos_token) == [*TEXTS, ""]
    assert rows["labels"][0] == rows["input_ids"][0]


def test_packing_drops_a_lone_token(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    length = len(tokenizer(TEXTS[0])["input_ids"])  # and the end of the text makes one more
    rows = packed(Dataset.from_dict({"text": TEXTS[:1]}), tokenizer, length)
    assert [len(ids) for ids in rows["input_ids"]] == [length]


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_reads_texts_without_labels(tmp_path, corpus, ending):
    path = tmp_path / f"texts{ending}"
    frame = Dataset.from_dict({"body": TEXTS, "number": list(range(120))})
    frame.to_json(path) if ending == ".jsonl" else frame.to_csv(path, index=False)
    data = load_language_data(LanguageArguments(train_file=str(path), text_column="body"))
    same = load_language_data(LanguageArguments(train_file=str(corpus)))
    assert data.fingerprint == same.fingerprint and data.test["text"][:] == same.test["text"][:]
    assert sorted([*data.train["text"], *data.validation["text"], *data.test["text"]]) == sorted(TEXTS)


def test_cards_tell_intervals_and_their_code_runs(finished):
    cards = [finished / "README.md", finished / "student" / "README.md"]
    assert len(run_cards(*cards)) == 2
    text = cards[0].read_text()
    assert check_card(cards[0]).pipeline_tag == "text-generation" and "## Teachers" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| perplexity |")]
    found = json.loads((finished / "results.json").read_text())["metrics"]["test"]["perplexity"]
    value, low, high = map(float, re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", line)[0])
    assert value == pytest.approx(found, rel=1e-3) and low < value < high


def test_reports(finished):
    page = (finished / "report.html").read_text()
    assert "student alone" in page and page.count("<img") == 6
    for name in ("memory_usage.json", "run.yaml", "figures/loss_student.png"):
        assert (finished / name).stat().st_size > 0


def test_started_again_is_complete(finished, corpus, model, capsys):
    distill_lm.main(flags(corpus, model, finished, "--train_alone", "true"))
    assert "is complete" in capsys.readouterr().out


def test_a_teacher_as_it_is(tmp_path, finished, corpus, model):
    teacher = ["--stages", "student", "--teacher_checkpoint", str(finished / "teacher"), "--num_train_epochs", "1"]
    distill_lm.main(flags(corpus, model, tmp_path / "again", *teacher))
    before, after = (json.loads((run / "results.json").read_text()) for run in (finished, tmp_path / "again"))
    assert [row["model"] for row in after["models"]] == ["teacher", "student"]
    assert after["models"][0]["perplexity"] == before["models"][0]["perplexity"]
    assert not (tmp_path / "again" / "teacher" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stages", "student"], "pass `teacher_checkpoint`"),
        (["--stages", "factorize"], "`stages` must be some of teacher, student"),
        (["--max_parameters", "100"], "`max_parameters`"),
        (["--block_size", "65"], "`block_size` must be at most 64"),
        (["--block_size", "4"], "`block_size` must be at least 8"),
        (["--stages", "student", "--teacher_checkpoint", "nowhere"], "`teacher_checkpoint` nowhere could not be"),
        (["--student_layers", "3"], "`layers` of a student made from its teacher's weights is at most 2"),
    ],
)
def test_bad_input_ends_before_training(tmp_path, corpus, model, capsys, more, message):
    with pytest.raises(SystemExit):
        distill_lm.main(flags(corpus, model, tmp_path / "bad", *more))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bad" / "teacher" / "model.safetensors").exists()
