"""SimpleQA's grades: what is read as one, what is none, the rules, and the scores by hand."""

import math

import pytest

from tithe.evaluation import (
    GRADES,
    GRADING_TEMPLATE,
    grade_answers,
    grading_prompts,
    parse_grade,
    rule_grades,
    simpleqa_metrics,
)


READ = {
    "correct": """
        A | A. | (A) | **A** | "A" | A) | [A] | Answer: A | answer:A | The answer is A. | Grade: (A) | **Grade:** A
        CORRECT | Correct. | correct | The answer is correct | A: CORRECT | A - correct | A (CORRECT) | **A: Correct**
    """,
    "incorrect": """
        B | B. | (B) | Answer: B | **Answer: B** | Verdict: B | Grade B
        INCORRECT | Incorrect! | B = INCORRECT | Grade: incorrect
    """,
    "not_attempted": """
        C | (C) | Final answer: C | NOT_ATTEMPTED | Not attempted. | not-attempted | C. NOT ATTEMPTED
    """,
}
REPLIES = [
    (reply.strip(), grade)
    for grade, replies in READ.items()
    for reply in replies.strip().replace("\n", "|").split("|")
]
UNREAD = [
    "",
    " ",
    None,
    "D",
    "a",  # the article that a longer reply begins with
    "AB",
    "A or B",
    "A, B",
    "A B",
    "A\nB\nC",
    "A: INCORRECT",
    "C (CORRECT)",
    "not correct",
    "The answer is not correct",
    "NOT",
    "ATTEMPTED",
    "CORRECTLY",
    "INCORRECT or NOT_ATTEMPTED",
    "A good answer",
    "AnswerB",
    "I think the grade is A",
    "B. The year is wrong, so not A.",
    "А",  # Cyrillic, as the next two: В would be the third letter of three
    "В",
    "С",
    "1",
    "Answer:",
]


@pytest.mark.parametrize(("reply", "grade"), [*REPLIES, (" A\n", "correct"), ("A\n\nCORRECT", "correct")])
def test_clear_replies_are_read(reply, grade):
    assert parse_grade(reply) == grade


@pytest.mark.parametrize("reply", UNREAD)
def test_all_others_are_no_grade(reply):
    assert parse_grade(reply) is None


def test_long_degenerate_replies_take_no_time():
    for piece in (" ", "\n", "(", "* ", "A ", "answer "):
        assert parse_grade("Answer" + piece * 50_000 + "x") is None


class TestGrader:
    QUESTIONS = ["Where is {it}?", "Who?", "When?"]
    PREDICTIONS = ["In {Paris}", "", "Answer: A. {question}"]
    ANSWERS = [["Paris", "Lutetia"], "Bob", ["1912"]]

    def test_each_prompt_has_its_row_as_it_is(self):
        prompts = grading_prompts(self.QUESTIONS, self.PREDICTIONS, self.ANSWERS)
        assert len(prompts) == 3
        assert (
            "Where is {it}?" in prompts[0] and "- Paris\n- Lutetia\n" in prompts[0] and "\nIn {Paris}\n" in prompts[0]
        )
        assert "- Bob\n" in prompts[1] and "Paris" not in prompts[1]
        assert "\nAnswer: A. {question}\n" in prompts[2]
        short = grading_prompts(["Q"], ["P"], ["G"], template="{question}|{answers}|{prediction}|{{A}}")
        assert short == ["Q|- G|P|{A}"]

    def test_the_template_asks_for_each_letter(self):
        for letter in "ABC":
            assert f"\n{letter} = " in GRADING_TEMPLATE

    def test_the_grader_sees_all_prompts_and_its_replies_are_parsed(self):
        asked = []

        def grader(prompts):
            asked.extend(prompts)
            return ["A", "no idea", "(C)"]

        assert grade_answers(self.QUESTIONS, self.PREDICTIONS, self.ANSWERS, grader) == [
            "correct",
            None,
            "not_attempted",
        ]
        assert asked == grading_prompts(self.QUESTIONS, self.PREDICTIONS, self.ANSWERS)

    @pytest.mark.parametrize("replies", [[], ["A", "B"], "ABC"])
    def test_replies_that_are_not_one_a_prompt(self, replies):
        with pytest.raises(ValueError, match="list of 3 replies"):
            grade_answers(self.QUESTIONS, self.PREDICTIONS, self.ANSWERS, lambda prompts: replies)

    def test_bad_input(self):
        for template in ("{question} {answers}", "{question} {answers} {prediction} {gold}", ""):
            with pytest.raises(ValueError, match="`template` must have the fields"):
                grading_prompts(["Q"], ["P"], ["G"], template=template)
        with pytest.raises(ValueError, match="as many `questions` as `predictions`, 1"):
            grading_prompts(["Q", "R"], ["P"], ["G"])
        with pytest.raises(TypeError, match="question 0 must be a text, got None"):
            grading_prompts([None], ["P"], ["G"])
        with pytest.raises(ValueError, match="at least one"):
            grading_prompts([], [], [])


@pytest.mark.parametrize(
    ("prediction", "golds", "grade"),
    [
        ("Paris", ["Paris"], "correct"),
        ("The answer is Paris, France.", ["Rome", "paris"], "correct"),
        ("Это «Идиот».", ["Идиот"], "correct"),
        ("I'm not sure, but I believe Paris", ["Paris"], "correct"),
        ("I Don't Know", ["I don't know"], "correct"),  # a title that is the answer
        ("The The", ["The The"], "correct"),  # empty after normalisation
        ("  ", ["The The"], "not_attempted"),
        ("Paris", ["The The"], "incorrect"),
        ("I don't know.", ["Paris"], "not_attempted"),
        ("Не знаю", ["Париж"], "not_attempted"),
        ("", ["Paris"], "not_attempted"),
        ("Rome", ["Paris"], "incorrect"),
        ("I don't know, but I think Rome", ["Paris"], "incorrect"),
        ("Parisian", ["Paris"], "incorrect"),
    ],
)
def test_the_rules(prediction, golds, grade):
    assert rule_grades([prediction], [golds]) == [grade]


def test_an_oracle_scores_one():
    golds = [["Paris", "Lutetia"], ["«Идиот»"], ["The The"]]
    found = simpleqa_metrics(rule_grades([row[0] for row in golds], golds))
    assert found["correct"] == found["correct_given_attempted"] == found["f1"] == 1.0
    assert found["incorrect"] == found["not_attempted"] == found["ungraded"] == 0.0


class TestScores:
    def test_by_hand(self):
        """4 correct, 2 incorrect, 4 not attempted: 0.4 and 4 / 6, whose harmonic mean is 0.5."""
        grades = ["correct"] * 4 + ["incorrect"] * 2 + ["not_attempted"] * 4
        found = simpleqa_metrics(grades)
        assert found["correct_given_attempted"] == pytest.approx(2 / 3) and found["f1"] == pytest.approx(0.5)
        assert [found[name] for name in GRADES] == [0.4, 0.2, 0.4] and found["ungraded"] == 0.0

    def test_ungraded_rows_are_counted_and_change_nothing_else(self):
        grades = ["correct", "incorrect", "not_attempted", "correct"]
        found, more = simpleqa_metrics(grades), simpleqa_metrics([*grades, None])
        assert more.pop("ungraded") == 0.2 and found.pop("ungraded") == 0.0
        assert found == more
        assert simpleqa_metrics([*grades, "not_attempted"])["correct"] < more["correct"]

    def test_none_attempted(self):
        found = simpleqa_metrics(["not_attempted"] * 3)
        assert found["not_attempted"] == 1.0
        assert found["correct"] == found["correct_given_attempted"] == found["f1"] == found["ungraded"] == 0.0

    def test_none_correct(self):
        found = simpleqa_metrics(["incorrect", "not_attempted"])
        assert found["incorrect"] == 0.5 and found["correct_given_attempted"] == found["f1"] == 0.0

    def test_none_graded(self):
        found = simpleqa_metrics([None, None])
        assert found.pop("ungraded") == 1.0 and len(found) == 5
        assert all(math.isnan(value) for value in found.values())

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`grades` is empty"):
            simpleqa_metrics([])
        with pytest.raises(ValueError, match="got 'A', 'C'"):
            simpleqa_metrics(["correct", "C", "A", None])
