"""Hits, recall and reciprocal ranks, by hand."""

import pytest

from tithe.evaluation import answer_retrieval_metrics, contains_answer, retrieval_metrics


def test_scores_are_those_by_hand():
    found = [["a", "b", "c", "d"], ["e", "f", "g", "h"], ["i", "j", "k", "l"], ["m", "n", "o", "p"]]
    gold = [["a"], ["h", "f", "z"], ["x"], ["n", "m"]]
    scores = retrieval_metrics(found, gold, ks=(1, 2, 4, 9))
    assert scores == pytest.approx(
        {
            "hit@1": 2 / 4,
            "recall@1": (1 + 0 + 0 + 1 / 2) / 4,
            "hit@2": 3 / 4,
            "recall@2": (1 + 1 / 3 + 0 + 1) / 4,
            "hit@4": 3 / 4,
            "recall@4": (1 + 2 / 3 + 0 + 1) / 4,
            "hit@9": 3 / 4,
            "recall@9": (1 + 2 / 3 + 0 + 1) / 4,
            "mrr": (1 + 1 / 2 + 0 + 1) / 4,
        }
    )
    assert list(retrieval_metrics(found, gold)) == [
        "hit@1",
        "recall@1",
        "hit@5",
        "recall@5",
        "hit@10",
        "recall@10",
        "mrr",
    ]


def test_golds_have_no_order_and_count_once():
    assert retrieval_metrics([["a", "b"]], [["b", "a", "b"]], ks=[2])["recall@2"] == 1


def test_queries_that_found_nothing_count():
    assert retrieval_metrics([[], ["a"]], [["a"], ["a"]], ks=[1]) == {"hit@1": 0.5, "recall@1": 0.5, "mrr": 0.5}


def test_answers_are_looked_for_in_texts():
    found = [
        ["Paris, France", "The city of Lyon", "Nice."],
        ["nothing", "Ельцин, Борис", "Владимир Путин"],
        ["one", "two", "three"],
    ]
    answers = [["lyon", "Marseille"], ["владимир путин", "«Борис»"], ["four"]]
    scores = answer_retrieval_metrics(found, answers, ks=(1, 2, 3))
    assert scores == pytest.approx(
        {"answer_hit@1": 0, "answer_hit@2": 2 / 3, "answer_hit@3": 2 / 3, "answer_mrr": (1 / 2 + 1 / 2) / 3}
    )


@pytest.mark.parametrize(
    "text, answer, wanted",
    [
        ("It was The Beatles' first album.", "Beatles", True),
        ("the U.S. Navy", "US navy", True),
        ("Rock & Roll", "rock  roll", True),
        ("in 1910", "10", False),
        ("theatre", "The", False),
        ("Cats slept.", "The", False),
        ("The The played.", "The The", True),
        ("Played by the Who", "The Who", True),
        ("Roger Daltrey of The Who", "daltrey who", False),
        ("of The Who", "of who", True),
        ("Роман «Война и мир» (1869)", "война и мир", True),
        ("“It’s so”", "Its so", True),
        ("Zürich", "Zu\u0308rich", True),
        ("ＡＢＣ tower", "abc", True),
        ("anything", "!?", False),
        ("", "a", False),
    ],
)
def test_both_sides_are_normalised(text, answer, wanted):
    assert contains_answer(text, [answer]) == wanted
    assert contains_answer(text, ["not there", answer]) == wanted


@pytest.mark.parametrize("score, name", [(retrieval_metrics, "gold_ids"), (answer_retrieval_metrics, "answers")])
def test_bad_input_is_refused(score, name):
    with pytest.raises(ValueError, match=f"as many `{name}` .* got 0 and 0"):
        score([], [])
    with pytest.raises(ValueError, match=f"as many `{name}` .* got 2 and 1"):
        score([["a"]], [["a"], ["b"]])
    with pytest.raises(ValueError, match="query 1 has no"):
        score([["a"], ["b"]], [["a"], []])
    for ks in ((), (1, 0)):
        with pytest.raises(ValueError, match="`ks` must be"):
            score([["a"]], [["a"]], ks)
    for found, gold in (("ab", ["a"]), (["a"], "ab")):
        with pytest.raises(TypeError, match="query 0: .* not one text"):
            score([found], [gold])


def test_one_passage_is_not_found_twice():
    with pytest.raises(ValueError, match="query 1: `found_ids` name a passage twice"):
        retrieval_metrics([["a"], ["b", "c", "b"]], [["a"], ["b"]])
