"""Stages that train a student, by teachers or without any: what the distillation recipes and the loop share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from tithe.models import build_student, loaded_whole
from tithe.recipes.stages import Rows, StageResult, StageRunner, scores_of
from tithe.trainers import DistillationTrainer


_SAMPLE_ROWS = 256


class DistillationStages(StageRunner):
    """A `StageRunner` with what its stages train by `DistillationTrainer`.

    Its `__init__` sets, beside what a `StageRunner`'s does, `collate`, and `trainer_options`, what its trainers get
    besides data and model. `auto` is its class of models.
    """

    auto: Any
    collate: Any
    trainer_options: dict[str, Any]

    def _student(self, teacher: str | Path) -> PreTrainedModel:
        with loaded_whole():
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

    def _measured(self, name: str, folder: Path) -> StageResult:
        """A model that is there already, evaluated."""
        with loaded_whole():
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
            split: scores_of(trainer.evaluate(self.rows[split], metric_key_prefix=split), split)
            for split in ("validation", "test")
        }
        speed = self._speed(model, self.rows["test"], self.collate)
        return self._result(name, folder, model, metrics, speed, 0.0, [], {})

    def _trained(self, trainer: Any, rows: Rows, folder: Path) -> dict[str, Any]:
        cached = trainer.teacher_cache_bytes
        return {} if cached is None else {"teacher_cache_bytes": cached}

    def _arguments(self, folder: Path, settings: str) -> Any:
        """The student's arguments, with the epochs and learning rate of another stage where it is one."""
        if settings == "student":
            return self._arguments_in(folder)
        return self._arguments_in(
            folder,
            num_train_epochs=getattr(self.args, f"{settings}_epochs"),
            learning_rate=getattr(self.args, f"{settings}_learning_rate"),
            attention_weight=0.0,
            hidden_weight=getattr(self.args, f"{settings}_hidden_weight", 0.0),
        )
