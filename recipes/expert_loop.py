"""Few labels and many teachers: a student that asks for labels, beside the same student with all of them.

    accelerate launch recipes/expert_loop.py
    accelerate launch recipes/expert_loop.py --method compare
    accelerate launch recipes/expert_loop.py --config recipes/configs/expert_loop_medmcqa.yaml

`--method supervised` trains the student on all labels of the pool, `distillation` with teachers beside them,
`expert_loop` on the labels that it asks for; `compare` runs all three, and the loop with random queries, on the same
data, student and seed, and makes one report. With neither data, model nor `--config` named it runs
`configs/expert_loop.yaml`: the embedded corpus, a small student, two small teachers. With `--oracle file` the run ends
where it needs labels, says which file to fill in (`tithe label FILE`), and goes on when started again. Stopped at any
moment and started again with the same arguments, it goes on to the same result.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import math
import sys
from dataclasses import dataclass, field
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments

from tithe.evaluation import CLASSIFICATION_METRICS
from tithe.recipes.arguments import parse_arguments
from tithe.recipes.choice_data import LoopDataArguments
from tithe.recipes.classifier import SMALL, ModelArguments
from tithe.recipes.config_files import over_own_config
from tithe.recipes.loop_data import load_loop_data
from tithe.recipes.loop_results import print_summary, write_run
from tithe.recipes.loop_stages import CONTROL, LoopStages
from tithe.recipes.run_defaults import RunDefaults, check_best_metric
from tithe.recipes.staged_run import StagedRecipe, run_stages
from tithe.trainers import ExpertLoopConfig, LabelsWanted
from tithe.trainers.file_oracle import FORMATS


METHODS = ("supervised", "distillation", "expert_loop")
COMPARE = "compare"
ORACLES = ("column", "ensemble", "file")


@dataclass
class LoopConfig(RunDefaults, ExpertLoopConfig):
    """`ExpertLoopConfig` with the defaults of this recipe, and what only the recipe knows."""

    output_dir: str | None = field(
        default="runs/expert_loop",
        metadata={"help": "Folder for all that the run leaves. A run started again in its folder goes on there."},
    )
    method: str = field(
        default="expert_loop",
        metadata={
            "help": "`supervised` (all labels of the pool), `distillation` (with teachers beside them), `expert_loop` "
            "(the labels that are asked for), or `compare`: all three, and the loop with random queries."
        },
    )
    # Teachers
    teacher_models: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Hub ids or folders of models to fine-tune into teachers on `teacher_rows`; `{SMALL}` builds one."
        },
    )
    teacher_rows: int = field(
        default=0, metadata={"help": "Rows of train that teachers learn from; they are not in the pool."}
    )
    teacher_epochs: float = field(default=3.0, metadata={"help": "Epochs in which teachers are fine-tuned."})
    teacher_learning_rate: float | None = field(
        default=None, metadata={"help": "Their learning rate. Default: `learning_rate`."}
    )
    teacher_checkpoints: list[str] | None = field(
        default=None, metadata={"help": "Folders or hub ids of teachers that are fine-tuned already."}
    )
    # Labels
    oracle: str = field(
        default="column",
        metadata={
            "help": "Who gives labels: the `column` of the data, as a stand-in for a person; the `ensemble` of "
            "teachers where it is sure, else the column; or a person, through a `file`."
        },
    )
    ensemble_threshold: float = field(
        default=0.9, metadata={"help": "Least probability at which the ensemble's label counts."}
    )
    ask_person: bool = field(
        default=False, metadata={"help": "Rows that the ensemble is not sure of go to a person, through a file."}
    )
    query_format: str = field(default=".jsonl", metadata={"help": "Of query files: `.jsonl` or `.csv`."})
    # The methods that have all labels
    supervised_epochs: float = field(
        default=3.0, metadata={"help": "Epochs of `supervised` and `distillation`, on all labels of the pool."}
    )
    supervised_learning_rate: float | None = field(
        default=None, metadata={"help": "Their learning rate. Default: `learning_rate`."}
    )
    # Training
    metric_for_best_model: str | None = field(default="accuracy", metadata={"help": "What a plateau is of: a metric."})

    @property
    def methods(self) -> tuple[str, ...]:
        """What is trained, in order."""
        if self.method != COMPARE:
            return (self.method,)
        with_teachers = bool(self.teacher_models or self.teacher_checkpoints)
        return tuple(m for m in (*METHODS, CONTROL) if m != "distillation" or with_teachers)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in (*METHODS, COMPARE):
            raise ValueError(f"`method` must be one of {', '.join((*METHODS, COMPARE))}; got {self.method!r}")
        if self.oracle not in ORACLES:
            raise ValueError(f"`oracle` must be one of {', '.join(ORACLES)}; got {self.oracle!r}")
        if self.query_format not in FORMATS:
            raise ValueError(f"`query_format` must be `.jsonl` or `.csv`, got {self.query_format!r}")
        if self.teacher_models and self.teacher_checkpoints:
            raise ValueError("give `teacher_models`, to be fine-tuned, or `teacher_checkpoints`, not both")
        if self.teacher_models and self.teacher_rows < 1:
            raise ValueError("`teacher_models` are fine-tuned on `teacher_rows`: say how many, such as 1000")
        teachers = self.teacher_models or self.teacher_checkpoints
        if not teachers and (self.method == "distillation" or self.oracle == "ensemble"):
            what = "`method` distillation" if self.method == "distillation" else "`oracle` ensemble"
            raise ValueError(
                f"{what} needs teachers: pass `teacher_models` and `teacher_rows`, or `teacher_checkpoints`"
            )
        if {"expert_loop", CONTROL} & set(self.methods):
            self.epochs_of_iteration(math.ceil(self.num_train_epochs))
            if self.iteration_start == "initial" and (self.deepspeed_plugin is not None or self.fsdp):
                raise ValueError(
                    "under DeepSpeed and FSDP the weights of the start cannot be put back: pass --iteration_start warm"
                )
        if not 0 <= self.ensemble_threshold <= 1:
            raise ValueError(f"`ensemble_threshold` must be a probability, from 0 to 1; got {self.ensemble_threshold}")
        for name in ("teacher_epochs", "supervised_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    recipe = StagedRecipe(parse=parse, load=load_loop_data, stages=LoopStages, write=write_run, show=print_summary)
    try:
        run_stages(recipe, sys.argv[1:] if argv is None else argv)
    except LabelsWanted as wanted:
        if PartialState().is_main_process:
            print(wanted, flush=True)


def parse(argv: list[str]) -> tuple[LoopDataArguments, ModelArguments, LoopConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "expert_loop") as argv:
        found: Any = parse_arguments((LoopDataArguments, ModelArguments, LoopConfig), argv, __doc__)
    data_args, model_args, args = found
    check_best_metric(args.metric_for_best_model, CLASSIFICATION_METRICS)
    if model_args.model_name_or_path is None and not (data_args.dataset or data_args.train_file):
        model_args.model_name_or_path = SMALL
    if model_args.model_name_or_path == SMALL and args.learning_rate == TrainingArguments.learning_rate:
        raise ValueError(
            f"the `{SMALL}` model starts from nothing, and `learning_rate` {args.learning_rate} is meant for "
            "pretrained ones: pass --learning_rate 1e-3"
        )
    return data_args, model_args, args


if __name__ == "__main__":
    main()
