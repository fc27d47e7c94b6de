"""Distil a named-entity tagger: fine-tune the teacher, factorise its embeddings, teach a small student.

    accelerate launch recipes/distill_ner.py
    accelerate launch recipes/distill_ner.py --config recipes/configs/distill_ner_conll2003.yaml
    accelerate launch recipes/distill_ner.py --train_file train.conll --stages student --teacher_checkpoint TEACHER

With neither data, model nor `--config` named it runs `configs/distill_ner.yaml`: the embedded corpus and a small
teacher. Each stage leaves its model in a folder of its own. Stopped at any moment and started again with the same
arguments, a run goes on to the same result: a stage that is finished is not done again.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import sys
from dataclasses import dataclass, field

from accelerate import PartialState

from tithe.evaluation import ENTITY_METRICS
from tithe.recipes.arguments import parse_arguments
from tithe.recipes.config_files import over_own_config
from tithe.recipes.ner_results import print_summary, write_run
from tithe.recipes.ner_stages import STAGES, Stages
from tithe.recipes.run_defaults import check_best_metric
from tithe.recipes.stage_arguments import StagedConfig
from tithe.recipes.staged_run import StagedRecipe, check_learning_rates, name_model, run_stages
from tithe.recipes.tagger import DEFAULT_TAGGER, SMALL, TaggerArguments
from tithe.recipes.tagging_data import TaggingArguments, TaggingData, load_tagging_data


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
    factorize_hidden_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of its `hidden_weight` loss, which holds all its layers to the teacher's."},
    )
    # Training
    metric_for_best_model: str | None = field(default="f1", metadata={"help": "What `best` means: a metric."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sentences per device and step."})


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    recipe = StagedRecipe(
        parse=parse,
        load=_load_data,
        stages=lambda data, _, model_args, args, memory: Stages(data, model_args, args, memory),
        write=write_run,
        show=print_summary,
    )
    run_stages(recipe, sys.argv[1:] if argv is None else argv)


def parse(argv: list[str]) -> tuple[TaggingArguments, TaggerArguments, DistillNerConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "distill_ner") as argv:
        found = parse_arguments((TaggingArguments, TaggerArguments, DistillNerConfig), argv, __doc__)
    data_args, model_args, args = found
    check_best_metric(args.metric_for_best_model, ENTITY_METRICS)
    name_model(data_args, model_args, small=SMALL, default=DEFAULT_TAGGER)
    check_learning_rates(model_args, args, small=SMALL, from_nothing="1e-3")
    return data_args, model_args, args


def _load_data(data_args: TaggingArguments) -> TaggingData:
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
