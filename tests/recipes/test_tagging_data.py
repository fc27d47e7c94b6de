"""Tagged sentences from every place and in every scheme, their splits, and every way in which they can be wrong."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tithe.recipes.tagging_data import DataError, TaggingArguments, TaggingData, load_tagging_data


NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def sentences(count: int = 40) -> list[dict[str, Any]]:
    """Every fourth has no entity."""
    patterns = [
        (["Ann", "Lee", "met"], ["B-PER", "I-PER", "O"]),
        (["Bob", "in", "New", "York"], ["B-PER", "O", "B-LOC", "I-LOC"]),
        (["Oslo", "Bergen"], ["B-LOC", "B-LOC"]),
        (["nothing", "here"], ["O", "O"]),
    ]
    rows = [patterns[n % 4] for n in range(count)]
    return [{"tokens": [*words, str(n)], "ner_tags": [*tags, "O"]} for n, (words, tags) in enumerate(rows)]


ROWS = sentences()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write_jsonl(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_conll(path: Path, rows: list[dict]) -> str:
    lines = ["".join(f"{w}\t{t}\n" for w, t in zip(r["tokens"], r["ner_tags"], strict=True)) for r in rows]
    path.write_text("\n".join(lines))
    return str(path)


def load(train_file: str | None = None, **kwargs: Any) -> TaggingData:
    return load_tagging_data(TaggingArguments(train_file=train_file, **kwargs))


def error_of(tmp_path: Path, rows: list[dict], kind: type[Exception] = DataError, **kwargs: Any) -> str:
    with pytest.raises(kind) as caught:
        load(write_jsonl(tmp_path / "train.jsonl", rows), **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pairs(data: TaggingData, split: str = "train") -> list[tuple[list[str], list[str]]]:
    return [(row["words"], [data.names[k] for k in row["labels"]]) for row in data.splits[split]]


def test_every_format_gives_the_same_data(tmp_path: Path) -> None:
    ids = [{"tokens": r["tokens"], "ner_tags": [NAMES.index(t) for t in r["ner_tags"]]} for r in ROWS]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    (tmp_path / "d.json").write_text(json.dumps(ROWS))
    found = [
        load(write_conll(tmp_path / "a.conll", ROWS)),
        load(write_conll(tmp_path / "a.tsv", ROWS)),
        load(write_jsonl(tmp_path / "b.jsonl", ROWS)),
        load(str(tmp_path / "c.parquet")),
        load(str(tmp_path / "d.json")),
        load(write_jsonl(tmp_path / "e.jsonl", ids), tag_names=NAMES),
    ]
    assert len({data.fingerprint for data in found}) == 1
    data = found[0]
    assert data.names == NAMES and data.id2label[4] == "I-PER"
    assert data.train.column_names == ["words", "labels"]
    assert data.train.features["labels"].feature.names == NAMES
    rows = {tuple(r["tokens"]): r["ner_tags"] for r in ROWS}
    for split in ("train", "validation", "test"):
        assert all(rows.pop(tuple(words)) == labels for words, labels in pairs(data, split))
    assert rows == {}
    assert data.report["rows"] == {"train": 32, "validation": 4, "test": 4}
    assert data.report["made"] == ["validation", "test"]
    assert data.report["words"]["train"] == sum(map(len, data.train["words"]))
    wanted = {kind: sum(t == f"B-{kind}" for _, tags in pairs(data) for t in tags) for kind in ("LOC", "PER")}
    assert data.report["entities"]["train"] == wanted


def test_a_folder_of_conll_files_and_its_splits(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    for name, rows in {"train": ROWS[:30], "dev": ROWS[30:35], "test": ROWS[35:]}.items():
        write_conll(folder / f"{name}.conll", rows)
    data = load(dataset=str(folder))
    assert data.name == "people" and data.report["made"] == []
    assert pairs(data, "validation") == [(r["tokens"], r["ner_tags"]) for r in ROWS[30:35]]


def test_a_saved_data_set_with_class_labels_keeps_their_order(tmp_path: Path) -> None:
    # as `lhoestq/conll2003` has them
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    feature = datasets.List(datasets.ClassLabel(names=names))
    features = datasets.Features({"id": datasets.Value("string"), "tokens": datasets.List(datasets.Value("string"))})
    columns = {
        "id": [str(n) for n in range(len(ROWS))],
        "tokens": [r["tokens"] for r in ROWS],
        "ner_tags": [[names.index(t) for t in r["ner_tags"]] for r in ROWS],
    }
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features({**features, "ner_tags": feature}))
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(str(tmp_path / "saved"))
    data = load(dataset=str(tmp_path / "saved"))
    assert data.names == names
    assert pairs(data, "test") == [(r["tokens"], r["ner_tags"]) for r in ROWS]
    assert data.report["duplicates"]["train_test"] == data.report["rows"]["train"]
    assert data.report["entities"]["train"]["MISC"] == 0


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("IOB1", ["I-PER", "I-PER", "B-PER", "O", "I-LOC"], ["B-PER", "I-PER", "B-PER", "O", "B-LOC"]),
        ("IOBES", ["B-PER", "E-PER", "S-PER", "O", "S-LOC"], ["B-PER", "I-PER", "B-PER", "O", "B-LOC"]),
        ("IOBES", ["B-PER", "L-PER", "U-PER", "O", "U-LOC"], ["B-PER", "I-PER", "B-PER", "O", "B-LOC"]),
    ],
)
def test_other_schemes_are_converted_and_counted(
    tmp_path: Path, scheme: str, tags: list[str], expected: list[str]
) -> None:
    rows = [{"tokens": [*"abcd", str(n)], "ner_tags": tags} for n in range(20)]
    data = load(write_jsonl(tmp_path / "t.jsonl", rows))
    assert data.report["scheme"] == scheme
    assert data.report["converted"] == 20 * sum(a != b for a, b in zip(tags, expected, strict=True))
    assert pairs(data)[0][1] == expected
    assert data.names == NAMES
    assert data.report["misaligned"]["train"] == 0


def test_misaligned_labels_are_kept_and_reported(tmp_path: Path) -> None:
    rows = [{"tokens": ["stray", "word"], "ner_tags": ["I-PER", "O"]}, *ROWS]
    data = load(write_jsonl(tmp_path / "t.jsonl", rows), validation_file=write_jsonl(tmp_path / "v.jsonl", ROWS))
    assert data.report["misaligned"] == {"train": 1, "validation": 0}
    assert "row 0: I-PER after nothing" in data.report["misaligned_examples"]["train"]
    assert (["stray", "word"], ["I-PER", "O"]) in pairs(data) + pairs(data, "test")


def test_each_type_gets_its_i(tmp_path: Path) -> None:
    rows = [{"tokens": ["Oslo", str(n)], "ner_tags": ["B-LOC", "O"]} for n in range(20)]
    assert load(write_jsonl(tmp_path / "t.jsonl", rows)).names == ["O", "B-LOC", "I-LOC"]
    named = load(write_jsonl(tmp_path / "u.jsonl", rows), tag_names=["B-LOC", "O"])
    assert named.names == ["B-LOC", "O", "I-LOC"]


def test_made_splits_are_deterministic_stratified_and_disjoint(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", sentences(200) + sentences(200)[:30])
    data = load(path)
    texts = {split: {tuple(words) for words, _ in pairs(data, split)} for split in data.splits}
    assert not texts["train"] & texts["validation"] and not texts["train"] & texts["test"]
    for split in ("validation", "test"):
        empty = [set(labels) == {"O"} for _, labels in pairs(data, split)]
        assert np.mean(empty) == pytest.approx(0.25, abs=0.06)
    assert load(path).fingerprint == data.fingerprint != load(path, split_seed=1).fingerprint
    assert data.report["duplicates"]["train"] > 0
    distinct = load(path, deduplicate=True)
    assert distinct.report["duplicates"]["removed"] == data.report["duplicates"]["train"]
    small = load(path, max_train_samples=40, max_eval_samples=4)
    assert small.report["rows"] == {"train": 40, "validation": 4, "test": 4}


def test_the_fingerprint_is_that_of_words_labels_and_names(tmp_path: Path) -> None:
    swapped = {"B-PER": "B-LOC", "I-PER": "I-LOC"}
    labels = [*ROWS[1:], {**ROWS[0], "ner_tags": [swapped.get(tag, tag) for tag in ROWS[0]["ner_tags"]]}]
    variants = [
        load(write_jsonl(tmp_path / "a.jsonl", [*ROWS[1:], ROWS[0]])),
        load(write_jsonl(tmp_path / "b.jsonl", labels)),
        load(write_jsonl(tmp_path / "c.jsonl", [*ROWS[1:], {**ROWS[0], "tokens": ["Ann", "Li", "met", "0"]}])),
        load(write_jsonl(tmp_path / "d.jsonl", [*ROWS[1:], ROWS[0]]), tag_names=NAMES[::-1]),
    ]
    assert variants[0].report["entities"] != variants[1].report["entities"]
    assert len({data.fingerprint for data in variants}) == 4


def test_sentences_without_words_are_left_out_and_counted(tmp_path: Path) -> None:
    data = load(write_jsonl(tmp_path / "t.jsonl", [{"tokens": [], "ner_tags": []}, *ROWS]))
    assert data.report["empty"] == {"train": 1} and sum(data.report["rows"].values()) == len(ROWS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "row 41 of train has 2 words but 1 labels"),
        ({"tokens": ["a"], "ner_tags": ["PERSON"]}, "row 41 of train: 'PERSON' is no label of a span"),
        ({"tokens": [" "], "ner_tags": ["O"]}, "row 41 of train has a word that is blank"),
        ({"tokens": [None], "ner_tags": ["O"]}, "row 41 of train has a word that is missing"),
        ({"tokens": ["a"], "ner_tags": [None]}, "row 41 of train has the label None"),
        ({"tokens": ["a"]}, "row 41 of train has no labels"),
        ({"tokens": ["a"], "ner_tags": [3]}, "column 'ner_tags' cannot be read"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, row: dict, message: str) -> None:
    assert message in error_of(tmp_path, [*ROWS, row])


def test_broken_sets(tmp_path: Path) -> None:
    numbers = [{"tokens": ["a"], "ner_tags": [n % 3]} for n in range(20)]
    assert "say what it means: `--tag_names" in error_of(tmp_path, numbers)
    assert "label 2, which is no position in the 2" in error_of(tmp_path, numbers, tag_names=["O", "B-X"])
    assert "no entity" in error_of(tmp_path, [{"tokens": ["a"], "ner_tags": ["O"]}])
    assert "is empty" in error_of(tmp_path, [{"tokens": [], "ner_tags": []}])
    assert "holds string, not lists" in error_of(tmp_path, [{"tokens": "a b", "ner_tags": ["O", "O"]}])
    other = write_jsonl(tmp_path / "v.jsonl", [{"tokens": ["a"], "ner_tags": ["B-ORG"]}])
    assert "entities of validation are of types that train does not have: ORG" in error_of(
        tmp_path, ROWS, validation_file=other
    )


def test_columns_that_are_missing_are_listed_with_a_flag(tmp_path: Path) -> None:
    message = error_of(tmp_path, [{"words": ["a"], "ner_tag": ["O"]}])
    assert "no column 'tokens' (`words_column`); found 'words', 'ner_tag'" in message
    message = error_of(tmp_path, [{"words": ["a"], "ner_tag": ["O"]}], words_column="words")
    assert "no column 'ner_tags' (`label_column`)" in message and "did you mean `--label_column ner_tag`" in message


def test_tables_of_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("tokens,ner_tags\na,O\n")
    with pytest.raises(DataError, match="unknown extension '.csv' for tagged sentences; supported are .json.*.conll"):
        load(str(tmp_path / "t.csv"))


def test_arguments_are_checked() -> None:
    for wrong, message in [
        ({"label_column": "tokens"}, "must be two columns"),
        ({"label_field": 0}, "must be two fields"),
        ({"tag_names": ["O", "O"]}, "has a name twice"),
        ({"validation_file": "x"}, "needs `train_file`"),
    ]:
        with pytest.raises(ValueError, match=message):
            TaggingArguments(**wrong)
