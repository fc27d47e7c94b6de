"""SimpleQA's three-way grades of the answers, by rules or by a model that judges."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from tithe.evaluation import grading_prompts, parse_grade, rule_grades, simpleqa_metrics, write_json_lines
from tithe.models import chat_prompts, encode_prompts, generate_answers, longest_input
from tithe.recipes.loading import load_tokenizer
from tithe.recipes.qa_data import Question
from tithe.recipes.qa_model import QAModelArguments, load_answerer


RULES = "rules"
GRADES_NAME, REPLIES_NAME = "grades.jsonl", "replies.jsonl"
_REPLY_TOKENS = 8


class Grader:
    """Grades answers to `questions` as `args.grader` says: by rules, or by a model, which is loaded here.

    Raises:
        ValueError: the model cannot be loaded, or a question does not fit its window.
    """

    def __init__(self, args: Any, model_args: QAModelArguments, questions: Sequence[Question]) -> None:
        self.args, self.by_rules = args, args.grader == RULES
        if not self.by_rules:
            held = QAModelArguments(
                load_in_8bit=model_args.load_in_8bit,
                load_in_4bit=model_args.load_in_4bit,
                attn_implementation=model_args.attn_implementation,
            )
            self.tokenizer = load_tokenizer(args.grader, None, argument="grader", ending="a reply")
            self.model: Any = load_answerer(held, args.grader, args.use_cpu, "grader")
            self._check_room(questions)

    def _check_room(self, questions: Sequence[Question]) -> None:
        asked = grading_prompts([q.text for q in questions], [""] * len(questions), [q.answers for q in questions])
        longest = max(map(len, encode_prompts(self.tokenizer, chat_prompts(self.tokenizer, asked))))
        # An answer in the grader's tokens may be longer than in the model's.
        wanted = longest + 2 * self.args.max_new_tokens + _REPLY_TOKENS
        window = longest_input(self.model, self.tokenizer)
        if wanted > window:
            raise ValueError(
                f"`grader` {self.args.grader} reads {window} tokens, and grading the longest question takes up to "
                f"{wanted}: choose another, or `rules`"
            )

    def scores(self, questions: Sequence[Question], answers: Sequence[str], folder: Path) -> dict[str, float]:
        """SimpleQA's scores of `answers`, named `simpleqa_…`; the grades, and a model's replies, stay in `folder`."""
        golds = [question.answers for question in questions]
        if self.by_rules:
            grades: list[str | None] = [*rule_grades(answers, golds)]
        else:
            asked = grading_prompts([question.text for question in questions], answers, golds)
            grades = [parse_grade(reply) for reply in self._replies(asked, folder / REPLIES_NAME)]
        rows = zip(questions, answers, grades, strict=True)
        if PartialState().is_main_process:
            write_json_lines(folder / GRADES_NAME, ({"question": q.text, "answer": a, "grade": g} for q, a, g in rows))
        return {f"simpleqa_{name}": value for name, value in simpleqa_metrics(grades).items()}

    def _replies(self, prompts: list[str], path: Path) -> list[str]:
        model = self.model if getattr(self.model, "is_quantized", False) else self.model.to(self.args.device)
        return generate_answers(
            model,
            self.tokenizer,
            chat_prompts(self.tokenizer, prompts),
            path,
            max_new_tokens=_REPLY_TOKENS,
            name=str(self.args.grader),
            progress=not self.args.disable_tqdm,
        )
