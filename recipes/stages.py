"""What the stages of every distillation recipe share: a folder, a model and a note of what it came to for each."""

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel

from tithe.evaluation import PeakMemory, inference_speed, write_atomic
from tithe.models import build_student
from tithe.trainers import DistillationTrainer, last_finished_checkpoint


Rows = Mapping[str, Dataset]

NOTE_NAME = "stage.json"
_SPEED_ROWS = 512
_SAMPLE_ROWS = 256


@dataclass
class StageResult:
    """What a stage came to.

    Attributes:
        name: of its model: `teacher`, `factorized`, `student` or `student alone`.
        folder: of that model, or the hub id of a teacher that is used as it is.
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


class StageRunner(ABC):
    """Runs stages in order, each unless it is finished already; a recipe's own class says which, and of what model.

    Its `__init__` sets, beside what this one takes, `tokenizer`, `rows` (train, validation and test, encoded),
    `collate`, and `trainer_options`, what its trainers get besides data and model. `auto` is its class of models.
    """

    auto: Any
    tokenizer: Any
    rows: dict[str, Dataset]
    collate: Any
    trainer_options: dict[str, Any]

    def __init__(self, args: Any, memory: PeakMemory) -> None:
        self.args, self.memory = args, memory
        self.root = Path(str(args.output_dir))

    @abstractmethod
    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included."""

    def _student(self, teacher: str | Path) -> PreTrainedModel:
        model = self.auto.from_pretrained(teacher)
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

    def _stage(
        self, name: str, make: Callable[[], PreTrainedModel | None], teachers: Sequence[str | Path], settings: str
    ) -> StageResult:
        """Train a model by `teachers`, or without any, by the labels."""
        return self._once(
            name,
            lambda folder: (
                DistillationTrainer(
                    make(),
                    self._arguments(folder, settings),
                    train_dataset=self.rows["train"],
                    eval_dataset=self.rows["validation"],
                    processing_class=self.tokenizer,
                    data_collator=self.collate,
                    **self.trainer_options,
                    teachers=[str(teacher) for teacher in teachers],
                ),
                self.rows,
            ),
        )

    def _once(self, name: str, make: Callable[[Path], tuple[Any, Rows]]) -> StageResult:
        """Run a stage, from where it was stopped, unless it is finished.

        Args:
            make: is given the stage's folder; makes its trainer, and names the rows that its model is scored on.
        """
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
            trainer, rows = make(folder)
            untrained = self._untrained(trainer, name)
            last = last_finished_checkpoint(folder)
            trainer.train(str(last) if last else None)
            metrics = {
                split: _scores(trainer.evaluate(rows[split], metric_key_prefix=split), split)
                for split in ("validation", "test")
            }
        seconds = time.perf_counter() - start
        trainer.save_model()
        notes: dict[str, Any] = {"epochs": trainer.args.num_train_epochs, "learning_rate": trainer.args.learning_rate}
        notes |= untrained | self._trained(trainer, rows, folder)
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        speed = self._speed(model, rows["test"], trainer.data_collator)
        result = self._result(name, folder, model, metrics, speed, seconds, trainer.state.log_history, notes)
        trainer.accelerator.wait_for_everyone()
        if PartialState().is_main_process:
            write_atomic(folder / NOTE_NAME, json.dumps(asdict(result), indent=2, default=float))
        trainer.accelerator.wait_for_everyone()
        return result

    def _measured(self, name: str, folder: Path) -> StageResult:
        """A model that is there already, evaluated."""
        model = self.auto.from_pretrained(folder)
        trainer = DistillationTrainer(
            model,
            self._arguments(self.root / name, "student"),
            eval_dataset=self.rows["validation"],
            processing_class=self.tokenizer,
            data_collator=self.collate,
            **self.trainer_options,
        )
        metrics = {
            split: _scores(trainer.evaluate(self.rows[split], metric_key_prefix=split), split)
            for split in ("validation", "test")
        }
        speed = self._speed(model, self.rows["test"], self.collate)
        return self._result(name, folder, model, metrics, speed, 0.0, [], {})

    def _result(
        self,
        name: str,
        folder: Path,
        model: PreTrainedModel,
        metrics: dict[str, dict[str, float]],
        speed: dict[str, float],
        seconds: float,
        history: list[dict[str, Any]],
        notes: dict[str, Any],
    ) -> StageResult:
        return StageResult(
            name=name.replace("_", " "),
            folder=str(folder),
            parameters=sum(p.numel() for p in model.parameters()),
            bytes_on_disk=_bytes_of(folder, model),
            seconds=seconds,
            metrics=metrics,
            speed=speed,
            history=history,
            notes=notes,
        )

    @staticmethod
    def _speed(model: PreTrainedModel, rows: Dataset, collate: Any) -> dict[str, float]:
        known = ("input_ids", "attention_mask", "label", "labels")
        rows = rows.select_columns([name for name in known if name in rows.column_names])
        return inference_speed(model, [rows[i] for i in range(min(_SPEED_ROWS, len(rows)))], collate)

    def _untrained(self, trainer: Any, name: str) -> dict[str, Any]:
        """What there is to say of a stage's model before it is trained."""
        return {}

    def _trained(self, trainer: Any, rows: Rows, folder: Path) -> dict[str, Any]:
        """What there is to say of it afterwards, and to leave in its folder; all processes call it."""
        cached = trainer.teacher_cache_bytes
        return {} if cached is None else {"teacher_cache_bytes": cached}

    def _arguments(self, folder: Path, settings: str) -> Any:
        """The student's arguments, with the epochs and learning rate of another stage where it is one."""
        args = copy.copy(self.args)
        args.output_dir = str(folder)
        if settings != "student":
            args.num_train_epochs = getattr(args, f"{settings}_epochs")
            args.learning_rate = getattr(args, f"{settings}_learning_rate")
            args.attention_weight = 0.0
            args.hidden_weight = getattr(args, f"{settings}_hidden_weight", 0.0)
        return args


def _bytes_of(folder: Path, model: PreTrainedModel) -> int:
    """The size of the weights in `folder`; of a hub model, which lies in no folder of ours, that of its parameters."""
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return files or sum(p.numel() * p.element_size() for p in model.parameters())


def _read_note(folder: Path) -> StageResult | None:
    path = folder / NOTE_NAME
    return StageResult(**json.loads(path.read_text())) if path.is_file() else None


def _scores(found: dict[str, float], split: str) -> dict[str, float]:
    return {name.removeprefix(f"{split}_"): value for name, value in found.items() if not _is_timing(name)}


def _is_timing(name: str) -> bool:
    return name == "epoch" or name.endswith(("_runtime", "_per_second", "_model_preparation_time"))
