"""What a question-answering run does: a small model first, where none is named, LoRA if asked for, then each mode."""

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from tithe.evaluation import (
    PeakMemory,
    answer_scores,
    bootstrap_interval,
    write_json_lines,
)
from tithe.models import Passage, generate_answers, load_lora_and_prompt, longest_input
from tithe.recipes.caching import built_once
from tithe.recipes.loading import load_tokenizer
from tithe.recipes.qa_data import QAArguments, QAData, Question
from tithe.recipes.qa_grading import Grader
from tithe.recipes.qa_model import (
    SMALL,
    QAModelArguments,
    build_small_answerer,
    load_answerer,
)
from tithe.recipes.qa_prompts import ORACLE, RETRIEVER, PromptMaker, Prompts
from tithe.recipes.qa_retrieval import found_passages, with_index
from tithe.recipes.splits import SPLITS
from tithe.recipes.stages import Rows, StageResult, StageRunner
from tithe.trainers import PTSeq2SeqTrainer


BASE, TUNED = "base", "tuned"
ANSWERS_NAME, PREDICTIONS_NAME = "answers.jsonl", "predictions.jsonl"
_STOP = ("\n",)


class QAStages(StageRunner):
    """Runs the stages in order, each unless it is finished already.

    Raises:
        ValueError: a tracker is not installed, a mode lacks what it needs, the model or the retriever cannot be
            loaded, or a question does not fit the model; before anything is trained or answered.
    """

    def __init__(
        self, data: QAData, data_args: QAArguments, model_args: QAModelArguments, args: Any, memory: PeakMemory
    ) -> None:
        super().__init__(args, memory)
        self.data, self.model_args = data, model_args
        self.questions: Sequence[Question] = getattr(data, args.eval_split)
        _check_modes(data, args, starts_from_nothing=self.starts_from_nothing)
        self.source: Any = model_args.model_name_or_path
        if self.starts_from_nothing:
            texts = [passage.searchable for passage in data.passages or ()]
            texts += [question.text for question in data.train]
            self.source = built_once(
                self.root / "initial_model", lambda to: build_small_answerer(to, texts, args.seed)
            )
        self.tokenizer = load_tokenizer(self.source, model_args.model_revision, ending="an answer")
        self._retriever: Any = None
        if RETRIEVER in args.modes:
            with PartialState().main_process_first(), memory.phase("index"):
                self._retriever = with_index(args, data.passages or ())
        self._model: Any = None if self.starts_from_nothing else self._load(self.source)
        self._answering: Any = None
        window = longest_input(self._model or self._load(self.source), self.tokenizer)
        room = min(window - args.max_new_tokens, args.max_prompt_length)
        self.maker = PromptMaker(self.tokenizer, args.instruction, args.chat, room)
        self._found: dict[str, tuple[list[list[Passage]], dict[str, float]]] = {}
        self._grader = None if args.grader is None else Grader(args, model_args, self.questions)
        self.prompts = {mode: self._prompts(args.eval_split, mode) for mode in args.modes}
        self.rows = {split: self._training_rows(split) for split in SPLITS[:2]} if args.tune else {}
        for split, rows in self.rows.items():
            _check_lengths(split, rows, window, args.max_prompt_length)

    @property
    def starts_from_nothing(self) -> bool:
        """Whether there is a model to train first."""
        return self.model_args.model_name_or_path == SMALL

    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included."""
        done = []
        if self.starts_from_nothing:
            done.append(self._once(BASE, self._make_base))
        if self.args.tune:
            done.append(self._once(TUNED, self._make_tuned))
        return [*done, *(self._unless_finished(mode, partial(self._answered, mode)) for mode in self.args.modes)]

    def _load(self, source: str | Path) -> Any:
        return load_answerer(self.model_args, source, self.args.use_cpu)

    # Training

    def _make_base(self, folder: Path) -> tuple[PTSeq2SeqTrainer, Rows]:
        changes = {"num_train_epochs": self.args.base_epochs, "learning_rate": self.args.base_learning_rate}
        args = self._arguments_in(folder, lora_rank=0, **changes)
        rows = self._repeated()
        return self._trainer(self._load(self.source), args, rows), rows

    def _repeated(self) -> Rows:
        """Every passage twice, of which the second counts: what a model learns to copy by."""
        texts = [passage.searchable for passage in self.data.passages or ()]
        rows = [self.maker.row(f"{text}\n", text) for text in texts]
        held_out = max(1, len(rows) // 50)
        return {"train": Dataset.from_list(rows[held_out:]), "validation": Dataset.from_list(rows[:held_out])}

    def _make_tuned(self, folder: Path) -> tuple[PTSeq2SeqTrainer, Rows]:
        args = self._arguments_in(folder)
        return self._trainer(self._taken(), args, self.rows), self.rows

    def _trainer(self, model: Any, args: Any, rows: Rows) -> PTSeq2SeqTrainer:
        return PTSeq2SeqTrainer(
            model,
            args,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            processing_class=self.tokenizer,
        )

    def _taken(self) -> Any:
        """The base, for one use: who trains it changes it."""
        model, self._model = self._model, None
        return self._load(self.root / BASE if self.starts_from_nothing else self.source) if model is None else model

    def _training_rows(self, split: str) -> Dataset:
        """The questions of `split` in each mode that is run, with the first of their answers."""
        questions = getattr(self.data, split)
        rows = []
        for mode in self.args.modes:
            for prompt, question in zip(self._prompts(split, mode).texts, questions, strict=True):
                rows.append(self.maker.row(prompt, question.answers[0]))
        return Dataset.from_list(rows)

    # Prompts

    def _prompts(self, split: str, mode: str) -> Prompts:
        questions = getattr(self.data, split)
        return self.maker.make_all(questions, self._contexts(split, mode))

    def _contexts(self, split: str, mode: str) -> list[list[Passage]]:
        questions = getattr(self.data, split)
        if mode == RETRIEVER:
            if split not in self._found:
                self._found[split] = found_passages(
                    self._retriever, questions, self.data.passages or (), self.args.passages
                )
            return self._found[split][0]
        return [list(question.gold) if mode == ORACLE else [] for question in questions]

    # Answers

    def _answered(self, mode: str, folder: Path) -> StageResult:
        """Answer the questions in `mode`, from where it was stopped, and score the answers."""
        model, start = self._answerer(), time.perf_counter()
        with self.memory.phase(mode):
            answers = self._answers(model, self.prompts[mode].texts, folder / ANSWERS_NAME)
        seconds = time.perf_counter() - start
        metrics, notes = self._scored(mode, answers)
        size = sum(p.numel() for p in model.parameters())
        notes |= {"model_bytes": model.get_memory_footprint()}
        values = {"name": mode, "folder": str(folder), "parameters": size, "bytes_on_disk": 0, "seconds": seconds}
        return StageResult(**values, metrics={mode: metrics}, speed={}, history=[], notes=notes)

    def _answerer(self) -> Any:
        """The model that answers, from its folder: with LoRA, if it was tuned."""
        if self._answering is None:
            unset_hf_deepspeed_config()  # else ZeRO-3 would spread over the processes what each must have whole
            model = self._taken()
            model = load_lora_and_prompt(model, self.root / TUNED) if self.args.tune else model
            self._answering = model if self.model_args.quantised else model.to(self.args.device)
        return self._answering

    def _answers(self, model: Any, prompts: Sequence[str], path: Path) -> list[str]:
        args = self.args
        return generate_answers(
            model,
            self.tokenizer,
            prompts,
            path,
            max_new_tokens=args.max_new_tokens,
            stop=_STOP,
            batch_size=args.answer_batch_size,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            seed=args.seed,
            dtype=self.model_args.computed_in,
            name=str(self.model_args.model_name_or_path) + (" tuned" if args.tune else ""),
            progress=not args.disable_tqdm,
        )

    def _write_predictions(self, mode: str, answers: Sequence[str]) -> None:
        contexts = self._contexts(self.args.eval_split, mode)
        rows = [
            {
                "question": question.text,
                "answers": list(question.answers),
                "prediction": answer,
                "passages": [passage.id for passage in given],
            }
            for question, given, answer in zip(self.questions, contexts, answers, strict=True)
        ]
        write_json_lines(self.root / mode / PREDICTIONS_NAME, rows)

    def _scored(self, mode: str, answers: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
        """The means of an answer's scores, and beside them their intervals and what happened to the passages."""
        scores = answer_scores(answers, [question.answers for question in self.questions])
        if PartialState().is_main_process:
            self._write_predictions(mode, answers)
        metrics = {name: float(values.mean()) for name, values in scores.items()}
        found = {name: bootstrap_interval(values, seed=self.args.seed) for name, values in scores.items()}
        notes: dict[str, Any] = {"intervals": {name: [one.low, one.high] for name, one in found.items()}}
        if mode == RETRIEVER:
            metrics |= self._found[self.args.eval_split][1]
            notes |= {"retriever_bytes": self._retriever.size_bytes}
        notes |= {"passages_left_out": self.prompts[mode].dropped, "prompts_shortened": self.prompts[mode].shortened}
        if self._grader is not None:
            metrics |= self._grader.scores(self.questions, answers, self.root / mode)
        return metrics, notes


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """`question`, `answers`, `prediction` and the ids of the `passages` of a mode that has been answered."""
    lines = (folder / PREDICTIONS_NAME).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _check_lengths(split: str, rows: Dataset, window: int, max_prompt_length: int) -> None:
    """Raise a `ValueError` where a prompt and its answer are longer than the model's window."""
    lengths = np.array([len(ids) for ids in rows["input_ids"]])
    if lengths.max() > window:
        row = rows[int(lengths.argmax())]
        answer = sum(label != -100 for label in row["labels"])
        raise ValueError(
            f"{split}: {(lengths > window).sum()} of {len(lengths)} prompts are longer, with their answer, than the "
            f"model's {window} tokens (the longest has {lengths.max()}, of which {answer} are its answer): shorten "
            f"the answers, or lower `max_prompt_length` {max_prompt_length}"
        )


def _check_modes(data: QAData, args: Any, starts_from_nothing: bool) -> None:
    """Raise a `ValueError` where a mode lacks what it needs."""
    questions = getattr(data, args.eval_split)
    if not questions:
        raise ValueError(f"`eval_split` {args.eval_split} has no questions")
    asked = [args.eval_split, *(("train", "validation") if args.tune else ())]
    for split in asked:
        rows = getattr(data, split)
        lacking = sum(not question.gold for question in rows)
        if ORACLE in args.modes and lacking:
            raise ValueError(
                f"`mode` {ORACLE} needs the passage that holds the answer: {lacking} of {len(rows)} questions of "
                f"{split} have none (`context_column`, or `gold_column` with `corpus_file`)"
            )
    if RETRIEVER in args.modes and not data.passages:
        raise ValueError(f"`mode` {RETRIEVER} needs a corpus to search: give `corpus_file`")
    if args.tune and not (data.train and data.validation):
        raise ValueError("`tune` needs questions to train on: give train, of at least a few rows")
    if starts_from_nothing and not data.passages:
        raise ValueError(f"the `{SMALL}` model is made of passages: give `corpus_file`, or contexts")
