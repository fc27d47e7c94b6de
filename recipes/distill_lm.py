"""Distil a causal language model: fine-tune the teacher on the texts, or take it as it is, and teach a small student.

    accelerate launch recipes/distill_lm.py
    accelerate launch recipes/distill_lm.py --config recipes/configs/distill_lm_smollm2.yaml --train_file texts.jsonl
    accelerate launch recipes/distill_lm.py --train_file texts.txt --stages student --teacher_checkpoint TEACHER

With neither data, model nor `--config` named it runs `configs/distill_lm.yaml`: the embedded corpus and a small
teacher. Each stage leaves its model in a folder of its own. Stopped at any moment and started again with the same
arguments, a run goes on to the same result: a stage that is finished is not done again.
"""

import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from transformers import TrainingArguments
from transformers.utils import logging

from tithe.evaluation import PeakMemory, read_results
from tithe.recipes.arguments import parse_arguments, resolved_arguments, user_errors
from tithe.recipes.config_files import over_own_config
from tithe.recipes.language_data import LanguageArguments, load_language_data
from tithe.recipes.language_model import DEFAULT_LANGUAGE_MODEL, SMALL, LanguageModelArguments
from tithe.recipes.lm_results import LanguageRun, print_summary, write_run
from tithe.recipes.lm_stages import LanguageStages
from tithe.recipes.run_folder import open_run
from tithe.recipes.stage_arguments import StagedConfig


_OWN_DATA = ("dataset", "train_file")
_SMALLER_IS_BETTER = ("perplexity", "loss")


@dataclass
class DistillLmConfig(StagedConfig):
    """`StagedConfig`, which is the student's, with the defaults of this recipe."""

    output_dir: str | None = field(
        default="runs/distill_lm",
        metadata={"help": "Folder for all that the run leaves. A run started again in its folder goes on there."},
    )
    teacher_checkpoint: str | None = field(
        default=None,
        metadata={"help": "Folder or hub id of a language model that teaches as it is: no stage `teacher` then."},
    )
    metric_for_best_model: str | None = field(default="perplexity", metadata={"help": "What `best` means: a metric."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Blocks per device and step."})
    per_device_eval_batch_size: int = field(
        default=16, metadata={"help": "Blocks per device and batch in evaluation and when a teacher is run."}
    )

    def __post_init__(self) -> None:
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = self.metric_for_best_model.removeprefix("eval_") not in _SMALLER_IS_BETTER
        super().__post_init__()


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    start, memory = time.perf_counter(), PeakMemory()
    with user_errors():
        data_args, model_args, args = parse(sys.argv[1:] if argv is None else argv)
        folder = Path(str(args.output_dir))
        overwrite, args.overwrite = args.overwrite, False  # said once: a run repeated by its run.yaml must not delete
        complete, _ = open_run(folder, data_args, model_args, args, overwrite=overwrite)
        if complete:
            if PartialState().is_main_process:
                print(f"the run in {folder} is complete; to run it again, pass --overwrite true")
                print_summary(read_results(folder / "results.json"), folder)
            return
        logging.set_verbosity(args.get_process_log_level())
        warnings.filterwarnings("ignore", message="'pin_memory' argument is set")  # on every machine without a GPU
        logging.disable_progress_bar()
        with memory.phase("loading"):
            with PartialState().main_process_first():  # the others find what the first one cached
                data = load_language_data(data_args)
            stages = LanguageStages(data, data_args, model_args, args, memory)
    with user_errors(FloatingPointError):
        done = stages.run()
    if not PartialState().is_main_process:
        return
    run = LanguageRun(
        folder=folder,
        data=data,
        blocks={split: len(rows) for split, rows in stages.rows.items()},
        stages=done,
        memory=memory,
        args=resolved_arguments(data_args, model_args, args),
        timings={"total": time.perf_counter() - start, **{stage.name: stage.seconds for stage in done}},
    )
    print_summary(write_run(run), folder)


def parse(argv: list[str]) -> tuple[LanguageArguments, LanguageModelArguments, DistillLmConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "distill_lm") as argv:
        found = parse_arguments((LanguageArguments, LanguageModelArguments, DistillLmConfig), argv, __doc__)
    data_args, model_args, args = found
    if model_args.model_name_or_path is None:
        own = not any(getattr(data_args, name) for name in _OWN_DATA)
        model_args.model_name_or_path = SMALL if own else DEFAULT_LANGUAGE_MODEL
    slow = args.teacher_learning_rate == DistillLmConfig.teacher_learning_rate
    if model_args.model_name_or_path == SMALL and "teacher" in args.stages and slow:
        raise ValueError(
            f"the `{SMALL}` teacher starts from nothing, and `teacher_learning_rate` {args.teacher_learning_rate} is "
            "meant for pretrained ones: pass --teacher_learning_rate 2e-3"
        )
    if args.student_initialization == "random" and args.learning_rate == TrainingArguments.learning_rate:
        raise ValueError(
            f"a student of random weights learns next to nothing at `learning_rate` {args.learning_rate}: pass "
            "--learning_rate 5e-4"
        )
    return data_args, model_args, args


if __name__ == "__main__":
    main()
