"""The prompt-tuning recipe from flags to report: every method, data of every shape, exports, bad input."""

import json

import numpy as np
import pytest
import torch
from card_code import run_cards
from hub_rules import check_card
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tithe.evaluation import GENERATION_METRICS, generation_metrics
from tithe.models import generate_predictions, load_lora_and_prompt
from tithe.recipes import prompt_stages, prompt_tune, seq2seq_model
from tithe.recipes.instruction_data import InstructionArguments, load_instruction_data
from tithe.recipes.prompt_stages import SETTINGS, references_of
from tithe.recipes.readers import DataError
from tithe.recipes.seq2seq_model import build_small_base, with_words_dropped


WORDS = "one two three four five six seven eight nine ten".split()


def write_rows(path, count, seed, **more):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = [str(word) for word in rng.choice(WORDS, rng.integers(2, 5))]
        row = {"instruction": "Say it twice.", "input": " ".join(words), "output": " ".join(words + words)}
        rows.append(row | more)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def common(tmp_path, **more):
    found = []
    for seed, (split, count) in enumerate({"train": 64, "validation": 12, "test": 14}.items()):
        found += [f"--{split}_file", str(write_rows(tmp_path / f"{split}.jsonl", count, seed))]
    settings = {"output_dir": tmp_path / "run", "model_name_or_path": "small", "use_cpu": "true"}
    settings |= {"base_epochs": 1, "num_train_epochs": 1, "learning_rate": 1e-2, "report_to": "none"}
    settings |= {"disable_tqdm": "true", "max_input_length": 32, "max_output_length": 16, **more}
    return [*found, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITHE_CACHE", str(folder / "cache"))
        prompt_tune.main(common(folder, export_plain="true", sample_rows=3))
    return folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_leaves_all_files(tuned):
    run = tuned / "run"
    for name in ("run.yaml", "results.json", "report.html", "README.md", "memory_usage.json"):
        assert (run / name).is_file(), name
    for name in ("adapter_model.safetensors", "samples.jsonl", "predictions-test.jsonl", "untrained.jsonl"):
        assert (run / "adapted" / name).is_file(), name
    assert {"loss_base", "loss_adapted"} <= {path.stem for path in (run / "figures").glob("*.png")}
    page = (run / "report.html").read_text()
    assert "Loss of the adapters" in page
    assert "Loss of the adapters on validation" not in page, "a score's curve must not replace that of the loss"


def test_cards_tell_what_was_added_and_their_code_runs(tuned):
    run = tuned / "run"
    cards = [run / "README.md", run / "adapted" / "README.md", run / "base" / "README.md"]
    assert len(run_cards(*cards)) == 3
    data, text = check_card(cards[0]), cards[0].read_text()
    assert (data.library_name, data.pipeline_tag, data.language) == ("tithe", "text2text-generation", ["en"])
    assert '"run/base"' in text and '"run/adapted"' in text and '"base"' in cards[1].read_text()
    assert "| vectors of the prompt | 20 |" in text and "| LoRA rank | 8 |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| rougeL |")]
    assert "[" in line and "[" not in next(line for line in text.splitlines() if line.startswith("| chrf |"))


def test_scores_are_of_the_texts_that_it_leaves(tuned):
    results = json.loads((tuned / "run" / "results.json").read_text())
    rows = [json.loads(line) for line in (tuned / "test.jsonl").read_text().splitlines()]
    for name, scores in (
        ("predictions-test", results["metrics"]["test"]),
        ("untrained", results["untrained"]["test"]),
    ):
        entries = [json.loads(line) for line in (tuned / "run" / "adapted" / f"{name}.jsonl").read_text().splitlines()]
        texts = [entry["prediction"] for entry in sorted(entries, key=lambda entry: entry["row"])]
        expected = generation_metrics(texts, [row["output"] for row in rows])
        assert {metric: scores[metric] for metric in GENERATION_METRICS} == pytest.approx(expected)
    assert "tok:13a" in results["signatures"]["bleu"]
    assert 0 < results["parameters"]["trainable"] < 0.1 * results["parameters"]["all"]


def test_the_untrained_texts_are_the_bases(tuned):
    run = tuned / "run"
    tokenizer = AutoTokenizer.from_pretrained(run / "base")
    base = AutoModelForSeq2SeqLM.from_pretrained(run / "base")
    entries = lines_of(run / "adapted" / "untrained.jsonl")
    sources = [entry["input"] for entry in entries]
    options = {"max_length": 32, "max_new_tokens": 16, "num_beams": 1, "progress": False}
    assert generate_predictions(base, tokenizer, sources, **options) == [entry["prediction"] for entry in entries]


def test_samples_are_by_every_way_of_decoding(tuned):
    samples = lines_of(tuned / "run" / "adapted" / "samples.jsonl")
    assert len(samples) == 3 and all(set(SETTINGS) <= set(row) for row in samples)
    page = (tuned / "run" / "report.html").read_text()
    assert all(name in page for name in SETTINGS) and samples[0]["target"] in page


def test_exports_load_without_tithe(tuned):
    run = tuned / "run"
    tokenizer = AutoTokenizer.from_pretrained(run / "base")
    base = AutoModelForSeq2SeqLM.from_pretrained(run / "base")
    ours = load_lora_and_prompt(base, run / "adapted").eval()
    inputs = tokenizer(["Say it twice.\none two", "Say it twice.\nten"], padding=True, return_tensors="pt")
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 10, "num_beams": 3}
    expected = ours.generate(**given, **options)
    peft = AutoModelForSeq2SeqLM.from_pretrained(run / "base")
    peft = PeftModel.from_pretrained(peft, str(run / "exports" / "lora")).merge_and_unload()
    peft = PeftModel.from_pretrained(peft, str(run / "exports" / "prompt")).eval()
    assert torch.equal(peft.generate(**given, **options), expected)
    plain = AutoModelForSeq2SeqLM.from_pretrained(run / "exports" / "plain").eval()
    taught = AutoTokenizer.from_pretrained(run / "exports" / "plain")
    inputs = taught(["Say it twice.\none two", "Say it twice.\nten"], padding=True, return_tensors="pt")
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(plain.generate(**given, **options), expected)


def test_a_complete_run_is_only_shown(tuned, capsys, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tuned / "cache"))
    prompt_tune.main(["--config", str(tuned / "run" / "run.yaml")])
    assert "is complete" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "has"), [("lora", {"lora"}), ("prompt", {"prompt"}), ("both", {"lora", "prompt"})])
def test_each_method_tunes_what_it_says(tmp_path, method, has):
    """A base of one's own, from a folder: no stage before it is adapted."""
    folder = tmp_path / "own"
    build_small_base(folder, [" ".join(WORDS), "Say it twice."], seed=0)
    prompt_tune.main(common(tmp_path, model_name_or_path=folder, method=method, sample_rows=0))
    exports = {path.name for path in (tmp_path / "run" / "exports").iterdir()}
    assert exports == has and not (tmp_path / "run" / "base").exists()
    config = json.loads((tmp_path / "run" / "adapted" / "adapter_config.json").read_text())
    assert (config["modules_to_save"] == ["soft_prompt"]) == ("prompt" in has)


class TestData:
    def test_of_a_table(self, tmp_path):
        path = tmp_path / "rows.tsv"
        rows = [f"correct\ttext {n}\tanswer {n}" for n in range(20)] + ["alone\t\tanswer"]
        path.write_text("\n".join(["what\tgiven\tout", *rows]))
        args = InstructionArguments(
            train_file=str(path), instruction_column="what", input_column="given", output_column="out"
        )
        data = load_instruction_data(args)
        found = {row["source"]: row["target"] for split in (data.train, data.validation, data.test) for row in split}
        assert found["correct\ntext 3"] == "answer 3" and found["alone"] == "answer" and len(found) == 21

    def test_without_instruction(self, tmp_path):
        path = write_rows(tmp_path / "rows.jsonl", 20, 0)
        data = load_instruction_data(InstructionArguments(train_file=str(path), instruction_column="none"))
        assert not any("Say" in source for source in data.train["source"])

    def test_one_source_with_several_targets_conflicts(self, tmp_path):
        path = write_rows(tmp_path / "rows.jsonl", 20, 0)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps(row) for row in [*rows, rows[0] | {"output": "other"}]))
        options = {"train_file": str(path), "validation_file": str(path), "test_file": str(path)}
        assert load_instruction_data(InstructionArguments(**options)).report["duplicates"]["conflicting"] == 1

    def test_other_targets_are_other_data(self, tmp_path):
        first = load_instruction_data(
            InstructionArguments(train_file=str(write_rows(tmp_path / "a.jsonl", 20, 0)))
        ).fingerprint
        other = write_rows(tmp_path / "b.jsonl", 20, 0, output="another")
        assert load_instruction_data(InstructionArguments(train_file=str(other))).fingerprint != first

    def test_of_the_embedded_corpus(self, tmp_path):
        import pyarrow as pa

        from tithe.recipes.instruction_data import api_instruction_tables

        texts = [f"Runs the Model {n} times, over again." for n in range(50)]
        more = ["runs the model 7 times over again", "The same.", f"Counts {' '.join(WORDS * 2)}."]
        tables = api_instruction_tables(pa.table({"text": texts + more}))
        found = {row["target"]: row["source"] for table in tables.values() for row in table.to_pylist()}
        assert sorted(found) == sorted(texts), "each once, none without keywords, none too long"
        assert found[texts[3]].splitlines()[1] == "runs model 3 times"

    def test_half_of_the_sources_are_whole_and_the_others_lack_up_to_half(self):
        texts = [" ".join(WORDS * 10)] * 400
        rows = with_words_dropped(texts, seed=0)
        assert rows["target"][:] == texts and with_words_dropped(texts, seed=0)["source"][:] == rows["source"][:]
        kept = np.array([len(source.split()) for source in rows["source"]]) / 100
        assert np.mean(kept == 1) == pytest.approx(0.5, abs=0.07)
        assert kept.min() > 0.3 and kept.mean() == pytest.approx(0.875, abs=0.02)

    def test_references_are_what_outputs_are_scored_against(self, tmp_path):
        path = write_rows(tmp_path / "rows.jsonl", 20, 0)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        test = tmp_path / "test.jsonl"
        more = [{"refs": ["first", " ", "second"]}, {"refs": []}, {"refs": ["alone"]}, {}]
        test.write_text("\n".join(json.dumps(row | extra) for row, extra in zip(rows, more, strict=False)))
        args = InstructionArguments(train_file=str(path), test_file=str(test), references_column="refs")
        data = load_instruction_data(args)
        expected = [["first", "second"], [rows[1]["output"]], ["alone"], [rows[3]["output"]]]
        assert references_of(data.test) == expected
        assert references_of(data.validation) == [[target] for target in data.validation["target"]]
        plain = load_instruction_data(InstructionArguments(train_file=str(path), test_file=str(test)))
        assert references_of(plain.test) == plain.test["target"][:] and plain.fingerprint != data.fingerprint

    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            ([1], r"test: 1 of 1 rows have references that are no texts"),
            (None, r"no split of rows.jsonl has a column 'refs'"),
        ],
    )
    def test_bad_references(self, tmp_path, cell, message):
        path = write_rows(tmp_path / "rows.jsonl", 20, 0)
        test = tmp_path / "test.jsonl"
        row = {"input": "a", "instruction": "b", "output": "c"} | ({} if cell is None else {"refs": cell})
        test.write_text(json.dumps(row))
        args = InstructionArguments(train_file=str(path), test_file=str(test), references_column="refs")
        with pytest.raises(DataError, match=message):
            load_instruction_data(args)


class TestBadInput:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"output": " "}, r"train: 1 of 5 rows have an empty target \(row 5\)"),
            ({"output": None}, "have an empty target"),
            ({"instruction": "", "input": ""}, "have neither instruction nor input"),
        ],
    )
    def test_rows(self, tmp_path, row, message):
        path = write_rows(tmp_path / "rows.jsonl", 4, 0)
        with open(path, "a") as file:
            file.write(json.dumps({"instruction": "a", "input": "b", "output": "c"} | row))
        with pytest.raises(DataError, match=message):
            load_instruction_data(InstructionArguments(train_file=str(path)))

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"method": "adapters"}, "`method` must be one of lora, prompt, both"),
            ({"lora_rank": 0}, "`method` both needs `lora_rank` above 0"),
            ({"language": "xx"}, "`language` must be one of"),
            ({"output_column": "input"}, "must be different columns"),
            ({"output_column": "ouput"}, "did you mean `--output_column output`?"),
            ({"model_name_or_path": "nowhere/at-all"}, "`model_name_or_path` nowhere/at-all"),
            ({"load_in_8bit": "true"}, "a quantised one cannot be"),
        ],
    )
    def test_flags(self, tmp_path, capsys, flags, message, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SystemExit, match="2"):
            prompt_tune.main(common(tmp_path, **flags))
        assert message in capsys.readouterr().err

    def test_a_model_that_is_no_encoder_decoder(self, tmp_path, capsys):
        from transformers import LlamaConfig, LlamaForCausalLM

        folder = tmp_path / "llama"
        build_small_base(folder, WORDS, seed=0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).save_pretrained(folder)
        with pytest.raises(SystemExit, match="2"):
            prompt_tune.main(common(tmp_path, model_name_or_path=folder))
        assert "could not be loaded as an encoder-decoder" in capsys.readouterr().err


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_base(tmp_path, bits, monkeypatch):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder = tmp_path / "own"
    build_small_base(folder, [" ".join(WORDS), "Say it twice."], seed=0)
    loaded = []

    def load_base(*args):
        loaded.append(seq2seq_model.load_base(*args))
        return loaded[-1]

    monkeypatch.setattr(prompt_stages, "load_base", load_base)
    flags = {"model_name_or_path": folder, f"load_in_{bits}bit": "true", "sample_rows": 1}
    prompt_tune.main(common(tmp_path, **flags))
    assert (tmp_path / "run" / "results.json").is_file()
    kind = bitsandbytes.nn.Linear8bitLt if bits == 8 else bitsandbytes.nn.Linear4bit
    (base,) = loaded
    assert sum(isinstance(module, kind) for module in base.modules()) > 20
