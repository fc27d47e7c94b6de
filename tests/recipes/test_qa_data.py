"""Questions, answers, gold passages and corpora of every shape, and what is refused."""

import json

import fsspec
import pyarrow as pa
import pytest

from tithe.recipes.qa_data import QAArguments, api_questions, load_qa_data
from tithe.recipes.readers import DataError


CORPUS = [{"id": f"p{n}", "title": f"Title {n}", "text": f"Text {n}."} for n in range(5)]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def questions(count, **more):
    return [{"question": f"What is {n}?", "answers": [f"number {n}", str(n)], **more} for n in range(count)]


@pytest.fixture
def corpus(tmp_path):
    return write(tmp_path / "corpus.jsonl", CORPUS)


def test_gold_passages_are_those_of_the_corpus(tmp_path, corpus):
    rows = questions(3)
    for row, gold in zip(rows, (["p1", "p3"], "p0", None), strict=True):
        row["gold_passage_ids"] = gold
    rows[1]["gold_passage_ids"] = ["p0"]
    data = load_qa_data(QAArguments(test_file=write(tmp_path / "test.jsonl", rows), corpus_file=corpus))
    assert [[passage.id for passage in question.gold] for question in data.test] == [["p1", "p3"], ["p0"], []]
    assert data.test[0].gold[0].title == "Title 1" and data.test[0].answers == ("number 0", "0")
    assert len(data.passages) == 5 and not data.train and data.report["passages"] == 5


def test_contexts_are_gold_and_corpus(tmp_path):
    rows = [*questions(2, context="Shared text."), *questions(1, context="Another.")]
    data = load_qa_data(QAArguments(test_file=write(tmp_path / "test.jsonl", rows)))
    assert [passage.text for passage in data.passages] == ["Shared text.", "Another."], "each once"
    assert data.test[0].gold == data.test[1].gold != data.test[2].gold


def test_without_contexts_there_is_nothing_to_search(tmp_path):
    rows = [{"problem": "Кто?", "answer": " Лев  Толстой "}]
    path = write(tmp_path / "test.jsonl", rows)
    data = load_qa_data(QAArguments(test_file=path, question_column="problem", answers_column="answer"))
    assert data.passages is None and data.test[0].answers == ("Лев  Толстой",) and data.test[0].gold == ()


def test_missing_splits_are_made_of_train_alone(tmp_path):
    path = write(tmp_path / "train.jsonl", questions(50))
    data = load_qa_data(QAArguments(train_file=path))
    assert data.report["rows"] == {"train": 40, "validation": 5, "test": 5}
    assert data.report["made"] == ["validation", "test"]
    texts = [question.text for split in (data.train, data.validation, data.test) for question in split]
    assert len(set(texts)) == 50
    alone = load_qa_data(QAArguments(test_file=path))
    assert alone.report["rows"] == {"train": 0, "validation": 0, "test": 50}
    assert alone.fingerprint != data.fingerprint


def test_a_subset_is_in_order(tmp_path):
    path = write(tmp_path / "test.jsonl", questions(50))
    few = load_qa_data(QAArguments(test_file=path, max_eval_samples=10)).test
    numbers = [int(question.answers[1]) for question in few]
    assert len(numbers) == 10 and numbers == sorted(numbers) and numbers != list(range(10))


def test_a_corpus_behind_a_url(tmp_path):
    with fsspec.open("memory://qa/corpus.jsonl", "w") as file:
        file.write("\n".join(map(json.dumps, CORPUS)))
    path = write(tmp_path / "test.jsonl", questions(1, gold_passage_ids=["p2"]))
    data = load_qa_data(QAArguments(test_file=path, corpus_file="memory://qa/corpus.jsonl"))
    assert data.test[0].gold[0].text == "Text 2."


def test_ids_that_are_numbers(tmp_path):
    corpus = write(tmp_path / "corpus.jsonl", [{"key": 7, "body": "Text."}, {"key": 8, "body": "More."}])
    path = write(tmp_path / "test.jsonl", questions(1, gold=[8]))
    names = {"corpus_id_column": "key", "corpus_text_column": "body", "gold_column": "gold"}
    data = load_qa_data(QAArguments(test_file=path, corpus_file=corpus, **names))
    assert data.test[0].gold[0].text == "More." and data.test[0].gold[0].title == ""


class TestEmbeddedCorpus:
    def records(self):
        rows = [("function", "lib.sub", f"make_{n}", f"Make the large number {n} of them") for n in range(40)]
        rows.append(("function", "lib.sub", "make_3", "Make it in another way, twice defined"))
        rows.append(("function", "lib.sub", "one", "Shared by two functions here"))
        rows.append(("function", "lib.other", "two", "shared by TWO functions, here."))
        rows.append(("method", "lib.sub", "A.run", "Runs the large machine once"))
        rows.append(("function", "lib.sub", "short", "Runs it"))
        names = ("kind", "module", "qualname", "text")
        return pa.table({name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)})

    def test_each_function_is_asked_for_once(self):
        splits, passages = api_questions(self.records())
        asked = {question.answers[0]: question for rows in splits.values() for question in rows}
        assert set(asked) == {f"make_{n}" for n in range(40)}, "no methods, no shared or short summaries"
        assert len(passages) == 40 and len(splits["train"]) > len(splits["test"]) > 0
        question = asked["make_7"]
        assert question.gold[0].text == "Function make_7 of lib: Make the large number 7 of them"
        words = question.text.removeprefix("Which function is for: ").removesuffix("?").split()
        assert len(words) == 3 and set(words) < {"make", "large", "number", "7"}

    def test_is_the_same_each_time(self):
        assert api_questions(self.records()) == api_questions(self.records())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (questions(2, answers=[]), r"test: 2 of 2 rows have no answer \(rows 1 and 2\)"),
        ([{"question": " ", "answers": "a"}], r"1 of 1 rows have no question"),
        ([{"question": "a", "answers": [" ", None]}], "have no answer"),
        ([{"question": "a"}], r"no column 'answers' \(`answers_column`\)"),
        ([{"text": "a", "answers": "b"}], r"`question_column`.*name one of them with `--question_column`"),
        (questions(1, gold_passage_ids=["p9"]), r"row 1 names a gold passage 'p9' that is not in `corpus_file`"),
    ],
)
def test_bad_questions(tmp_path, corpus, rows, message):
    with pytest.raises(DataError, match=message):
        load_qa_data(QAArguments(test_file=write(tmp_path / "test.jsonl", rows), corpus_file=corpus))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}], r"no column 'id' \(`corpus_id_column`\)"),
        ([{"id": "a", "text": "b"}, {"id": None, "text": "c"}], r"1 of 2 passages have no id \(row 2\)"),
        ([{"id": "a", "text": "b"}, {"id": "a", "text": "c"}], "row 2 has the id of another passage, 'a'"),
        ([{"id": "a", "text": " "}], "have no text"),
        ([{"id": "a", "body": "b"}], "`corpus_text_column`"),
    ],
)
def test_bad_corpora(tmp_path, rows, message):
    path = write(tmp_path / "test.jsonl", questions(1))
    with pytest.raises(DataError, match=message):
        load_qa_data(QAArguments(test_file=path, corpus_file=write(tmp_path / "corpus.jsonl", rows)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus_file": "c.jsonl"}, "`corpus_file` needs questions"),
        ({"test_file": "t.jsonl", "gold_column": "g"}, "give that, too"),
        ({"test_file": "t.jsonl", "answers_column": "question"}, "must be different columns"),
        ({"test_file": "t.jsonl", "deduplicate": True}, "`deduplicate` is of labelled texts"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        QAArguments(**options)


def test_a_column_that_is_named_must_be_there(tmp_path):
    path = write(tmp_path / "test.jsonl", questions(1))
    with pytest.raises(DataError, match=r"no split of test.jsonl has a column 'passage' \(`context_column`\)"):
        load_qa_data(QAArguments(test_file=path, context_column="passage"))
