"""Splits that are made, subsets that are taken, duplicates that are counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tithe.recipes.data import ClassificationData, DataArguments, DataError, load_classification_data
from tithe.recipes.splits import stratified_sample


ROWS = [{"text": f"text number {n}", "label": ["no", "yes", "maybe"][n % 3]} for n in range(60)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))


def write_jsonl(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(train_file: str | None = None, **kwargs: Any) -> ClassificationData:
    return load_classification_data(DataArguments(train_file=train_file, **kwargs))


def test_made_splits_are_stratified_disjoint_and_seeded(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": "rare" if n % 10 == 0 else "common"} for n in range(1000)]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    data = load(path, validation_fraction=0.1, test_fraction=0.2)
    assert data.report["made"] == ["validation", "test"]
    assert data.report["class_counts"] == {
        "train": {"common": 630, "rare": 70},
        "validation": {"common": 90, "rare": 10},
        "test": {"common": 180, "rare": 20},
    }
    texts = [split["text"][:] for split in (data.train, data.validation, data.test)]
    assert sorted(sum(texts, [])) == sorted(row["text"] for row in rows)
    again = load(path, validation_fraction=0.1, test_fraction=0.2)
    assert [again.train["text"][:], again.validation["text"][:], again.test["text"][:]] == texts
    other = load(path, validation_fraction=0.1, test_fraction=0.2, split_seed=1)
    assert other.test["text"][:] != texts[2] and other.fingerprint != data.fingerprint


def test_made_splits_do_not_share_texts(tmp_path: Path) -> None:
    rows = [{"text": f"t{n % 50}", "label": n % 2} for n in range(200)]
    data = load(write_jsonl(tmp_path / "t.jsonl", rows))
    sets = [set(split["text"][:]) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 50
    assert all(sets)


def test_classes_too_rare_to_split_stay_in_train(tmp_path: Path) -> None:
    rows = ROWS + [{"text": "only one", "label": "single"}, {"text": "pair a", "label": "twin"}]
    data = load(write_jsonl(tmp_path / "t.jsonl", rows), validation_fraction=0.3, test_fraction=0.3)
    assert data.report["class_counts"]["train"]["single"] == data.report["class_counts"]["train"]["twin"] == 1
    singles = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    with pytest.raises(DataError, match="no class with two texts to make test from"):
        load(write_jsonl(tmp_path / "s.jsonl", singles))


def test_only_the_missing_split_is_made(tmp_path: Path) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", ROWS[:6])
    data = load(write_jsonl(tmp_path / "t.jsonl", ROWS[6:]), test_file=test)
    assert data.report["made"] == ["validation"] and data.test["text"][:] == [row["text"] for row in ROWS[:6]]


def test_subsets_are_stratified_and_seeded(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": int(n % 10 == 0)} for n in range(1000)]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    data = load(path, max_train_samples=100, max_eval_samples=20)
    assert data.report["class_counts"] == {
        "train": {"0": 90, "1": 10}, "validation": {"0": 18, "1": 2}, "test": {"0": 18, "1": 2}
    }  # fmt: skip
    whole = load(path)
    assert set(data.train["text"][:]) < set(whole.train["text"][:])
    assert load(path, max_train_samples=100, split_seed=1).train["text"][:] != data.train["text"][:]


@pytest.mark.parametrize("spare", [0, 1])
def test_stratified_sample_keeps_the_shares_to_within_one_row(spare: int) -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 30, 3, 1])
    for count in (1, 7, 20, 60):
        chosen = stratified_sample(labels, count, np.random.default_rng(0), spare)
        assert len(set(chosen)) == len(chosen) == count
        taken = np.bincount(labels[chosen], minlength=4)
        exact = np.array([50, 30, 3, 1]) * count / 84
        assert (np.abs(taken - exact) <= 1 + spare).all()
        assert (taken + spare <= [50, 30, 3, 1]).all()
    assert len(stratified_sample(labels, 100, np.random.default_rng(0), spare)) == 84 - 4 * spare


def test_duplicates_are_counted_and_removed_on_request(tmp_path: Path) -> None:
    train = [("a", 0), ("b", 1), ("a", 0), ("c", 0), ("c", 1), ("d", 1), ("e", 0), ("v", 0)]
    rows = {"train": train, "validation": [("v", 0), ("v", 0), ("x", 1)], "test": [("d", 1), ("y", 0)]}
    files = {
        f"{split}_file": write_jsonl(tmp_path / f"{split}.jsonl", [{"text": t, "label": y} for t, y in pairs])
        for split, pairs in rows.items()
    }
    counts = {"train": 2, "conflicting": 1, "train_validation": 2, "train_test": 1}
    data = load(**files)
    assert data.report["duplicates"] == {**counts, "removed": 0} and len(data.train) == 8
    data = load(**files, deduplicate=True)
    assert data.report["duplicates"] == {**counts, "removed": 5}
    assert data.train["text"][:] == ["a", "b", "e"]
    assert (len(data.validation), len(data.test)) == (3, 2)
