"""What an expert-loop run trains: teachers on rows of their own, and the student by each method on the same pool."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from tithe.evaluation import ClassificationMetrics, PeakMemory
from tithe.models import loaded_whole, one_line_errors
from tithe.recipes.caching import built_once
from tithe.recipes.choice_data import ChoiceCollator, LoopDataArguments, tokenise_choices
from tithe.recipes.classification import ClassificationData
from tithe.recipes.classifier import DEFAULT_MODEL, SMALL, ModelArguments, load_classifier, prepare, tokenise
from tithe.recipes.distillation_stages import DistillationStages
from tithe.recipes.loop_records import OnTest, write_records
from tithe.recipes.small_model import build_small_model
from tithe.recipes.splits import stratified_sample
from tithe.recipes.stages import Rows, StageResult
from tithe.trainers import ColumnOracle, DistillationTrainer, EnsembleOracle, ExpertLoopTrainer, FileOracle, Oracle


CONTROL = "random"
_SMALL_TEACHER_LAYERS = (3, 4)


class LoopStages(DistillationStages):
    """Runs the teachers and the methods that `args` ask for, in order, each unless it is finished already.

    Raises:
        ValueError: a model cannot be loaded, or too few rows are left for the pool; before anything is trained.
    """

    def __init__(
        self,
        data: ClassificationData,
        data_args: LoopDataArguments,
        model_args: ModelArguments,
        args: Any,
        memory: PeakMemory,
    ) -> None:
        super().__init__(args, memory)
        self.data, self.data_args, self.model_args = data, data_args, model_args
        self.auto = AutoModelForMultipleChoice if data_args.scores_each_choice else AutoModelForSequenceClassification
        self.trainer_options = {"compute_metrics": ClassificationMetrics()}
        self._check_oracle()
        for_teachers, pool = self._shares(data.train)
        self.given = 0  # labels there are from the start: of the first rows of the pool
        if data.unlabelled is not None:
            self.given, pool = len(pool), concatenate_datasets([pool, data.unlabelled])
        self.student, self.tokenizer = self._load_student(pool)
        self.teacher_models = self._prepare_teachers(pool)
        self._check_teachers(self.teacher_models, labelled=False)
        self._check_teachers(args.teacher_checkpoints or (), labelled=True)
        with PartialState().main_process_first():
            self.rows = {
                split: self._encode(rows, self.tokenizer)
                for split, rows in (("train", pool), ("validation", data.validation), ("test", data.test))
            }
        self.teacher_rows = for_teachers
        self.collate = self._collator(self.tokenizer)

    @property
    def _asks_person(self) -> bool:
        return self.args.oracle == "file" or (self.args.oracle == "ensemble" and self.args.ask_person)

    def _check_oracle(self) -> None:
        loops = {"expert_loop", CONTROL} & set(self.args.methods)
        if self.data.unlabelled is not None and loops and self.args.oracle == "column":
            raise ValueError(
                "nobody knows the labels of `unlabelled_file`: pass --oracle file, for a person, or --oracle ensemble"
            )

    def _shares(self, train: Dataset) -> tuple[Dataset, Dataset]:
        """The rows that teachers are fine-tuned on, and the pool: all others."""
        wanted = self.args.teacher_rows if self.args.teacher_models else 0
        needed = self.args.max_iterations * self.args.query_size
        if self.data.unlabelled is None:
            needed += self.args.initial_pool_size
        elif needed > len(self.data.unlabelled):
            raise ValueError(
                f"`unlabelled_file` has {len(self.data.unlabelled)} rows that are not known yet; the loop may ask for "
                f"{needed}: lower `max_iterations` or `query_size`"
            )
        else:
            needed = len(self.data.id2label)  # of the classes one row each, at least
        if wanted + needed > len(train):
            raise ValueError(
                f"train has {len(train)} rows; `teacher_rows` {wanted} and the {needed} that the loop may ask for are "
                "more: lower one of them"
            )
        labels = np.asarray(train["label"][:], dtype=np.int64)
        rng = np.random.default_rng([self.data_args.split_seed, 20])
        taken = stratified_sample(labels, wanted, rng)
        return train.select(taken), train.select(np.setdiff1d(np.arange(len(train)), taken))

    # Models and inputs

    def _load_student(self, pool: Dataset) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if not self.data_args.scores_each_choice:
            return load_classifier(
                self.model_args, replace(self.data, train=pool), self.root / "initial_model", self.args.seed
            )
        source = self.model_args.model_name_or_path or DEFAULT_MODEL
        if source == SMALL:
            raise ValueError(f"`{SMALL}` has no head for choices: name a model, or pass --choice_head classification")
        return self._load_chooser(replace(self.model_args, model_name_or_path=source))

    def _load_chooser(self, args: ModelArguments) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        source = str(args.model_name_or_path)
        with loaded_whole(), one_line_errors(f"{source} could not be loaded for multiple choice"):
            tokenizer = AutoTokenizer.from_pretrained(source, revision=args.model_revision)
            set_seed(self.args.seed)  # of the new head
            model = AutoModelForMultipleChoice.from_pretrained(source, revision=args.model_revision)
        prepare(model, args)
        return model, tokenizer

    def _prepare_teachers(self, pool: Dataset) -> list[str]:
        """The models that are fine-tuned into teachers; small ones are built in a folder each, once."""
        sources = []
        for number, source in enumerate(self.args.teacher_models or ()):
            if source == SMALL:
                layers = _SMALL_TEACHER_LAYERS[number % len(_SMALL_TEACHER_LAYERS)]
                seed = self.args.seed + 1 + number
                build = partial(
                    build_small_model, texts=pool["text"][:], id2label=self.data.id2label, seed=seed, layers=layers
                )
                source = str(built_once(self.root / f"initial_teacher_{number}", build))
            sources.append(source)
        return sources

    def _check_teachers(self, sources: Sequence[str], labelled: bool) -> None:
        """Raise a `ValueError` for a teacher that cannot be had, or has other labels: later would be after hours."""
        for source in sources:
            with one_line_errors(f"teacher {source} cannot be loaded"):
                config = AutoConfig.from_pretrained(source)
                AutoTokenizer.from_pretrained(source)
            theirs, ours = set((config.id2label or {}).values()), set(self.data.id2label.values())
            if labelled and not self.data_args.scores_each_choice and theirs != ours:
                raise ValueError(f"teacher {source} has the labels {sorted(theirs)}, the data {sorted(ours)}")

    def _load_teacher(self, source: str, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        arguments = ModelArguments(model_name_or_path=source, max_length=self.model_args.max_length)
        if self.data_args.scores_each_choice:
            return self._load_chooser(arguments)
        return load_classifier(arguments, self.data, self.root, seed)

    def _encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        encode = tokenise_choices if self.data_args.scores_each_choice else tokenise
        return encode(rows, tokenizer, self.model_args.max_length)

    def _collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        return (ChoiceCollator if self.data_args.scores_each_choice else DataCollatorWithPadding)(tokenizer)

    def _new_student(self) -> PreTrainedModel:
        """The same initial weights for every method."""
        return copy.deepcopy(self.student)

    # Stages

    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included.

        Raises:
            LabelsWanted: the loop waits for a person.
        """
        args = self.args
        done = [self._teach(number, source) for number, source in enumerate(self.teacher_models)]
        teachers = [result.folder for result in done] or list(args.teacher_checkpoints or ())
        for method in args.methods:
            if method == CONTROL and self.given and self._asks_person:
                continue  # it would ask for as many labels again
            if method == "supervised":
                done.append(self._once("supervised", lambda folder: self._plain(folder, [])))
            elif method == "distillation":
                done.append(self._once("distillation", lambda folder: self._plain(folder, teachers)))
            elif method == CONTROL:
                done.append(self._once(CONTROL, lambda folder: self._loop(folder, CONTROL, teachers)))
            else:
                done.append(self._once(method, lambda folder: self._loop(folder, args.query_strategy, teachers)))
        return done

    def _teach(self, number: int, source: str) -> StageResult:
        def make(folder: Path) -> tuple[DistillationTrainer, Rows]:
            args = self._arguments(folder, "teacher")
            args.seed = self.args.seed + 1 + number
            model, tokenizer = self._load_teacher(source, args.seed)
            splits = {"train": self.teacher_rows, "validation": self.data.validation, "test": self.data.test}
            rows = {split: self._encode(part, tokenizer) for split, part in splits.items()}
            return DistillationTrainer(model, args, **self._common(rows, tokenizer)), rows

        return self._once(f"teacher_{number}", make)

    def _plain(self, folder: Path, teachers: list[str]) -> tuple[DistillationTrainer, Rows]:
        """On all labels of the pool."""
        args, rows = self._arguments(folder, "supervised"), self.rows
        if self.given:
            rows = rows | {"train": rows["train"].select(range(self.given))}
        common = self._common(rows, self.tokenizer)
        return DistillationTrainer(self._new_student(), args, teachers=teachers, **common), rows

    def _loop(self, folder: Path, strategy: str, teachers: list[str]) -> tuple[ExpertLoopTrainer, Rows]:
        args = self._arguments(folder, "student")
        args.query_strategy = args.strategy = strategy
        if strategy == CONTROL:
            args.strategy_kwargs = {}
        on_test = OnTest(self.rows["test"])
        oracle = None if strategy == CONTROL and self._asks_person else self._oracle(folder)
        trainer = ExpertLoopTrainer(
            self._new_student(),
            args,
            teachers=teachers,
            oracle=oracle,
            labelled_rows=range(self.given) if self.given else None,
            callbacks=[on_test],
            **self._common(self.rows, self.tokenizer),
        )
        on_test.trainer = trainer
        return trainer, self.rows

    def _common(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {
            "train_dataset": rows["train"],
            "eval_dataset": rows["validation"],
            "processing_class": tokenizer,
            "data_collator": self._collator(tokenizer),
            **self.trainer_options,
        }

    def _oracle(self, folder: Path) -> Oracle:
        args, shown = self.args, [name for name in ("text", "text_pair") if name in self.rows["train"].column_names]
        shown = ["text", "choices"] if self.data_args.has_choices else shown
        person = FileOracle(folder / "queries", shown, args.query_format)
        column = ColumnOracle(np.asarray(self.rows["train"]["label"][:], dtype=np.int64))
        if args.oracle == "ensemble":
            others = None if self.given else column
            return EnsembleOracle(args.ensemble_threshold, person if args.ask_person else others)
        return person if args.oracle == "file" else column

    def _arguments(self, folder: Path, settings: str) -> Any:
        changes: dict[str, Any] = {"teacher_max_length": self.model_args.max_length}
        changes["teacher_text_pair_column"] = "text_pair" if "text_pair" in self.data.train.column_names else None
        if settings != "student":
            changes["num_train_epochs"] = getattr(self.args, f"{settings}_epochs")
            changes["learning_rate"] = getattr(self.args, f"{settings}_learning_rate") or self.args.learning_rate
        return self._arguments_in(folder, **changes)

    def _trained(self, trainer: Any, rows: Rows, folder: Path) -> dict[str, Any]:
        notes: dict[str, Any] = {"labels": len(rows["train"])}
        if isinstance(trainer, ExpertLoopTrainer):
            notes = {"labels": len(trainer.answers.labelled), "by": trainer.answers.count_by()}
            notes |= {"stopped": trainer.stopping.stopped or "all iterations done"}
        splits = {split: rows[split] for split in ("validation", "test")}
        write_records(trainer, splits, folder)
        return super()._trained(trainer, rows, folder) | notes
