"""CoNLL files of every kind in use, and every way in which they can be wrong."""

import gzip
from pathlib import Path

import fsspec
import pytest

from tithe.recipes.conll import read_conll
from tithe.recipes.readers import Columns, DataError


def read(tmp_path: Path, text: str | bytes, fields: tuple[int, int] = (0, -1), name: str = "train.conll") -> list:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = read_conll(str(path), Columns([], "ner", "tokens", fields))
    assert table.column_names == ["tokens", "ner"]
    return [
        list(zip(*row, strict=True)) for row in zip(table["tokens"].to_pylist(), table["ner"].to_pylist(), strict=True)
    ]


ANN = [("Ann", "B-PER"), ("sings", "O")]


@pytest.mark.parametrize(
    "text",
    [
        "Ann B-PER\nsings O\n\nIn O\nParis B-LOC\n",
        "Ann\tB-PER\nsings\tO\n\n\n \t\nIn\tO\nParis\tB-LOC\n\n",
        "\ufeffAnn B-PER\r\nsings O\r\n\r\nIn O\r\nParis B-LOC",
        "\n\n-DOCSTART- O\n\nAnn B-PER\nsings O\n-DOCSTART- O\nIn O\nParis B-LOC\n",
        "# sent_id = 1\n# text = Ann B-PER\nAnn B-PER\nsings O\n\n# newdoc\nIn O\nParis B-LOC\n",
    ],
)
def test_sentences(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == [ANN, [("In", "O"), ("Paris", "B-LOC")]]


def test_fields_are_chosen(tmp_path: Path) -> None:
    conll2003 = "-DOCSTART- -X- -X- O\n\nAnn NNP B-NP B-PER\nsings VBZ B-VP O\n"
    assert read(tmp_path, conll2003) == [ANN]
    assert read(tmp_path, conll2003, (0, 2)) == [[("Ann", "B-NP"), ("sings", "B-VP")]]
    uner = "# sent_id = 1\n# text = Ann sings\n1\tAnn\tB-PER\t-\t-\n2-3\tsings\t_\t-\t-\n2\tsings\tO\t-\t-\n"
    assert read(tmp_path, uner, (1, 2)) == [ANN]


def test_words_may_look_like_comments_or_hold_blanks(tmp_path: Path) -> None:
    assert read(tmp_path, "#\tO\n#nlp\tB-product\n") == [[("#", "O"), ("#nlp", "B-product")]]
    assert read(tmp_path, "# O\n#1 O\n") == [[("#", "O"), ("#1", "O")]]
    assert read(tmp_path, "New York\tB-LOC\n") == [[("New York", "B-LOC")]]
    # what other programs take for the end of a line
    assert read(tmp_path, "a\u2028b\x85c O\nd\xa0e O\n") == [[("a\u2028b\x85c", "O"), ("d\xa0e", "O")]]


def test_compressed_files(tmp_path: Path) -> None:
    assert read(tmp_path, gzip.compress(b"Ann B-PER\nsings O\n"), name="train.txt.gz") == [ANN]


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", (0, -1), "is empty"),
        ("# only comments\n\n", (0, -1), "is empty"),
        ("Ann B-PER\nsings\n", (0, -1), "line 2 has 1 fields, the lines before 2: 'sings'"),
        ("Ann\tB-PER\nNew York O\n", (0, -1), "line 2 has 1 fields, the lines before 2"),
        ("Ann\tB-PER\n\tO\n", (0, -1), "line 2 has an empty word"),
        ("Ann\tB-PER\nsings\t \n", (0, -1), "line 2 has an empty label"),
        ("Ann\n", (0, -1), "line 1 has 1 field, so none is `word_field` 0"),
        ("\nAnn O\n", (0, 2), "line 2 has 2 fields, so none is `label_field` 2"),
        (b"Ann\xe9 O\n", (0, -1), "is not CoNLL in UTF-8: it has the byte 0xe9"),
    ],
)
def test_broken_files(tmp_path: Path, text: str | bytes, fields: tuple[int, int], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text, fields)
    assert message in str(caught.value) and "train.conll" in str(caught.value)


def test_files_behind_a_url() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/train.conll", b"Ann B-PER\nsings O\n")
    table = read_conll("memory://bucket/train.conll", Columns([], "labels", "words"))
    filesystem.rm("/bucket", recursive=True)
    assert table.to_pylist() == [{"words": ["Ann", "sings"], "labels": ["B-PER", "O"]}]


def test_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_conll("nowhere.conll", Columns([], "labels", "words"))
