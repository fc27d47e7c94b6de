"""The stages of distilling a tagger, each with a folder, a model, and a note of what it came to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tithe.evaluation import EntityMetrics, PeakMemory, keep_predictions
from tithe.models import build_student, factorize_embeddings, loaded_whole, one_line_errors
from tithe.recipes.distillation_stages import DistillationStages
from tithe.recipes.stages import StageResult
from tithe.recipes.tagger import TaggerArguments, encode, load_tagger
from tithe.recipes.tagging import TaggingData


STAGES = ("teacher", "factorize", "student")


class Stages(DistillationStages):
    """Runs the stages that `args` ask for, in order, each unless it is finished already."""

    auto = AutoModelForTokenClassification

    def __init__(self, data: TaggingData, model_args: TaggerArguments, args: Any, memory: PeakMemory) -> None:
        super().__init__(args, memory)
        self.data, self.model_args = data, model_args
        self.trainer_options = {
            "compute_metrics": EntityMetrics(data.names),
            "preprocess_logits_for_metrics": keep_predictions,
        }
        self._start: Any
        if args.teacher_checkpoint is None:
            source = str(model_args.model_name_or_path)
            self._start, self.tokenizer = load_tagger(
                source, model_args.model_revision, data.names, self.root / "initial_model", data.train, args.seed
            )
        else:
            self._start, self.tokenizer = _checked_teacher(args.teacher_checkpoint, data.names)
        with PartialState().main_process_first():
            self.rows = {
                "train": self._encode(data.train, model_args.label_scheme),
                "validation": self._encode(data.validation, "first"),
                "test": self._encode(data.test, "first"),
            }
        self.collate = DataCollatorForTokenClassification(self.tokenizer)
        cut = {split: int(np.sum(rows["words_cut"])) for split, rows in self.rows.items()}
        if any(cut.values()) and PartialState().is_main_process:
            print("words cut off by `max_length`:", ", ".join(f"{split} {n}" for split, n in cut.items()), flush=True)
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Refuse now what would be refused after hours of training."""
        rows, width = self._start.get_input_embeddings().weight.shape
        rank = self.args.embedding_rank
        if "factorize" in self.args.stages and not 1 <= rank <= min(rows, width):
            raise ValueError(f"`embedding_rank` must be from 1 to {min(rows, width)} for this teacher, got {rank}")
        if "student" in self.args.stages:
            build_student(self._start.config, **self._shape())

    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included."""
        done = []
        given = self.args.teacher_checkpoint
        teacher = self.root / "teacher" if given is None else Path(given)
        if given is None:
            done.append(self._stage("teacher", lambda: self._start, [], "teacher"))
        else:
            done.append(self._measured("teacher", teacher))
        if "factorize" in self.args.stages:
            done.append(self._stage("factorized", lambda: self._factorized(teacher), [teacher], "factorize"))
            teacher = self.root / "factorized"
        if "student" in self.args.stages:
            done.append(self._stage("student", lambda: self._student(teacher), [teacher], "student"))
            if self.args.train_alone:
                done.append(self._stage("student_alone", lambda: self._student(teacher), [], "student"))
        return done

    # Models

    def _factorized(self, teacher: str | Path) -> PreTrainedModel:
        with loaded_whole():
            model = AutoModelForTokenClassification.from_pretrained(teacher)
        tokens = torch.from_numpy(np.concatenate([np.asarray(row) for row in self.rows["train"]["input_ids"]]))
        vocabulary: Any = model.get_input_embeddings()
        counts = torch.bincount(tokens, minlength=vocabulary.num_embeddings)
        factorize_embeddings(model, self.args.embedding_rank, counts)
        return model

    def _encode(self, rows: Dataset, scheme: str) -> Dataset:
        return encode(rows, self.tokenizer, self.data.names, scheme, self.model_args.max_length)


def _checked_teacher(folder: str, names: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with loaded_whole(), one_line_errors(f"`teacher_checkpoint` {folder} is no tagger"):
        model = AutoModelForTokenClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if sorted(theirs) != sorted(names):
        raise ValueError(f"`teacher_checkpoint` has the labels {theirs}, the data {list(names)}")
    if theirs != list(names):
        raise ValueError(f"`teacher_checkpoint` has the labels of the data in another order: {theirs}")
    return model, tokenizer
