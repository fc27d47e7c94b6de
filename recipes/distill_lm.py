"""Distil a causal language model: fine-tune the teacher on the texts, or take it as it is, and teach a small student.

    accelerate launch recipes/distill_lm.py
    accelerate launch recipes/distill_lm.py --config recipes/configs/distill_lm_smollm2.yaml --train_file texts.jsonl
    accelerate launch recipes/distill_lm.py --train_file texts.txt --stages student --teacher_checkpoint TEACHER

With neither data, model nor `--config` named it runs `configs/distill_lm.yaml`: the embedded corpus and a small
teacher. Each stage leaves its model in a folder of its own. Stopped at any moment and started again with the same
arguments, a run goes on to the same result: a stage that is finished is not done again.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import sys
from dataclasses import dataclass, field

from tithe.recipes.arguments import parse_arguments
from tithe.recipes.config_files import over_own_config
from tithe.recipes.language_data import LanguageArguments, load_language_data
from tithe.recipes.language_model import DEFAULT_LANGUAGE_MODEL, SMALL, LanguageModelArguments
from tithe.recipes.lm_results import print_summary, write_run
from tithe.recipes.lm_stages import LanguageStages
from tithe.recipes.run_defaults import check_best_metric
from tithe.recipes.stage_arguments import StagedConfig
from tithe.recipes.staged_run import StagedRecipe, check_learning_rates, name_model, run_stages


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
    train_sampling_strategy: str = field(
        default="random", metadata={"help": "`random`, or `sequential`; blocks are of one length."}
    )
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
    recipe = StagedRecipe(
        parse=parse, load=load_language_data, stages=LanguageStages, write=write_run, show=print_summary
    )
    run_stages(recipe, sys.argv[1:] if argv is None else argv)


def parse(argv: list[str]) -> tuple[LanguageArguments, LanguageModelArguments, DistillLmConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "distill_lm") as argv:
        found = parse_arguments((LanguageArguments, LanguageModelArguments, DistillLmConfig), argv, __doc__)
    data_args, model_args, args = found
    check_best_metric(args.metric_for_best_model, ("perplexity", "token_accuracy"))
    name_model(data_args, model_args, small=SMALL, default=DEFAULT_LANGUAGE_MODEL)
    check_learning_rates(model_args, args, small=SMALL, from_nothing="2e-3")
    return data_args, model_args, args


if __name__ == "__main__":
    main()
