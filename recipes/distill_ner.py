"""Distil a named-entity tagger: fine-tune the teacher, factorise its embeddings, teach a small student.

    accelerate launch recipes/distill_ner.py
    accelerate launch recipes/distill_ner.py --config recipes/configs/distill_ner_conll2003.yaml
    accelerate launch recipes/distill_ner.py --train_file train.conll --stages student --teacher_checkpoint TEACHER

With neither data, model nor `--config` named it runs `configs/distill_ner.yaml`: the embedded corpus and a small
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
from tithe.recipes.ner_results import NerRun, print_summary, write_run
from tithe.recipes.ner_stages import STAGES, Stages
from tithe.recipes.run_folder import open_run
from tithe.recipes.stage_arguments import StagedConfig
from tithe.recipes.tagger import DEFAULT_TAGGER, SMALL, TaggerArguments
from tithe.recipes.tagging_data import TaggingArguments, TaggingData, load_tagging_data


_OWN_DATA = ("dataset", "train_file")


@dataclass
class DistillNerConfig(StagedConfig):
    """`StagedConfig`, which is the student's, with the defaults of this recipe and what the stages need."""

    all_stages = STAGES
    positive = (*StagedConfig.positive, "factorize_epochs", "factorize_learning_rate")

    output_dir: str | None = field(
        default="runs/distill_ner",
        metadata={"help": "Folder for all that the run leaves. A run started again in its folder goes on there."},
    )
    # Stages
    stages: list[str] = field(
        default_factory=lambda: list(STAGES),
        metadata={
            "help": "Which stages to run, of `teacher`, `factorize` and `student`. Without `teacher`, "
            "`teacher_checkpoint` is the teacher; without `factorize`, it teaches with plain embeddings."
        },
    )
    embedding_rank: int = field(default=64, metadata={"help": "Rank of the teacher's factorised word embeddings."})
    factorize_epochs: float = field(
        default=1.0, metadata={"help": "Epochs in which the factorised teacher is tuned again, by teacher and labels."}
    )
    factorize_learning_rate: float = field(default=3e-5, metadata={"help": "Its learning rate."})
    # Training
    metric_for_best_model: str | None = field(default="f1", metadata={"help": "What `best` means: a metric."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "help": "`group_by_length` batches rows of similar length, `random` does not, `sequential` keeps order."
        },
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sentences per device and step."})
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Sentences per device and batch in evaluation and when a teacher is run."}
    )


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
            data = _load_data(data_args)
            stages = Stages(data, model_args, args, memory)
    with user_errors(FloatingPointError):
        done = stages.run()
    if not PartialState().is_main_process:
        return
    run = NerRun(
        folder=folder,
        data=data,
        stages=done,
        memory=memory,
        args=resolved_arguments(data_args, model_args, args),
        timings={"total": time.perf_counter() - start, **{stage.name: stage.seconds for stage in done}},
    )
    print_summary(write_run(run), folder)


def parse(argv: list[str]) -> tuple[TaggingArguments, TaggerArguments, DistillNerConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "distill_ner") as argv:
        found = parse_arguments((TaggingArguments, TaggerArguments, DistillNerConfig), argv, __doc__)
    data_args, model_args, args = found
    if model_args.model_name_or_path is None:
        own = not any(getattr(data_args, name) for name in _OWN_DATA)
        model_args.model_name_or_path = SMALL if own else DEFAULT_TAGGER
    slow = args.teacher_learning_rate == DistillNerConfig.teacher_learning_rate
    if model_args.model_name_or_path == SMALL and "teacher" in args.stages and slow:
        raise ValueError(
            f"the `{SMALL}` teacher starts from nothing, and `teacher_learning_rate` {args.teacher_learning_rate} is "
            "meant for pretrained ones: pass --teacher_learning_rate 1e-3"
        )
    if args.student_initialization == "random" and args.learning_rate == TrainingArguments.learning_rate:
        raise ValueError(
            f"a student of random weights learns next to nothing at `learning_rate` {args.learning_rate}: pass "
            "--learning_rate 5e-4"
        )
    return data_args, model_args, args


def _load_data(data_args: TaggingArguments) -> TaggingData:
    with PartialState().main_process_first():  # the others find what the first one cached
        data = load_tagging_data(data_args)
    if PartialState().is_main_process:
        for found in ("misaligned", "converted", "empty"):
            counts = data.report.get(found)
            counts = counts if isinstance(counts, dict) else {"all": counts or 0}
            if any(counts.values()):
                print(f"{found} labels:", ", ".join(f"{k} {v}" for k, v in counts.items() if v), flush=True)
    return data


if __name__ == "__main__":
    main()
