"""Metrics and figures of any saved text classifier, on validation, test, or both.

    accelerate launch recipes/evaluate_model.py --model_name_or_path runs/data_selection
    accelerate launch recipes/evaluate_model.py --model_name_or_path my/model --train_file train.jsonl --splits test

Where the model lies in the folder of a run, or is one of its checkpoints, the data are those of the run unless others
are named.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import yaml
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from tithe.evaluation import PeakMemory
from tithe.models import loaded_whole, one_line_errors
from tithe.recipes.arguments import parse_arguments, resolved_arguments
from tithe.recipes.classification_results import ClassificationRun, print_summary, write_run
from tithe.recipes.classifier import tokenise
from tithe.recipes.data import ClassificationData, DataArguments, load_classification_data
from tithe.recipes.errors import user_errors
from tithe.recipes.processes import end_processes
from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer


@dataclass
class EvaluationArguments:
    """Which model, on which rows, and where the results go."""

    model_name_or_path: str = field(metadata={"help": "Folder or hub id of a saved classifier: a run, a checkpoint …"})
    splits: list[str] = field(
        default_factory=lambda: ["validation", "test"], metadata={"help": "Any of `train`, `validation`, `test`."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for the results. Default: `evaluation` in the model's folder."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest input in tokens. Default: that of the run, else 128."}
    )
    per_device_batch_size: int = field(default=64, metadata={"help": "Rows per device and batch."})
    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU even where there is a GPU."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16."})

    def __post_init__(self) -> None:
        if unknown := [split for split in self.splits if split not in ("train", "validation", "test")]:
            raise ValueError(f"`splits` are train, validation, test; got {', '.join(unknown)}")
        if self.output_dir is None:
            inside = Path(self.model_name_or_path)
            self.output_dir = str(inside / "evaluation" if inside.is_dir() else Path("runs/evaluate_model"))
        if (Path(self.output_dir) / "run.yaml").exists():
            raise ValueError(f"`output_dir` {self.output_dir} is a run's, whose results must stay: choose another")


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    _run(sys.argv[1:] if argv is None else argv)
    end_processes()


def _run(argv: list[str]) -> None:
    start, memory = time.perf_counter(), PeakMemory()
    with user_errors():
        args, data_args = parse(argv)
        with memory.phase("loading"):
            trainer, tokenizer = _load(args)
            with PartialState().main_process_first():
                data = load_classification_data(data_args)
                splits = {
                    split: tokenise(getattr(data, split), tokenizer, args.max_length or 128) for split in args.splits
                }
        names = _outputs(trainer, data)
    loaded = time.perf_counter()
    with memory.phase("evaluation"):
        read = {split: trainer.signals(rows, {"probabilities"}) for split, rows in splits.items()}
    if not trainer.is_world_process_zero():
        return
    run = ClassificationRun(
        recipe="evaluate_model",
        folder=Path(str(args.output_dir)),
        names=names,
        splits={split: _renumbered(rows, data, names) for split, rows in splits.items()},
        probabilities={split: values["probabilities"] for split, values in read.items()},
        data={"name": data.name, "fingerprint": data.fingerprint, **data.report},
        memory=memory,
        args=resolved_arguments(args, data_args),
        timings={"loading": loaded - start, "evaluation": time.perf_counter() - loaded},
    )
    print_summary(write_run(run), run.folder)


def parse(argv: list[str]) -> tuple[EvaluationArguments, DataArguments]:
    """The arguments; what is not said of the data is taken from the `run.yaml` of the run that the model is of."""
    args, data_args = parse_arguments((EvaluationArguments, DataArguments), argv, __doc__)
    model = Path(args.model_name_or_path)
    found = next((folder / "run.yaml" for folder in (model, model.parent) if (folder / "run.yaml").is_file()), None)
    if found is None:
        return args, data_args
    settings = yaml.safe_load(found.read_text(encoding="utf-8"))
    args.max_length = args.max_length or settings.get("max_length")
    if data_args.dataset is None and data_args.train_file is None:
        known = {f.name for f in fields(DataArguments)}
        data_args = DataArguments(**{name: value for name, value in settings.items() if name in known})
    return args, data_args


def _load(args: EvaluationArguments) -> tuple[RoundSelectionTrainer, PreTrainedTokenizerBase]:
    """A trainer without training data: it places the model on the devices, and reads."""
    with loaded_whole(), one_line_errors(f"`model_name_or_path` {args.model_name_or_path} is no saved classifier"):
        tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
        model = AutoModelForSequenceClassification.from_pretrained(args.model_name_or_path)
    config = RoundSelectionConfig(
        args.output_dir,
        per_device_eval_batch_size=args.per_device_batch_size,
        use_cpu=args.use_cpu,
        bf16=args.bf16,
        report_to="none",
    )
    collate = DataCollatorWithPadding(tokenizer)
    return RoundSelectionTrainer(model, config, data_collator=collate, processing_class=tokenizer), tokenizer


def _outputs(trainer: RoundSelectionTrainer, data: ClassificationData) -> list[str]:
    """The names of the model's outputs, in order.

    Raises:
        ValueError: the data have a class that the model does not know.
    """
    names = [trainer.model.config.id2label[i] for i in range(trainer.model.config.num_labels)]
    if unknown := sorted(set(data.id2label.values()) - set(names)):
        raise ValueError(
            f"the data have the class {unknown[0]!r}, which the model does not know; it knows {names[:20]}"
        )
    return names


def _renumbered(rows: Dataset, data: ClassificationData, names: list[str]) -> Dataset:
    """`rows` with the labels numbered as the model's outputs are."""
    number = np.array([names.index(data.id2label[i]) for i in range(len(data.id2label))])
    labels = number[np.asarray(rows["label"][:])].tolist()
    return rows.select_columns(["text"]).add_column("label", labels)


if __name__ == "__main__":
    main()
