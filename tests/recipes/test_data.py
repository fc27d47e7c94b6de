"""Classification data from every format and place, and every way in which they can be wrong."""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tithe.recipes.arguments import parse_arguments, resolved_arguments, save_run_yaml
from tithe.recipes.data import ClassificationData, DataArguments, DataError, load_classification_data


ROWS = [{"text": f"text number {n}", "label": ["no", "yes", "maybe"][n % 3]} for n in range(60)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def memory() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


def write_jsonl(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_delimited(path: Path, rows: list[dict], delimiter: str = ",", encoding: str = "utf-8") -> str:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_arrow(path: Path, rows: list[dict], new: Callable = pa.ipc.new_stream) -> str:
    table = pa.Table.from_pylist(rows)
    with new(str(path), table.schema) as writer:
        writer.write_table(table)
    return str(path)


def write(path: Path, rows: list[dict]) -> str:
    suffix = path.suffix
    if suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif suffix in (".csv", ".tsv"):
        write_delimited(path, rows, "," if suffix == ".csv" else "\t")
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".arrow":
        write_arrow(path, rows)
    else:
        write_jsonl(path, rows)
    return str(path)


def load(train_file: str | None = None, **kwargs: Any) -> ClassificationData:
    return load_classification_data(DataArguments(train_file=train_file, **kwargs))


def error_of(train_file: str | None = None, kind: type[Exception] = DataError, **kwargs: Any) -> str:
    with pytest.raises(kind) as caught:
        load(train_file, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pairs(dataset: datasets.Dataset, data: ClassificationData) -> list[tuple[str, str]]:
    return [(row["text"], data.id2label[row["label"]]) for row in dataset]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow"])
def test_every_format_gives_the_same_data(tmp_path: Path, suffix: str) -> None:
    files = {
        f"{split}_file": write(tmp_path / f"{split}{suffix}", rows)
        for split, rows in {"train": ROWS[:40], "validation": ROWS[40:50], "test": ROWS[50:]}.items()
    }
    data = load(**files)
    assert pairs(data.train, data) == [(row["text"], row["label"]) for row in ROWS[:40]]
    assert pairs(data.test, data) == [(row["text"], row["label"]) for row in ROWS[50:]]
    assert data.id2label == {0: "maybe", 1: "no", 2: "yes"}
    assert data.train.column_names == ["text", "label"]
    assert data.report["rows"] == {"train": 40, "validation": 10, "test": 10}
    assert data.report["class_counts"]["train"] == {"maybe": 13, "no": 14, "yes": 13}
    reference = write_jsonl(tmp_path / "reference.jsonl", ROWS[:40])
    files["train_file"] = reference
    assert load(**files).fingerprint == data.fingerprint


def test_arrow_files_of_both_kinds_and_gzip(tmp_path: Path) -> None:
    expected = load(write_jsonl(tmp_path / "a.jsonl", ROWS)).fingerprint
    assert load(write_arrow(tmp_path / "b.arrow", ROWS, pa.ipc.new_file)).fingerprint == expected
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert load(str(tmp_path / "c.jsonl.gz")).fingerprint == expected


def test_text_of_a_csv_stays_text(tmp_path: Path) -> None:
    texts = ["NA", "null", "None", "007", "1.50", "2020-01-01", "true", 'two\nlines, a "quote"', "  padded ", "#N/A"]
    rows = [{"text": text, "label": label} for label in ("NA", "None") for text in (texts if label == "NA" else ["x"])]
    data = load(write_delimited(tmp_path / "t.csv", rows, encoding="utf-8-sig"), test_file=str(tmp_path / "t.csv"))
    assert [text for text, label in pairs(data.test, data) if label == "NA"] == texts
    assert data.id2label == {0: "NA", 1: "None"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path, suffix: str) -> None:
    path = Path(write(tmp_path / f"t{suffix}", ROWS))
    plain = load(str(path)).fingerprint
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(str(path)).fingerprint == plain


def test_dates_and_numbers_in_json_text_stay_text(tmp_path: Path) -> None:
    rows = [{"text": "2020-01-01T00:00:00", "label": 0}, {"text": "12", "label": 1}]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    data = load(path, validation_file=path, test_file=path)
    assert data.train["text"][:] == ["2020-01-01T00:00:00", "12"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, -1], ["-1", "9", "10"]),
        (["b", "B", "ä"], ["B", "b", "ä"]),
        ([True, False], ["false", "true"]),
        ([2.0, 10.0], ["2", "10"]),
        (["10", "9"], ["10", "9"]),
    ],
)
def test_order_of_labels(tmp_path: Path, labels: list, names: list[str]) -> None:
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    data = load(path, validation_file=path, test_file=path)
    assert list(data.id2label.values()) == names and list(data.id2label) == list(range(len(names)))
    wanted = [str(label).lower() if isinstance(label, bool) else str(label).removesuffix(".0") for label in labels]
    assert [data.id2label[i] for i in data.train["label"][:]] == wanted


def test_numeric_labels_of_a_csv_are_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 11} for n in range(33)]
    data = load(write(tmp_path / "t.csv", rows), test_file=write(tmp_path / "t.jsonl", rows))
    assert data.id2label == {n: str(n) for n in range(11)}
    padded = [{"text": f"t{n}", "label": ["01", "2"][n % 2]} for n in range(10)]
    assert load(write(tmp_path / "p.csv", padded)).id2label == {0: "01", 1: "2"}


def test_text_pairs(tmp_path: Path) -> None:
    rows = [{"a": "same", "b": f"pair {n}", "label": n % 2, "other": 1} for n in range(20)]
    data = load(write_jsonl(tmp_path / "t.jsonl", rows), text_column="a", text_pair_column="b")
    assert data.train.column_names == ["text", "text_pair", "label"]
    assert data.train[0]["text"] == "same" and data.train[0]["text_pair"].startswith("pair ")
    assert data.report["duplicates"]["train"] == 0  # the pair counts as the text


def test_folder_of_files_and_shards(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[:20]), folder / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[20:40]), folder / "train-00001-of-00002.parquet")
    write_jsonl(folder / "dev.jsonl", ROWS[40:50])
    write(folder / "test.csv", ROWS[50:])
    (folder / "README.md").write_text("a set")
    data = load(dataset=str(folder))
    assert data.name == "set"
    assert data.report["rows"] == {"train": 40, "validation": 10, "test": 10} and data.report["made"] == []
    assert data.train["text"][:] == [row["text"] for row in ROWS[:40]]
    write_jsonl(folder / "valid.jsonl", ROWS[40:50])
    assert "dev and valid may all be validation" in error_of(dataset=str(folder))
    assert load(dataset=str(folder), validation_split="dev").fingerprint == data.fingerprint
    write(folder / "test.tsv", ROWS[50:])
    assert "test.csv and test.tsv" in error_of(dataset=str(folder))


def test_folder_without_train(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert "no split called train; found none" in error_of(dataset=str(folder))
    write_jsonl(folder / "all.jsonl", ROWS)
    assert "found all" in error_of(dataset=str(folder)) and "`--train_split`" in error_of(dataset=str(folder))
    assert len(load(dataset=str(folder), train_split="all").train) == 48


def test_saved_dataset_keeps_the_order_of_its_class_label(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "b", "a"])}
    )
    saved = datasets.Dataset.from_list([{"text": f"t{n}", "label": n % 2} for n in range(20)], features=features)
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "dict"))
    saved.save_to_disk(str(tmp_path / "single"))
    saved.to_parquet(str(tmp_path / "t.parquet"))
    for data in (
        load(dataset=str(tmp_path / "dict")),
        load(dataset=str(tmp_path / "single")),
        load(str(tmp_path / "t.parquet")),
    ):
        assert data.id2label == {0: "z", 1: "b", 2: "a"}
        assert data.report["class_counts"]["train"]["a"] == 0


def test_hub_set_and_its_unlabelled_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})
    splits = {"train": (0, 40, None), "dev": (40, 50, None), "test": (50, 60, -1)}
    loaded = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(
                [{"text": f"t{n}", "label": n % 2 if label is None else label} for n in range(start, end)], features
            )
            for split, (start, end, label) in splits.items()
        }
    )
    calls = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: calls.append((args, kwargs)) or loaded)
    message = error_of(dataset="org/set")
    assert "no row of test has a label" in message and "`--test_split none`" in message
    data = load(dataset="org/set", dataset_config="en", dataset_revision="v1", test_split="none")
    assert calls[-1] == (("org/set", "en"), {"revision": "v1"})
    assert data.report["rows"] == {"train": 36, "validation": 10, "test": 4} and data.report["made"] == ["test"]


def test_unreachable_hub_says_what_was_tried() -> None:
    message = error_of(dataset="org/no-such-set")
    assert "'org/no-such-set'" in message and "hub" in message and "`--train_file`" in message


def test_url_of_an_fsspec_file_system(tmp_path: Path, memory: Any) -> None:
    local = write_jsonl(tmp_path / "train.jsonl", ROWS)
    memory.pipe("/set/train.jsonl", Path(local).read_bytes())
    expected = load(local).fingerprint
    assert load("memory://set/train.jsonl").fingerprint == expected
    assert load(dataset="memory://set").fingerprint == expected
    assert load("memory://set/train.jsonl", storage_options={"use_listings_cache": False}).fingerprint == expected
    assert "memory://set/x.jsonl: no such file" in error_of("memory://set/x.jsonl", FileNotFoundError)


def test_storage_options_reach_the_file_system(tmp_path: Path) -> None:
    local = write_jsonl(tmp_path / "train.jsonl", ROWS)
    data = load("dir://train.jsonl", storage_options={"path": str(tmp_path), "target_protocol": "file"})
    assert data.fingerprint == load(local).fingerprint
    (tmp_path / "empty").mkdir()
    elsewhere = {"path": str(tmp_path / "empty"), "target_protocol": "file"}
    assert "no such file" in error_of("dir://train.jsonl", FileNotFoundError, storage_options=elsewhere)


def test_missing_s3fs_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # there if it was used before
    for kwargs in ({"train_file": "s3://bucket/train.csv"}, {"dataset": "s3://bucket/set"}):
        assert 'pip install "tithe[s3]"' in error_of(kind=ImportError, **kwargs)


def test_unknown_protocol() -> None:
    assert "gopher://x/train.csv" in error_of("gopher://x/train.csv")


def test_data_are_memory_mapped_and_fingerprints_follow_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", ROWS)
    first = load(path)
    assert first.train.cache_files and first.train.cache_files[0]["filename"].startswith(str(tmp_path / "cache"))
    again = load(path)
    assert again.train._fingerprint == first.train._fingerprint  # so that what is mapped over it is cached, too
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "elsewhere"))
    assert load(path).fingerprint == first.fingerprint
    changed = [{**ROWS[0], "text": "text number zero"}, *ROWS[1:]]
    assert load(write_jsonl(tmp_path / "t.jsonl", changed)).fingerprint != first.fingerprint


def test_damaged_cache_is_written_anew(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", ROWS)
    first = load(path)
    texts = first.train["text"][:]
    for cached in (tmp_path / "cache").rglob("*.arrow"):
        cached.unlink()
        cached.write_bytes(b"damaged")
    assert load(path).train["text"][:] == texts


def test_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "file" / "cache"))
    assert "`TITHE_CACHE`" in error_of(write_jsonl(tmp_path / "t.jsonl", ROWS), ValueError)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow"])
def test_missing_column_lists_those_found_and_guesses(tmp_path: Path, suffix: str) -> None:
    rows = [{"Text": "a", "labels": 1, "other": "x"}, {"Text": "b", "labels": 0, "other": "y"}]
    path = write(tmp_path / f"t{suffix}", rows)
    message = error_of(path)
    assert path in message and "no column 'text' (`text_column`)" in message
    assert "'Text', 'labels', 'other'" in message and "`--text_column Text`" in message
    assert "`--label_column labels`" in error_of(path, text_column="Text")
    assert "name one of them with `--text_column`" in error_of(path, text_column="zzz")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet", ".arrow"])
def test_file_that_is_not_what_it_is_called(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    for content in (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"text,label\na,1\nb,0\n", b'{"text": "a", "label": 1}\n'):
        if (suffix == ".csv" and content[:4] == b"text") or (suffix in (".json", ".jsonl") and content[:1] == b"{"):
            continue
        path.write_bytes(content)
        message = error_of(str(path))
        assert str(path) in message and ("is not" in message)


def test_broken_lines_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": }\n')
    assert "line 2" in error_of(str(path))
    path.write_text('{"text": "a", "label": 1}\n"b"\n')
    assert "line 2 is not an object" in error_of(str(path))
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,1\nb,0,extra\n")
    assert str(path) in error_of(str(path)) and "Expected 2 columns, got 3" in error_of(str(path))


def test_file_not_found_and_unknown_extension(tmp_path: Path) -> None:
    assert "no such file" in error_of(str(tmp_path / "t.csv"), FileNotFoundError)
    assert "no such folder or file" in error_of(dataset="./no/such/folder", kind=FileNotFoundError)
    message = error_of(str(tmp_path / "t.xlsx"))
    assert "'.xlsx'" in message and ".jsonl" in message and ".parquet" in message
    assert "is a folder" in error_of(str(Path(tmp_path, "x.csv").mkdir() or tmp_path / "x.csv"))


def test_empty_text_names_rows_split_and_count(tmp_path: Path) -> None:
    rows = [*ROWS[:3], {"text": " \n", "label": "no"}, {"text": None, "label": "no"}, {"text": 5, "label": "no"}]
    message = error_of(write_jsonl(tmp_path / "t.jsonl", rows))
    assert "'text' of train: 3 of 6 cells are empty or not text (rows 4, 5 and 6)" in message
    validation = write_jsonl(tmp_path / "v.jsonl", [*ROWS[:3], {"label": "no"}])
    assert "validation: 1 of 4" in error_of(write_jsonl(tmp_path / "t.jsonl", ROWS), validation_file=validation)
    pq.write_table(pa.table({"text": [1, 2], "label": [0, 1]}), tmp_path / "t.parquet")
    assert "holds int64, not text" in error_of(str(tmp_path / "t.parquet"))


def test_empty_split(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("text,label\n")
    (tmp_path / "e.jsonl").write_text("")
    train = write_jsonl(tmp_path / "t.jsonl", ROWS)
    assert "train is empty" in error_of(str(tmp_path / "e.csv"))
    assert "test is empty" in error_of(train, test_file=str(tmp_path / "e.jsonl"))


def test_label_that_train_lacks(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", ROWS)
    test = write_jsonl(tmp_path / "e.jsonl", [*ROWS[:3], *[{"text": f"x{n}", "label": "never"} for n in range(2)]])
    assert "labels of test that train does not have: 'never' (2 rows)" in error_of(train, test_file=test)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", None, "b", ""], "2 of 4 labels of train are missing (rows 2 and 4)"),
        ([1, None, 0, 1], "1 of 4 labels of train are missing (row 2)"),
        (["a", "a", "a"], "all labels of train are 'a'"),
        ([0.5, 1.5], "numbers with fractions"),
        (["a", 1], "mixes int and str"),
        ([["a"], ["b"]], "they must be text, whole numbers"),
        ([None, None], "no row of train has a label"),
    ],
)
def test_unusable_labels(tmp_path: Path, labels: list, words: str) -> None:
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    assert words in error_of(write_jsonl(tmp_path / "t.jsonl", rows))


def test_labels_of_different_kinds(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", ROWS)
    test = write_jsonl(tmp_path / "e.jsonl", [{"text": "a", "label": 1}])
    assert "labels are text in train but whole numbers in test" in error_of(train, test_file=test)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"dataset": "a", "train_file": "b.csv"}, "not both"),
        ({"test_file": "b.csv"}, "`test_file` needs `train_file`"),
        ({"test_fraction": 1.0}, "`test_fraction`"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "leave nothing to train on"),
        ({"max_eval_samples": 0}, "`max_eval_samples` must be at least 1, got 0"),
        ({"split_seed": -1}, "`split_seed`"),
        ({"label_column": "text"}, "three different columns"),
    ],
)
def test_arguments_that_contradict_each_other(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DataArguments(**kwargs)


def test_data_arguments_round_trip(tmp_path: Path) -> None:
    argv = ["--train_file", "s3://b/t.csv", "--storage_options", '{"anon": true}', "--max_train_samples", "5"]
    first = parse_arguments([DataArguments], argv)
    save_run_yaml(tmp_path / "run.yaml", *first)
    second = parse_arguments([DataArguments], ["--config", str(tmp_path / "run.yaml")])
    assert second == first and resolved_arguments(*second)["storage_options"] == {"anon": True}
