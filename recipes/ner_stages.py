"""The stages of distilling a tagger, each with a folder, a model, and a note of what it came to."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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

from tithe.evaluation import EntityMetrics, PeakMemory, inference_speed, keep_predictions, write_atomic
from tithe.models import build_student, factorize_embeddings
from tithe.recipes.tagger import TaggerArguments, encode, load_tagger
from tithe.recipes.tagging import TaggingData
from tithe.trainers import DistillationTrainer, last_finished_checkpoint


STAGES = ("teacher", "factorize", "student")
NOTE_NAME = "stage.json"
_SPEED_ROWS = 512
_SAMPLE_ROWS = 256


@dataclass
class StageResult:
    """What a stage came to.

    Attributes:
        name: `teacher`, `factorized`, `student` or `student alone`.
        folder: of its model.
        parameters: of the model, each counted once.
        bytes_on_disk: of its weights.
        metrics: split → name → value.
        speed: as `inference_speed` gives it, on test.
        history: what was logged while it was trained.
        notes: what else there is to say of it.
    """

    name: str
    folder: str
    parameters: int
    bytes_on_disk: int
    seconds: float
    metrics: dict[str, dict[str, float]]
    speed: dict[str, float]
    history: list[dict[str, Any]]
    notes: dict[str, Any]


class Stages:
    """Runs the stages that `args` ask for, in order, each unless it is finished already."""

    def __init__(self, data: TaggingData, model_args: TaggerArguments, args: Any, memory: PeakMemory) -> None:
        self.data, self.model_args, self.args, self.memory = data, model_args, args, memory
        self.root = Path(str(args.output_dir))
        self._start: Any
        self.tokenizer: Any
        with PartialState().main_process_first():
            if args.teacher_checkpoint is None:
                source = str(model_args.model_name_or_path)
                self._start, self.tokenizer = load_tagger(
                    source, model_args.model_revision, data.names, self.root / "initial_model", data.train, args.seed
                )
            else:
                self._start, self.tokenizer = _checked_teacher(args.teacher_checkpoint, data.names)
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
        model = AutoModelForTokenClassification.from_pretrained(teacher)
        tokens = torch.from_numpy(np.concatenate([np.asarray(row) for row in self.rows["train"]["input_ids"]]))
        vocabulary: Any = model.get_input_embeddings()
        counts = torch.bincount(tokens, minlength=vocabulary.num_embeddings)
        factorize_embeddings(model, self.args.embedding_rank, counts)
        return model

    def _student(self, teacher: str | Path) -> PreTrainedModel:
        model = AutoModelForTokenClassification.from_pretrained(teacher)
        rows = self.rows["train"].select_columns(["input_ids", "attention_mask"])
        samples = [self._batch(rows, start) for start in range(0, min(_SAMPLE_ROWS, len(rows)), 32)]
        return build_student(
            model,
            initialize=self.args.student_initialization,
            samples=samples,
            seed=self.args.seed,
            **self._shape(),
        )

    def _batch(self, rows: Dataset, start: int) -> dict[str, Any]:
        part = [rows[i] for i in range(start, min(start + 32, len(rows)))]
        return dict(self.tokenizer.pad(part, return_tensors="pt"))

    def _shape(self) -> dict[str, Any]:
        args = self.args
        return {
            "layers": args.student_layers,
            "hidden_size": args.student_hidden_size,
            "heads": args.student_heads,
            "intermediate_size": args.student_intermediate_size,
            "embedding_rank": args.student_embedding_rank,
            "max_parameters": args.max_parameters,
        }

    # Stages

    def _stage(
        self, name: str, make: Callable[[], PreTrainedModel | None], teachers: Sequence[str | Path], settings: str
    ) -> StageResult:
        folder = self.root / name
        found = _read_note(folder)
        if found is not None:
            if PartialState().is_main_process:
                print(f"{name}: finished already, in {folder}", flush=True)
            return found
        if PartialState().is_main_process:
            print(f"{name}:", flush=True)
        start = time.perf_counter()
        with self.memory.phase(name):
            trainer = DistillationTrainer(
                make(),
                self._arguments(folder, settings),
                train_dataset=self.rows["train"],
                eval_dataset=self.rows["validation"],
                processing_class=self.tokenizer,
                data_collator=self.collate,
                compute_metrics=EntityMetrics(self.data.names),
                preprocess_logits_for_metrics=keep_predictions,
                teachers=[str(teacher) for teacher in teachers],
            )
            last = last_finished_checkpoint(folder)
            trainer.train(str(last) if last else None)
            metrics = {
                split: _scores(trainer.evaluate(self.rows[split], metric_key_prefix=split), split)
                for split in ("validation", "test")
            }
        trainer.save_model()
        notes: dict[str, Any] = {"epochs": trainer.args.num_train_epochs, "learning_rate": trainer.args.learning_rate}
        if trainer.teacher_cache_bytes is not None:
            notes["teacher_cache_bytes"] = trainer.teacher_cache_bytes
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        result = self._result(
            name, folder, model, metrics, time.perf_counter() - start, trainer.state.log_history, notes
        )
        trainer.accelerator.wait_for_everyone()
        if PartialState().is_main_process:
            write_atomic(folder / NOTE_NAME, json.dumps(asdict(result), indent=2, default=float))
        trainer.accelerator.wait_for_everyone()
        return result

    def _measured(self, name: str, folder: Path) -> StageResult:
        """A model that is there already, evaluated."""
        model = AutoModelForTokenClassification.from_pretrained(folder)
        trainer = DistillationTrainer(
            model,
            self._arguments(self.root / name, "student"),
            eval_dataset=self.rows["validation"],
            processing_class=self.tokenizer,
            data_collator=self.collate,
            compute_metrics=EntityMetrics(self.data.names),
            preprocess_logits_for_metrics=keep_predictions,
        )
        metrics = {
            split: _scores(trainer.evaluate(self.rows[split], metric_key_prefix=split), split)
            for split in ("validation", "test")
        }
        return self._result(name, folder, model, metrics, 0.0, [], {})

    def _result(
        self,
        name: str,
        folder: Path,
        model: PreTrainedModel,
        metrics: dict[str, dict[str, float]],
        seconds: float,
        history: list[dict[str, Any]],
        notes: dict[str, Any],
    ) -> StageResult:
        rows = self.rows["test"].select_columns(["input_ids", "attention_mask", "labels"])
        part = [rows[i] for i in range(min(_SPEED_ROWS, len(rows)))]
        return StageResult(
            name=name.replace("_", " "),
            folder=str(folder),
            parameters=sum(p.numel() for p in model.parameters()),
            bytes_on_disk=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            seconds=seconds,
            metrics=metrics,
            speed=inference_speed(model, part, self.collate),
            history=history,
            notes=notes,
        )

    def _arguments(self, folder: Path, settings: str) -> Any:
        """The student's arguments, with the epochs and learning rate of another stage where it is one."""
        args = copy.copy(self.args)
        args.output_dir = str(folder)
        if settings != "student":
            args.num_train_epochs = getattr(args, f"{settings}_epochs")
            args.learning_rate = getattr(args, f"{settings}_learning_rate")
            args.hidden_weight = args.attention_weight = 0.0
        return args

    def _encode(self, rows: Dataset, scheme: str) -> Dataset:
        return encode(rows, self.tokenizer, self.data.names, scheme, self.model_args.max_length)


def _checked_teacher(folder: str, names: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        model = AutoModelForTokenClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"`teacher_checkpoint` {folder} is no tagger: {str(error).splitlines()[0]}") from error
    theirs = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if sorted(theirs) != sorted(names):
        raise ValueError(f"`teacher_checkpoint` has the labels {theirs}, the data {list(names)}")
    if theirs != list(names):
        raise ValueError(f"`teacher_checkpoint` has the labels of the data in another order: {theirs}")
    return model, tokenizer


def _read_note(folder: Path) -> StageResult | None:
    path = folder / NOTE_NAME
    return StageResult(**json.loads(path.read_text())) if path.is_file() else None


def _scores(found: dict[str, float], split: str) -> dict[str, float]:
    return {name.removeprefix(f"{split}_"): value for name, value in found.items() if not _is_timing(name)}


def _is_timing(name: str) -> bool:
    return name == "epoch" or name.endswith(("_runtime", "_per_second"))
