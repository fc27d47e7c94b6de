"""The stages of distilling a language model: the teacher fine-tuned, or taken as it is, and the student."""

from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq

from tithe.evaluation import PeakMemory, language_intervals
from tithe.models import build_student
from tithe.recipes.distillation_stages import DistillationStages
from tithe.recipes.language_data import LanguageArguments, LanguageData, packed
from tithe.recipes.language_model import (
    LanguageModelArguments,
    language_metrics,
    load_language_model,
    open_language_model,
    token_sums,
)
from tithe.recipes.splits import SPLITS
from tithe.recipes.stages import Rows, StageResult


class LanguageStages(DistillationStages):
    """Runs the stages that `args` ask for, in order, each unless it is finished already.

    Raises:
        ValueError: the model cannot be loaded, the blocks are longer than it reads, or the student is impossible;
            before anything is trained.
    """

    auto = AutoModelForCausalLM

    def __init__(
        self,
        data: LanguageData,
        data_args: LanguageArguments,
        model_args: LanguageModelArguments,
        args: Any,
        memory: PeakMemory,
    ) -> None:
        super().__init__(args, memory)
        self.trainer_options = {
            "compute_metrics": language_metrics,
            "preprocess_logits_for_metrics": token_sums,
        }
        self._start: Any
        if args.teacher_checkpoint is None:
            source, initial = str(model_args.model_name_or_path), self.root / "initial_model"
            self._start, self.tokenizer = load_language_model(
                source, model_args.model_revision, initial, data.train, args.seed
            )
        else:
            self._start, self.tokenizer = open_language_model(args.teacher_checkpoint, None, "teacher_checkpoint")
        self._check(data_args.block_size)
        with PartialState().main_process_first():
            self.rows = {split: packed(getattr(data, split), self.tokenizer, data_args.block_size) for split in SPLITS}
        for split, rows in self.rows.items():
            if not len(rows):
                raise ValueError(f"{split} has too few tokens for a language model: nothing can be predicted")
        # it alone pads labels, too, which the last block of a split needs
        self.collate = DataCollatorForSeq2Seq(self.tokenizer)

    def _check(self, block_size: int) -> None:
        """Refuse now what would be refused after hours of training."""
        most = getattr(self._start.config, "max_position_embeddings", None)
        if most is not None and block_size > most:
            raise ValueError(f"`block_size` must be at most {most}, what this model reads; got {block_size}")
        if "student" in self.args.stages:
            build_student(self._start, initialize=self.args.student_initialization, **self._shape())

    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included."""
        given = self.args.teacher_checkpoint
        if given is None:
            teacher = self.root / "teacher"
            done = [self._stage("teacher", lambda: self._start, [], "teacher")]
        else:
            teacher = Path(given)
            done = [self._measured("teacher", teacher)]
        if "student" in self.args.stages:
            done.append(self._stage("student", lambda: self._student(teacher), [teacher], "student"))
            if self.args.train_alone:
                done.append(self._stage("student_alone", lambda: self._student(teacher), [], "student"))
        return done

    def _untrained(self, trainer: Any, name: str) -> dict[str, Any]:
        before = trainer.evaluate(self.rows["test"], metric_key_prefix="untrained")
        return {"perplexity untrained": before["untrained_perplexity"]}

    def _trained(self, trainer: Any, rows: Rows, folder: Path) -> dict[str, Any]:
        sums = trainer.predict(rows["test"]).predictions
        return super()._trained(trainer, rows, folder) | {"intervals": language_intervals(sums, self.args.seed)}
