"""Tune LoRA and a soft prompt of a sequence-to-sequence model, together or alone, on instructions and outputs.

    accelerate launch recipes/prompt_tune.py
    accelerate launch recipes/prompt_tune.py --method lora --output_dir runs/lora
    accelerate launch recipes/prompt_tune.py --config recipes/configs/prompt_tune_rut5.yaml

With neither data, model nor `--config` named it runs `configs/prompt_tune.yaml`: on the embedded corpus a small base
is trained to put dropped words back, and then adapted, frozen, to write a sentence from its keywords.
The run leaves the adapters in `adapted/`, and below `exports/` the same for plain PEFT and for plain Transformers.
Stopped at any moment and started again with the same arguments, it goes on to the same result.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import sys
from dataclasses import dataclass, field

from transformers import TrainingArguments

from tithe.recipes.arguments import parse_arguments
from tithe.recipes.config_files import over_own_config
from tithe.recipes.instruction_data import InstructionArguments, load_instruction_data
from tithe.recipes.prompt_results import print_summary, write_run
from tithe.recipes.prompt_stages import PromptStages
from tithe.recipes.run_defaults import RunDefaults
from tithe.recipes.seq2seq_model import DEFAULT_SEQ2SEQ_MODEL, SMALL, Seq2SeqModelArguments
from tithe.recipes.staged_run import StagedRecipe, name_model, run_stages
from tithe.trainers import PTSeq2SeqConfig


METHODS = ("lora", "prompt", "both")


@dataclass
class PromptTuneConfig(RunDefaults, PTSeq2SeqConfig):
    """`PTSeq2SeqConfig` with the defaults of this recipe, and what only the recipe knows."""

    output_dir: str | None = field(
        default="runs/prompt_tune",
        metadata={"help": "Folder for all that the run leaves. A run started again in its folder goes on there."},
    )
    method: str = field(
        default="both", metadata={"help": "What is tuned: `lora` of `lora_rank`, the `prompt`, or `both`."}
    )
    base_epochs: float = field(default=4.0, metadata={"help": f"Epochs in which the `{SMALL}` base is trained."})
    base_learning_rate: float = field(default=5e-3, metadata={"help": "Its learning rate."})
    sample_rows: int = field(
        default=6, metadata={"help": "Rows of test that the report shows by several ways of decoding."}
    )
    export_plain: bool = field(
        default=False,
        metadata={"help": "Write the whole model, merged, for plain Transformers too: as large as the base."},
    )
    # Training
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: `no`, `steps` or `epoch`."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the weights whose loss on validation was least."}
    )
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Rows per device and step."})
    per_device_eval_batch_size: int = field(
        default=32, metadata={"help": "Rows per device and batch in evaluation and generation."}
    )

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}; got {self.method!r}")
        if self.method == "lora":
            self.virtual_tokens = 0
        if self.method == "prompt":
            self.lora_rank = 0
        super().__post_init__()
        wanted = {"lora": ["lora_rank"], "prompt": ["virtual_tokens"], "both": ["lora_rank", "virtual_tokens"]}
        for name in wanted[self.method]:
            if not getattr(self, name):
                raise ValueError(f"`method` {self.method} needs `{name}` above 0")
        for name in ("base_epochs", "base_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if self.sample_rows < 0:
            raise ValueError(f"`sample_rows` must not be negative, got {self.sample_rows}")


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    recipe = StagedRecipe(
        parse=parse, load=load_instruction_data, stages=PromptStages, write=write_run, show=print_summary
    )
    run_stages(recipe, sys.argv[1:] if argv is None else argv)


def parse(argv: list[str]) -> tuple[InstructionArguments, Seq2SeqModelArguments, PromptTuneConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "prompt_tune") as argv:
        found = parse_arguments((InstructionArguments, Seq2SeqModelArguments, PromptTuneConfig), argv, __doc__)
    data_args, model_args, args = found
    name_model(data_args, model_args, small=SMALL, default=DEFAULT_SEQ2SEQ_MODEL)
    if args.learning_rate == TrainingArguments.learning_rate:
        args.learning_rate = 3e-4  # what is added starts from nothing: the parent's default is for whole models
    return data_args, model_args, args


if __name__ == "__main__":
    main()
