"""The expert-loop recipe from flags to report: every method, both heads for choices, a person through files."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from card_code import run_cards
from hub_rules import check_card
from transformers import AutoTokenizer, BertConfig, BertForMultipleChoice

from tithe.recipes import expert_loop
from tithe.recipes.choice_data import ChoiceCollator, LoopDataArguments, tokenise_choices
from tithe.recipes.loop_data import load_loop_data
from tithe.recipes.loop_results import label_cost
from tithe.recipes.readers import DataError
from tithe.recipes.small_model import train_tokenizer
from tithe.trainers.file_oracle import read_rows, save_label


WORDS = {
    "fruit": "apple pear plum cherry fig grape melon lemon",
    "metal": "iron zinc copper silver gold lead nickel cobalt",
    "river": "rhine danube volga loire elbe tagus ebro vistula",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))


def text_of(rng, label):
    words = [*rng.choice(WORDS[label].split(), 4), *rng.choice(" ".join(WORDS.values()).split(), 3)]
    return " ".join(rng.permutation(words))


def write_texts(path, count, seed):
    rng = np.random.default_rng(seed)
    labels = [str(rng.choice(list(WORDS))) for _ in range(count)]
    path.write_text("".join(json.dumps({"text": text_of(rng, label), "label": label}) + "\n" for label in labels))
    return path


def write_choices(path, count, seed, letters=False):
    """Which of four words is of the kind that the question names?"""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind, right = str(rng.choice(list(WORDS))), int(rng.integers(4))
        others = [word for other in WORDS if other != kind for word in WORDS[other].split()]
        choices = [str(word) for word in rng.choice(others, 4, replace=False)]
        choices[right] = str(rng.choice(WORDS[kind].split()))
        choices[number % 4] += " of course" * (number % 3)  # choices of one question differ in length
        rows.append(
            {"question": f"{number} a {kind}", "choices": choices, "answer": "ABCD"[right] if letters else right}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def common(tmp_path, write, **more):
    found = []
    for seed, (split, count) in enumerate({"train": 160, "validation": 30, "test": 40}.items()):
        found += [f"--{split}_file", str(write(tmp_path / f"{split}.jsonl", count, seed))]
    settings = {"output_dir": tmp_path / "run", "learning_rate": 1e-3, "use_cpu": "true", "disable_tqdm": "true"}
    settings |= {"initial_pool_size": 20, "query_size": 10, "max_iterations": 2, "epochs_per_iteration": 4}
    settings |= {"supervised_epochs": 4, "report_to": "none", "logging_steps": 5, **more}
    return [*found, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


TEACHERS = ["--teacher_models", "small", "small", "--teacher_rows", "60", "--teacher_epochs", "6"]


class Tables(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells = []

    def handle_data(self, data):
        self.cells.append(data.strip())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITHE_CACHE", str(folder / "cache"))
        expert_loop.main([*common(folder, write_texts, model_name_or_path="small"), "--method", "compare", *TEACHERS])
    return folder / "run"


def test_compare_trains_one_student_four_ways(compared):
    results = json.loads((compared / "results.json").read_text())
    rows = {row["model"]: row for row in results["models"]}
    assert list(rows) == ["teacher 0", "teacher 1", "supervised", "distillation", "expert loop", "random"]
    students = [rows[name] for name in ("supervised", "distillation", "expert loop", "random")]
    assert len({row["parameters"] for row in students}) == 1
    assert [row["labels"] for row in students] == [100, 100, 40, 40]
    assert rows["teacher 0"]["labels"] == 60
    assert list(results["curves"]["expert loop"]) == list(results["curves"]["random"]) == ["20", "30", "40"]
    assert results["metrics"]["test"]["accuracy"] == rows["expert loop"]["accuracy"]
    assert results["curves"]["expert loop"]["40"] == pytest.approx(rows["expert loop"]["accuracy"])


def test_compare_says_what_was_asked_and_what_teachers_said(compared):
    asked = [json.loads(line) for line in (compared / "asked.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in asked] == [0] * 20 + [1] * 10 + [2] * 10
    assert all(len(entry["teachers"]) == 2 and entry["label"] in WORDS for entry in asked)
    iterations = json.loads((compared / "results.json").read_text())["iterations"]
    counts = [(row["asked"], row["labels"], row["by column"]) for row in iterations]
    assert counts == [(20, 20, 20), (10, 30, 10), (10, 40, 10)]
    for row in iterations:
        part = [entry for entry in asked if entry["iteration"] == row["iteration"]]
        right = [teacher["label"] == entry["label"] for entry in part for teacher in entry["teachers"]]
        assert row["teachers right"] == pytest.approx(np.mean(right))
    assert len({entry["row"] for entry in asked}) == 40
    page = Tables()
    page.feed((compared / "report.html").read_text())
    assert asked[0]["text"] in page.cells and "fewer than random" in page.cells


def test_compare_leaves_all_files(compared):
    figures = {path.stem for path in (compared / "figures").glob("*.png")}
    assert {"accuracy_by_labels", "reliability_expert_loop", "reliability_supervised", "loss_random"} <= figures
    table = pq.read_table(compared / "predictions.parquet")
    assert table.num_rows == 30 + 40
    test = table.filter(pc.equal(table["split"], "test"))
    right = pc.mean(pc.equal(test["label"], test["prediction"])).as_py()
    assert right == pytest.approx(json.loads((compared / "results.json").read_text())["metrics"]["test"]["accuracy"])
    of_loop = ("expert_loop/model.safetensors", "expert_loop/rounds.jsonl", "expert_loop/answers.jsonl")
    for name in ("run.yaml", "README.md", "memory_usage.json", *of_loop):
        assert (compared / name).is_file(), name


def test_cards_tell_the_queries_and_their_code_runs(compared):
    cards = [compared / "README.md", compared / "expert_loop" / "README.md", compared / "supervised" / "README.md"]
    assert len(run_cards(*cards)) == 3
    data, text = check_card(cards[0]), cards[0].read_text()
    assert {"active-learning", "distillation"} <= set(data.tags) and "run/expert_loop" in text
    assert "## What was asked for" in text and "## Teachers" in text and "## Label cost" in text
    assert "| labels by column | 40 |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| accuracy |")]
    table = pq.read_table(compared / "predictions.parquet")
    shares = [np.mean(right) for right in _right_by_split(table)]
    assert line.count("[") == sum(share < 1 for share in shares), "of equal rows there is no interval"


def _right_by_split(table):
    rows = table.to_pylist()
    for split in ("validation", "test"):
        yield [row["label"] == row["prediction"] for row in rows if row["split"] == split]


def test_a_complete_run_is_only_shown(compared, capsys, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(compared.parent / "cache"))
    expert_loop.main(["--config", str(compared / "run.yaml")])
    assert "is complete" in capsys.readouterr().out


def test_label_cost_by_hand():
    class Supervised:
        metrics = {"test": {"accuracy": 0.8}}

    curves = {"expert loop": {100: 0.5, 200: 0.76, 300: 0.8}, "random": {100: 0.4, 200: 0.6, 300: 0.73}}
    rows = {row["share"]: row for row in label_cost(curves, Supervised())}
    assert rows[0.9]["expert loop"] == pytest.approx(100 + 100 * (0.72 - 0.5) / 0.26)
    assert rows[0.9]["random"] == pytest.approx(200 + 100 * 0.12 / 0.13)
    assert rows[0.95]["expert loop"] == pytest.approx(200) and rows[0.95]["random"] is None
    assert rows[0.95]["fewer"] is None and rows[0.9]["fewer"] == pytest.approx(
        1 - rows[0.9]["expert loop"] / rows[0.9]["random"]
    )


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_person_labels_through_files(tmp_path, capsys, ending):
    flags = [*common(tmp_path, write_texts, model_name_or_path="small"), "--oracle", "file", "--query_format", ending]
    truth = {}
    for line in (tmp_path / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        truth[row["text"]] = row["label"]
    for iteration in range(3):
        expert_loop.main(flags)
        path = tmp_path / "run" / "expert_loop" / "queries" / f"query-{iteration:03d}{ending}"
        said = capsys.readouterr().out.strip().splitlines()[-1]
        assert "labels wanted" in said and str(path) in said and not (tmp_path / "run" / "results.json").exists()
        for row in read_rows(path)[0]:
            save_label(path, row.row, truth[row.shown["text"]])
    expert_loop.main(flags)
    assert "report:" in capsys.readouterr().out
    asked = [json.loads(line) for line in (tmp_path / "run" / "asked.jsonl").read_text().splitlines()]
    assert len(asked) == 40 and {entry["by"] for entry in asked} == {"person"}
    assert all(truth[entry["text"]] == entry["label"] for entry in asked)


@pytest.fixture
def few_labels(tmp_path):
    """40 labelled rows, and a file of rows without labels: 60 new ones, and of train, test and itself one each."""
    flags = common(tmp_path, write_texts, model_name_or_path="small")
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    truth = {row["text"]: row["label"] for row in rows}
    train.write_text("\n".join(json.dumps(row) for row in rows[:40]))
    repeats = [rows[0], json.loads(test.read_text().splitlines()[0]), rows[40]]
    path = tmp_path / "more.csv"
    path.write_text("\n".join(["text", *(row["text"] for row in [*rows[40:100], *repeats])]))
    return [*flags, "--unlabelled_file", str(path)], truth


def test_a_few_labels_and_many_rows_without(tmp_path, capsys, few_labels):
    flags, truth = few_labels
    flags += ["--oracle", "file", "--method", "compare"]
    for iteration in (1, 2):
        expert_loop.main(flags)
        assert "labels wanted" in capsys.readouterr().out.strip().splitlines()[-1]
        path = tmp_path / "run" / "expert_loop" / "queries" / f"query-{iteration:03d}.jsonl"
        for row in read_rows(path)[0]:
            save_label(path, row.row, truth[row.shown["text"]])
    expert_loop.main(flags)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {row["model"]: row["labels"] for row in results["models"]} == {"supervised": 40, "expert loop": 60}
    assert results["data"]["pool"] == 40 + 60 and results["data"]["unlabelled_repeats"] == 3
    assert results["selection"]["by"] == {"given": 40, "person": 20}
    assert list(results["curves"]["expert loop"]) == ["40", "50", "60"]
    asked = [json.loads(line) for line in (tmp_path / "run" / "asked.jsonl").read_text().splitlines()]
    assert all(truth[entry["text"]] == entry["label"] for entry in asked)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "nobody knows the labels of `unlabelled_file`"),
        (["--oracle", "file", "--query_size", "31"], "has 60 rows that are not known yet; the loop may ask for 62"),
    ],
)
def test_rows_without_labels_need_somebody_to_ask(few_labels, capsys, more, message):
    with pytest.raises(SystemExit, match="2"):
        expert_loop.main([*few_labels[0], *more])
    assert message in capsys.readouterr().err


def test_questions_without_answers(tmp_path):
    paths = [write_choices(tmp_path / f"{name}.jsonl", 40, seed) for seed, name in enumerate(("train", "more"))]
    more = [json.loads(line) for line in paths[1].read_text().splitlines()]
    for row in more:
        del row["answer"]
    paths[1].write_text("\n".join(map(json.dumps, more)))
    args = of_file(paths[0])
    data = load_loop_data(replace(args, unlabelled_file=str(paths[1])))
    assert data.unlabelled["label"][:] == [-1] * 40 and data.unlabelled["choices"][:] == [
        row["choices"] for row in more
    ]
    assert data.fingerprint != load_loop_data(args).fingerprint
    paths[1].write_text(json.dumps(more[0] | {"choices": ["one", "two"]}))
    with pytest.raises(DataError, match=r"have \[2\] choices, those of train 4"):
        load_loop_data(replace(args, unlabelled_file=str(paths[1])))


def test_the_ensemble_labels_what_it_is_sure_of(tmp_path):
    flags = common(tmp_path, write_texts, model_name_or_path="small", oracle="ensemble", ensemble_threshold=0.5)
    expert_loop.main([*flags, *TEACHERS])
    asked = [json.loads(line) for line in (tmp_path / "run" / "asked.jsonl").read_text().splitlines()]
    assert "ensemble" in {entry["by"] for entry in asked}


@pytest.fixture
def chooser(tmp_path):
    folder = tmp_path / "chooser"
    texts = [f"a {kind} {words}" for kind, words in WORDS.items()]
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=0, **sizes)
    BertForMultipleChoice(config).save_pretrained(folder)
    return folder


CHOICES = {"text_column": "question", "label_column": "answer", "choices_column": "choices"}


def of_file(path):
    return LoopDataArguments(train_file=str(path), **CHOICES | {"choices_column": ["choices"]})


@pytest.mark.parametrize("head", ["multiple_choice", "classification"])
def test_questions_with_choices(tmp_path, chooser, head):
    model = chooser if head == "multiple_choice" else "small"
    flags = common(tmp_path, write_choices, model_name_or_path=model, choice_head=head, **CHOICES)
    expert_loop.main([*flags, "--method", "expert_loop"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["curves"]["expert loop"]) == 3 and results["data"]["pool"] == 160
    asked = [json.loads(line) for line in (tmp_path / "run" / "asked.jsonl").read_text().splitlines()]
    assert {entry["label"] for entry in asked} <= set("ABCD")


def test_teachers_of_another_tokenizer_read_choices(tmp_path, chooser):
    """The teacher's tokenizer lies with it, and knows the words in another order."""
    other = tmp_path / "teacher"
    tokenizer = train_tokenizer([f"{words} a {kind} of course" for kind, words in reversed(WORDS.items())])
    tokenizer.save_pretrained(other)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, initializer_range=0.2, **sizes)
    BertForMultipleChoice(config).save_pretrained(other)
    flags = common(tmp_path, write_choices, model_name_or_path=chooser, **CHOICES)
    expert_loop.main([*flags, "--teacher_models", str(other), "--teacher_rows", "60", "--teacher_epochs", "6"])
    asked = [json.loads(line) for line in (tmp_path / "run" / "asked.jsonl").read_text().splitlines()]
    teacher = BertForMultipleChoice.from_pretrained(tmp_path / "run" / "teacher_0").eval()
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    choices = {row["question"]: row["choices"] for row in rows}
    for entry in asked:
        inputs = tokenizer([entry["text"]] * 4, choices[entry["text"]], padding=True, return_tensors="pt")
        with torch.no_grad():
            said = teacher(**{name: values[None] for name, values in inputs.items()}).logits[0].softmax(-1)
        (told,) = entry["teachers"]
        assert told["label"] == "ABCD"[int(said.argmax())]
        assert told["probability"] == pytest.approx(float(said.max()), abs=1e-4)


def test_layers_freeze_under_a_choice_head(tmp_path, chooser):
    flags = common(tmp_path, write_choices, model_name_or_path=chooser, **CHOICES | {"supervised_epochs": 1})
    expert_loop.main([*flags, "--method", "supervised", "--freeze_embeddings", "true", "--freeze_layers", "1"])
    before, after = (
        BertForMultipleChoice.from_pretrained(folder).state_dict()
        for folder in (chooser, tmp_path / "run" / "supervised")
    )
    frozen = {name for name in before if "embeddings" in name or "layer.0." in name}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen


def test_choices_by_letter_and_number_are_the_same(tmp_path):
    found = []
    for letters in (False, True):
        path = write_choices(tmp_path / f"{letters}.jsonl", 40, 0, letters)
        found.append(load_loop_data(of_file(path)))
    assert found[0].fingerprint == found[1].fingerprint and found[0].id2label == dict(enumerate("ABCD"))
    row = found[0].train[0]
    assert row["text_pair"] == " ".join(f"{letter}. {c}" for letter, c in zip("ABCD", row["choices"], strict=True))


def test_a_long_question_is_cut_and_no_choice(tmp_path, chooser):
    path = tmp_path / "long.jsonl"
    rows = [{"question": "a fruit " * 50, "choices": ["apple", f"iron {n}"], "answer": n % 2} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_loop_data(of_file(path))
    tokenizer = AutoTokenizer.from_pretrained(chooser)
    encoded = tokenise_choices(data.train, tokenizer, 16)
    assert {len(ids) for row in encoded["input_ids"] for ids in row} == {16}
    assert "apple" in tokenizer.decode(encoded[0]["input_ids"][0])
    batch = ChoiceCollator(tokenizer)([encoded[0], encoded[1]])
    assert batch["input_ids"].shape == (2, 2, 16) and batch["labels"].tolist() == encoded["label"][:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, "name no choice"),
        ({"answer": -1}, "name no choice"),
        ({"choices": ["one"]}, "fewer than two choices"),
        ({"question": " "}, "empty question or choice"),
        ({"choices": ["one", "two", "three"], "answer": 0}, "must have the same number"),
    ],
)
def test_bad_choices_are_refused(tmp_path, change, message):
    path = write_choices(tmp_path / "train.jsonl", 30, 0)
    lines = path.read_text().splitlines()
    lines[7] = json.dumps(json.loads(lines[7]) | change)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        load_loop_data(of_file(path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "teach"], "`method` must be one of"),
        (["--method", "distillation"], "needs teachers"),
        (["--oracle", "ensemble"], "needs teachers"),
        (["--teacher_models", "small"], "say how many"),
        (["--initial_pool_size", "150", "--teacher_rows", "50", "--teacher_models", "small"], "lower one of them"),
        (["--query_strategy", "el2n"], "nobody has been asked for"),
        (["--teacher_checkpoints", "nowhere", "--method", "compare"], "teacher nowhere cannot be loaded"),
        (["--query_format", ".xlsx"], "`.jsonl` or `.csv`"),
        (["--learning_rate", "5e-5"], "starts from nothing"),
    ],
)
def test_bad_flags_are_refused_in_one_line(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        expert_loop.main([*common(tmp_path, write_texts, model_name_or_path="small"), *flags])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and error.startswith("error:") and message in error


def test_epochs_that_cannot_be_divided_are_refused_before_a_teacher_is_trained(tmp_path, capsys):
    flags = common(tmp_path, write_texts, model_name_or_path="small")
    place = flags.index("--epochs_per_iteration")
    with pytest.raises(SystemExit):
        expert_loop.main([*flags[:place], *flags[place + 2 :], *TEACHERS, "--num_train_epochs", "4"])
    assert "4 cannot be divided evenly over 3 iterations: set `epochs_per_iteration`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
