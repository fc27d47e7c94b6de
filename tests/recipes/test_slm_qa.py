"""The question-answering recipe from flags to report: every mode, tuning, kills, comparisons, bad input."""

import functools
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from card_code import run_cards
from hub_rules import check_card
from launching import deepspeed_config
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tithe.evaluation import answer_metrics
from tithe.models import Passage
from tithe.recipes import qa_stages, slm_qa
from tithe.recipes.qa_data import Question
from tithe.recipes.qa_model import DEFAULT_QA_MODEL, build_small_answerer
from tithe.recipes.qa_prompts import MODES, PromptMaker


pytest.importorskip("bm25s")
COLOURS = "red green blue white black yellow brown pink".split()
THINGS = "stone river house cloud apple boat chair shirt lamp door".split()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))


def write_rows(path, count, seed, gold=True):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        thing, colour = str(rng.choice(THINGS)), str(rng.choice(COLOURS))
        row = {"question": f"Which colour has {thing} {number}-{seed}?", "answers": [colour, f"It is {colour}"]}
        rows.append(row | ({"context": f"The {thing} {number}-{seed} is {colour}."} if gold else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def common(folder, gold=True, **more):
    found = []
    for seed, (split, count) in enumerate({"train": 48, "validation": 8, "test": 10}.items()):
        found += [f"--{split}_file", str(write_rows(folder / f"{split}.jsonl", count, seed, gold))]
    settings = {"output_dir": folder / "run", "model_name_or_path": "small", "use_cpu": "true", "report_to": "none"}
    settings |= {"disable_tqdm": "true", "instruction": "none", "max_new_tokens": 6, "answer_batch_size": 4}
    settings |= {"base_epochs": 1, "num_train_epochs": 1, "learning_rate": 1e-2, "passages": 2, **more}
    return [*found, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


def make_own_model(folder):
    texts = [" ".join([*COLOURS, *THINGS]), "Which colour has the is ? Question: Answer: 0 1 2 3 4 5 6 7 8 9"]
    build_small_answerer(folder, texts, seed=0)
    return folder


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITHE_CACHE", str(folder / "cache"))
        slm_qa.main(common(folder, tune="true", grader="rules"))
    return folder / "run"


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def results_of(run):
    return json.loads((run / "results.json").read_text())


def test_leaves_all_files(answered):
    for name in ("run.yaml", "results.json", "report.html", "README.md", "memory_usage.json"):
        assert (answered / name).is_file(), name
    figures = {path.stem for path in (answered / "figures").glob("*.png")}
    assert {"loss_base", "loss_tuned", "memory"} <= figures
    page = (answered / "report.html").read_text()
    assert "Which colour has" in page and "Token Recall" in page


def test_cards_tell_intervals_and_their_code_runs(answered):
    cards = [answered / "README.md", answered / "tuned" / "README.md"]
    assert len(run_cards(*cards)) == 2
    data, text = check_card(cards[0]), cards[0].read_text()
    assert data.pipeline_tag == "text-generation" and "question-answering" in data.tags
    assert data.library_name == "peft" and '"run/base"' in text and '"run/tuned"' in text
    bounds = [found["f1"] for found in results_of(answered)["intervals"].values()]
    (line,) = [line for line in text.splitlines() if line.startswith("| f1 |")]
    assert line.count("[") == sum(low < high for low, high in bounds)
    assert all(f"[{low:.4f}, {high:.4f}]" in line for low, high in bounds if low < high)


def test_scores_are_of_the_answers_that_it_leaves(answered):
    results = results_of(answered)
    assert list(results["metrics"]) == list(MODES)
    for mode, scores in results["metrics"].items():
        rows = lines_of(answered / mode / "predictions.jsonl")
        assert len(rows) == 10
        expected = answer_metrics([row["prediction"] for row in rows], [row["answers"] for row in rows])
        assert {name: scores[name] for name in expected} == pytest.approx(expected)
        low, high = results["intervals"][mode]["token_recall"]
        assert low <= scores["token_recall"] <= high
        assert scores["simpleqa_correct"] + scores["simpleqa_incorrect"] + scores["simpleqa_not_attempted"] == 1
    passages = {mode: lines_of(answered / mode / "predictions.jsonl")[0]["passages"] for mode in MODES}
    assert [len(passages[mode]) for mode in MODES] == [0, 1, 2]
    assert results["metrics"]["retriever_context"]["hit@1"] > 0.8, "each thing has a number of its own"
    assert "hit@1" not in results["metrics"]["oracle_context"]


def test_memory_is_told_of_model_and_retriever_apart(answered):
    usage = json.loads((answered / "memory_usage.json").read_text())
    assert usage["model"]["footprint_bytes"] > 1e6 and 0 < usage["retriever"]["index_bytes"] < 1e6
    assert {"index", "base", "tuned", *MODES} <= set(usage["phases"])
    assert {sample["phase"] for sample in usage["timeline"]} >= {"base", "tuned"}


def test_hybrid_and_reranker(tmp_path, own_model):
    """A sentence encoder and a cross-encoder of random weights: their index is cached, and taken the second time."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    tokenizer = AutoTokenizer.from_pretrained(own_model)
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=1, **sizes)
    torch.manual_seed(0)
    for name, kind in (("encoder", BertModel), ("reranker", BertForSequenceClassification)):
        kind(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    flags = {"retriever": "hybrid", "dense_encoder": tmp_path / "encoder", "reranker": tmp_path / "reranker"}
    flags |= {"model_name_or_path": own_model, "mode": "retriever_context"}
    slm_qa.main(common(tmp_path, **flags))
    (index,) = (tmp_path / "cache" / "indexes").iterdir()
    written = {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.is_file()}
    slm_qa.main([*common(tmp_path, **flags), "--output_dir", str(tmp_path / "again")])
    assert written == {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.is_file()}
    name = "retriever_context/predictions.jsonl"
    assert (tmp_path / "run" / name).read_text() == (tmp_path / "again" / name).read_text()


def test_scores_go_to_the_trackers(tmp_path, own_model):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    slm_qa.main([*common(tmp_path, model_name_or_path=own_model, mode="oracle_context"), "--report_to", "tensorboard"])
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    found = EventAccumulator(str(folder)).Reload()
    expected = results_of(tmp_path / "run")["metrics"]["oracle_context"]
    logged = {name: found.Scalars(f"oracle_context/{name}")[0].value for name in expected}
    assert logged == pytest.approx(expected, abs=1e-6)


def test_a_complete_run_is_only_shown(answered, capsys, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(answered.parent / "cache"))
    slm_qa.main(["--config", str(answered / "run.yaml")])
    assert "is complete" in capsys.readouterr().out


@pytest.fixture
def own_model(tmp_path):
    return make_own_model(tmp_path / "own")


def test_what_was_answered_is_not_answered_again(tmp_path, own_model, monkeypatch):
    flags = {"model_name_or_path": own_model, "mode": "oracle_context", "answer_batch_size": 2}
    whole = tmp_path / "whole"
    slm_qa.main([*common(tmp_path, **flags), "--output_dir", str(whole)])
    from tithe.models.answer_log import SharedLog

    appended, append = [], SharedLog.append

    def dying(log, entries):
        entries = list(entries)
        append(log, entries)
        appended.extend(entry["key"] for entry in entries)
        if len(appended) >= 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SharedLog, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            slm_qa.main(common(tmp_path, **flags))
    before = set(appended)
    assert 4 <= len(before) < 10
    slm_qa.main(common(tmp_path, **flags))
    keys = [row["key"] for row in lines_of(tmp_path / "run" / "oracle_context" / "answers.jsonl")]
    assert len(keys) == len(set(keys)) == 10 and before < set(keys)
    name = "oracle_context/predictions.jsonl"
    assert (whole / name).read_text() == (tmp_path / "run" / name).read_text()


def test_passages_that_do_not_fit_are_left_out_whole_and_counted(own_model):
    tokenizer = AutoTokenizer.from_pretrained(own_model)
    passages = [Passage(f"p{n}", f"The stone {n} is red.") for n in range(4)]
    question = Question("Which colour?", ("red",))
    whole = PromptMaker(tokenizer, None, None, 1000).make_all([question], [passages])
    room = len(tokenizer(whole.texts[0]).input_ids) - 1
    cut = PromptMaker(tokenizer, None, None, room).make_all([question, question], [passages, passages[:1]])
    assert whole.dropped == 0 and (cut.dropped, cut.shortened) == (1, 1)
    assert cut.texts[0] == PromptMaker(tokenizer, None, None, 1000).make("Which colour?", passages[:3])
    with pytest.raises(ValueError, match="'Which colour\\?'.*raise `max_prompt_length`"):
        PromptMaker(tokenizer, None, None, 3).make_all([question], [passages])


def test_a_row_to_train_on_is_the_prompt_and_then_what_counts(own_model):
    tokenizer = AutoTokenizer.from_pretrained(own_model)
    maker = PromptMaker(tokenizer, None, None, 100)
    row = maker.row("Question: Which?\nAnswer:", "red")
    counted = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(counted) == " red" + tokenizer.eos_token
    assert tokenizer.decode(row["input_ids"]) == "Question: Which?\nAnswer: red" + tokenizer.eos_token


def test_a_chat_template_is_used_where_there_is_one(own_model):
    tokenizer = AutoTokenizer.from_pretrained(own_model)
    tokenizer.chat_template = "{% for m in messages %}<u>{{ m.content }}</u>{% endfor %}<a>"
    passages = [Passage("p", "It is red.", "Stone")]
    text = PromptMaker(tokenizer, "Be brief.", None, 100).make("Which colour?", passages)
    assert text == "<u>Be brief.\n\nStone\nIt is red.\n\nQuestion: Which colour?</u><a>"
    plain = PromptMaker(tokenizer, "Be brief.", False, 100).make("Which colour?", passages)
    assert plain == "Be brief.\nStone\nIt is red.\nQuestion: Which colour?\nAnswer:"


def test_a_qwen3_with_a_grader(tmp_path, own_model, capsys):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    tokenizer = AutoTokenizer.from_pretrained(own_model)
    config = Qwen3Config(vocab_size=len(tokenizer), num_key_value_heads=2, head_dim=8, **sizes)
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    flags = {"model_name_or_path": tmp_path / "qwen", "mode": "no_context", "grader": own_model, "temperature": 0.7}
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main(common(tmp_path, gold=False, **flags))
    assert "reads 512 tokens" in capsys.readouterr().err
    for name in ("config.json", "tokenizer_config.json"):
        path = own_model / name
        path.write_text(path.read_text().replace("512", "2048"))
    slm_qa.main(common(tmp_path, gold=False, **flags))
    scores = results_of(tmp_path / "run")["metrics"]["no_context"]
    assert scores["simpleqa_ungraded"] == 1, "a model of random weights says no grade, and none is made up"
    assert len(lines_of(tmp_path / "run" / "no_context" / "grades.jsonl")) == 10


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model(tmp_path, own_model, bits):
    pytest.importorskip("bitsandbytes")
    flags = {"model_name_or_path": own_model, f"load_in_{bits}bit": "true", "tune": "true", "mode": "oracle_context"}
    slm_qa.main(common(tmp_path, gradient_checkpointing="true", **flags))
    assert len(lines_of(tmp_path / "run" / "oracle_context" / "predictions.jsonl")) == 10
    usage = json.loads((tmp_path / "run" / "memory_usage.json").read_text())
    slm_qa.main(
        [*common(tmp_path, model_name_or_path=own_model, mode="no_context"), "--output_dir", str(tmp_path / "b")]
    )
    whole = json.loads((tmp_path / "b" / "memory_usage.json").read_text())
    assert usage["model"]["footprint_bytes"] < whole["model"]["footprint_bytes"]


def test_runs_are_compared_question_by_question(answered, tmp_path, own_model, capsys, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(answered.parent / "cache"))
    other = tmp_path / "other"
    flags = common(answered.parent, model_name_or_path=own_model, mode="oracle_context")
    slm_qa.main([*flags, "--output_dir", str(other)])
    slm_qa.main(["--compare", str(answered), str(other), "--output_dir", str(tmp_path / "both")])
    table = (tmp_path / "both" / "comparison.md").read_text()
    assert "bm25 × 2" in table and "small tuned" in table and "own" in table
    assert (tmp_path / "both" / "figures" / "token_recall.png").is_file()
    page = (tmp_path / "both" / "report.html").read_text()
    assert "run: oracle" in page and "other: oracle" in page and "run: none" in page
    assert str(tmp_path / "both" / "report.html") in capsys.readouterr().out


def test_a_run_is_not_compared_with_itself(answered, capsys):
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main(["--compare", str(answered), str(answered)])
    assert "names a run twice" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main([f"--compare={answered / 'figures'}"])
    assert "no complete run lies there" in capsys.readouterr().err


def test_unfinished_runs_are_not_compared(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main(["--compare", str(tmp_path)])
    assert "no complete run lies there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "gold", "message"),
    [
        ({"mode": "oracle"}, True, "`mode` must be one of no_context, oracle_context, retriever_context, all"),
        ({"mode": "oracle_context"}, False, "10 of 10 questions of test have none"),
        ({"mode": "retriever_context"}, False, "needs a corpus to search: give `corpus_file`"),
        ({"retriever": "bm52"}, True, "`retriever` must be one of"),
        ({"virtual_tokens": 5}, True, "this recipe tunes LoRA alone"),
        ({"tune": "true", "eval_split": "train"}, True, "choose another `eval_split`"),
        ({"model_name_or_path": "nowhere/at-all"}, True, "`model_name_or_path` nowhere/at-all"),
        ({"load_in_8bit": "true"}, True, "a quantised one cannot be"),
        ({"max_prompt_length": 3}, True, "raise `max_prompt_length`"),
        ({"retriever": "dense", "dense_encoder": "nowhere/at-all"}, True, "`retriever` dense: `model` nowhere/at-all"),
        ({"grader": "nowhere/at-all"}, True, "`grader`"),
        ({"report_to": "mlflow"}, True, "`report_to` mlflow is not installed here"),
        ({"attn_implementation": "flash_attention_2"}, True, "could not be loaded as a causal language model"),
    ],
)
def test_bad_flags(tmp_path, capsys, flags, gold, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(qa_stages.QAStages, "run", lambda self: pytest.fail("it must not come to training"))
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main(common(tmp_path, gold=gold, **flags))
    assert message in capsys.readouterr().err


def test_answers_that_do_not_fit_behind_their_prompts(tmp_path, own_model, capsys):
    """What is trained on is longer than what is generated."""
    flags = common(tmp_path, model_name_or_path=own_model, tune="true", mode="oracle_context")
    row = {"question": "Which?", "answers": ["red " * 600], "context": "It is red."}
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main(flags)
    error = capsys.readouterr().err
    assert "train: 1 of 49 prompts are longer, with their answer, than the model's 512 tokens" in error
    assert "are its answer): shorten the answers, or lower `max_prompt_length` 2048" in error


@pytest.mark.parametrize(
    ("flags", "model"),
    [
        ([], "small"),
        (["--dataset", "api-docs"], "small"),
        (["--test_file", "rows.jsonl"], DEFAULT_QA_MODEL),
        (["--dataset", "nq_open"], DEFAULT_QA_MODEL),
    ],
)
def test_the_small_model_is_of_the_embedded_corpus(flags, model):
    assert slm_qa.parse([*flags, "--report_to", "none"])[1].model_name_or_path == model


def test_memory_is_sampled_no_longer_than_a_run(tmp_path, capsys):
    before = threading.active_count()
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main(common(tmp_path, gold=False, mode="oracle_context"))
    assert threading.active_count() == before


def test_tuning_needs_questions_to_train_on(tmp_path, own_model, capsys):
    path = write_rows(tmp_path / "test.jsonl", 5, 0)
    flags = ["--test_file", str(path), "--model_name_or_path", str(own_model), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        slm_qa.main([*flags, "--tune", "true", "--report_to", "none"])
    assert "`tune` needs questions to train on" in capsys.readouterr().err


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Tunes and answers in so many processes, under ZeRO where a stage is given; what it left of each mode."""
    folder = tmp_path_factory.mktemp("launched")
    make_own_model(folder / "own")

    @functools.cache
    def run(processes, stage=None):
        out = folder / f"out{processes}-{stage}"
        flags = {"model_name_or_path": folder / "own", "tune": "true", "answer_dtype": "float32"}
        flags |= {"per_device_train_batch_size": 8 // processes, "report_to": "tensorboard", "output_dir": out}
        sharded = {}
        if stage is not None:
            path = folder / f"zero{stage}.json"
            path.write_text(json.dumps(deepspeed_config(stage)))
            flags |= {"deepspeed": path, "gradient_checkpointing": "true"}
            sharded = {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "tithe.recipes.slm_qa"]
        done = subprocess.run(
            [*command, *common(folder, **flags)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TITHE_CACHE": str(folder / "cache"), **sharded},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert all(len(lines_of(out / mode / "answers.jsonl")) == 10 for mode in MODES), "each answered once"
        assert len(list((out / "runs").glob("*"))) == 1, "the scores are logged once"
        return {mode: lines_of(out / mode / "predictions.jsonl") for mode in MODES}

    return run


@pytest.mark.slow
@pytest.mark.parametrize("stage", [None, 2, 3])
def test_two_processes_tune_and_answer_as_one(launched, stage):
    """The batches are the same, and so are all rows that are answered."""
    if stage is not None:
        pytest.importorskip("deepspeed")
    assert launched(2, stage) == launched(1)
