"""The arguments that every distillation recipe has: its stages, the student's shape, and how both are trained."""

from dataclasses import dataclass, field
from typing import ClassVar

from tithe.recipes.run_defaults import RunDefaults
from tithe.trainers import DistillationConfig


@dataclass
class StagedConfig(RunDefaults, DistillationConfig):
    """`DistillationConfig`, which is the student's, with the defaults of the recipes and what their stages need.

    Raises:
        ValueError: `stages` and `teacher_checkpoint` contradict each other, or a value is out of range.
    """

    all_stages: ClassVar[tuple[str, ...]] = ("teacher", "student")
    positive: ClassVar[tuple[str, ...]] = ("teacher_epochs", "teacher_learning_rate")

    # Stages
    stages: list[str] = field(
        default_factory=lambda: ["teacher", "student"],
        metadata={
            "help": "Which stages to run, of `teacher` and `student`. Without `teacher`, `teacher_checkpoint` is the "
            "teacher."
        },
    )
    teacher_checkpoint: str | None = field(
        default=None,
        metadata={"help": "Folder of a model that is fine-tuned already, for the stages after it."},
    )
    teacher_epochs: float = field(default=3.0, metadata={"help": "Epochs in which the teacher is fine-tuned."})
    teacher_learning_rate: float = field(default=5e-5, metadata={"help": "Its learning rate."})
    # The student
    student_layers: int | None = field(default=None, metadata={"help": "Layers. Default: half the teacher's."})
    student_hidden_size: int | None = field(
        default=None, metadata={"help": "Width. Default: the teacher's, or the widest within `max_parameters`."}
    )
    student_heads: int | None = field(default=None, metadata={"help": "Attention heads. Default: by the width."})
    student_intermediate_size: int | None = field(
        default=None, metadata={"help": "Width of the feed-forward blocks. Default: in the teacher's proportion."}
    )
    student_embedding_rank: int | None = field(
        default=None, metadata={"help": "Factorise the student's word embeddings too, with this rank."}
    )
    max_parameters: int = field(default=20_000_000, metadata={"help": "The most parameters a student may have."})
    student_initialization: str = field(
        default="teacher", metadata={"help": "First weights of the student: from the `teacher`'s layers, or `random`."}
    )
    train_alone: bool = field(
        default=False, metadata={"help": "Train the same student by the labels alone, too, to compare."}
    )
    # Training
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: `no`, `steps` or `epoch`."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End each stage with the weights that scored best on validation."}
    )
    num_train_epochs: float = field(default=5.0, metadata={"help": "Epochs in which the student is trained."})

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [stage for stage in self.stages if stage not in self.all_stages]
        if unknown or not self.stages:
            raise ValueError(
                f"`stages` must be some of {', '.join(self.all_stages)}; got {', '.join(self.stages) or 'none'}"
            )
        if "teacher" in self.stages and self.teacher_checkpoint is not None:
            raise ValueError("`teacher_checkpoint` is fine-tuned already: leave `teacher` out of `stages`")
        if "teacher" not in self.stages and self.teacher_checkpoint is None:
            raise ValueError("without the stage `teacher`, pass `teacher_checkpoint`, the folder of a model")
        for name in self.positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if self.student_initialization not in ("teacher", "random"):
            raise ValueError(
                f"`student_initialization` must be `teacher` or `random`, got {self.student_initialization!r}"
            )
