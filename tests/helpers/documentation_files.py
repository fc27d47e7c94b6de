"""The files that the documentation names, and a small embedded corpus, so that each run of a page takes seconds.

To give pages another file, add a function that makes its rows, and a line to `FILES`.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tithe.recipes.harvest import LIBRARIES, _installed, _versions_key, harvest_folders


Row = Mapping[str, Any]
CORPUS_LIBRARIES = ("accelerate", "rich", "Jinja2", "Werkzeug")  # small ones that have the 200 texts of a class

_GOOD, _BAD = ("lovely", "clever", "moving", "bright", "tender"), ("dull", "clumsy", "noisy", "empty", "tired")
_THINGS = ("plot", "cast", "score", "ending", "camera", "dialogue", "pace", "heroine", "set", "joke")
_TIMES = ("at first", "in the end", "all along", "for once", "by halves", "after an hour", "again", "throughout")
_ACCOUNT = ("card", "pin", "loan", "cheque", "limit", "top-up", "fee", "rate", "app", "refund")
_FIRST, _LAST = ("Ann", "Ben", "Cleo", "Dan", "Eve"), ("Lee", "Moss", "Ray", "Stone")
_PLACES = ("Rome", "Oslo", "Lima", "Perth", "Quito")


def reviews(count: int, seed: int) -> list[Row]:
    """Short reviews: `text` and `label` (0 or 1), and the same as `review` and `sentiment`; a tenth is mislabelled."""
    rng, rows, seen = np.random.default_rng(seed), list[Row](), set[str]()
    while len(rows) < count:
        label = int(rng.integers(2))
        words = [*rng.choice(_GOOD if label else _BAD, 2, replace=False), *rng.choice(_THINGS, 2, replace=False)]
        text = f"The {words[2]} was {words[0]} {rng.choice(_TIMES)}, and the {words[3]} {words[1]}."
        if text not in seen:
            seen.add(text)
            label = 1 - label if rng.random() < 0.1 else label
            name = ("negative", "positive")[label]
            rows.append({"text": text, "label": label, "review": text, "sentiment": name})
    return rows


def intents(count: int, seed: int) -> list[Row]:
    """What customers of a bank may want, of 77 kinds: `text` and `label`, from 0 to 76."""
    rng = np.random.default_rng(seed)
    kinds = [
        f"{verb} {thing}"
        for verb in ("lost", "block", "order", "pay", "change", "find", "close", "renew")
        for thing in _ACCOUNT
    ]
    picked = [*range(77), *rng.integers(77, size=count - 77)]
    return [{"text": f"I want to {kinds[label]} {rng.choice(_TIMES)}", "label": int(label)} for label in picked]


def named(count: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """Sentences about people and places, as words and their IOB2 labels."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        words = [rng.choice(_FIRST), rng.choice(_LAST), "went", "to", rng.choice(_PLACES), "on", "day", str(number)]
        found.append(([str(word) for word in words], ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "O", "O"]))
    return found


def instructions(count: int, seed: int) -> list[Row]:
    """Rows of `instruction`, `input` and `output`: a sentence made of its keywords."""
    return [
        {
            "instruction": "Make a sentence of:",
            "input": row["text"].replace("The ", "").replace(" was", "").replace(" and the", "").lower(),
            "output": row["text"],
        }
        for row in reviews(count, seed)
    ]


def passages(count: int = 40) -> list[Row]:
    """Passages with `id`, `title` and `text`: who wrote what, and where."""
    return [
        {
            "id": f"p{n}",
            "title": f"{_FIRST[n % 5]} {_LAST[n % 4]}",
            "text": f"{_FIRST[n % 5]} {_LAST[n % 4]} wrote the {_THINGS[n % 10]} of number {n} in {_PLACES[n % 5]}.",
        }
        for n in range(count)
    ]


def questions(count: int = 40) -> list[Row]:
    """Questions with `answers` and the passages that hold them."""
    return [
        {
            "question": f"Who wrote the {_THINGS[n % 10]} of number {n}?",
            "answers": [row["title"]],
            "gold_passage_ids": [row["id"]],
        }
        for n, row in enumerate(passages(count))
    ]


FILES: dict[str, Callable[[], Sequence[Any]]] = {
    "train.csv": lambda: reviews(400, 0),
    "test.csv": lambda: reviews(80, 1),
    "labelled.csv": lambda: reviews(60, 2),
    "more.csv": lambda: [{"text": row["text"]} for row in reviews(240, 3)],
    "banking77/train.jsonl": lambda: intents(400, 0),
    "banking77/test.jsonl": lambda: intents(100, 1),
    "train.conll": lambda: named(120, 0),
    "rows.tsv": lambda: instructions(120, 0),
    "test.tsv": lambda: instructions(20, 1),
    "texts.txt": lambda: [row["text"] for row in reviews(300, 4)],
    "questions.jsonl": questions,
    "passages.jsonl": passages,
}


def write_files(folder: Path) -> None:
    """Write all of `FILES` into `folder`, each as its name says."""
    for name, make in FILES.items():
        rows, path = make(), folder / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix in (".csv", ".tsv"):
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif path.suffix == ".conll":
            sentences = ("".join(f"{w}\t{tag}\n" for w, tag in zip(*row, strict=True)) for row in rows)
            path.write_text("\n".join(sentences))
        else:
            path.write_text("\n".join(rows) + "\n")


def write_corpus(cache: Path) -> None:
    """Put part of the embedded corpus, some packages, where recipes look for the whole of it."""
    cache.mkdir(parents=True, exist_ok=True)
    folders = _installed(LIBRARIES)
    part = harvest_folders({name: folders[name] for name in CORPUS_LIBRARIES})
    pq.write_table(part, cache / f"api-docs-{_versions_key(LIBRARIES)}.parquet")
