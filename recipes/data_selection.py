"""Train a text classifier on a budget of its data, chosen in rounds by a strategy.

    accelerate launch recipes/data_selection.py
    accelerate launch recipes/data_selection.py --train_file train.jsonl --budget 0.1 --strategy k_center

With neither data, model nor `--config` named it runs `configs/data_selection.yaml`: the embedded corpus and a small
model. Stopped at any moment and started again with the same arguments, it goes on to the same result.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import sys
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, TrainingArguments
from transformers.utils import logging

from tithe.evaluation import CARD_NAME, CLASSIFICATION_METRICS, ClassificationMetrics, PeakMemory, read_results
from tithe.recipes.arguments import parse_arguments, resolved_arguments
from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.cards import facts_of, publish
from tithe.recipes.classification_results import ClassificationRun, print_summary, write_run
from tithe.recipes.classifier import SMALL, ModelArguments, load_classifier, tokenise
from tithe.recipes.config_files import over_own_config
from tithe.recipes.data import ClassificationData, DataArguments, load_classification_data
from tithe.recipes.emissions_tracking import emissions_tracked
from tithe.recipes.errors import user_errors
from tithe.recipes.pool_view import describe_selection, view_pool
from tithe.recipes.processes import end_processes
from tithe.recipes.run_defaults import RunDefaults, check_best_metric
from tithe.recipes.run_folder import open_run
from tithe.recipes.tracking import log_run, name_run
from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer


_OWN_DATA = ("dataset", "train_file")


@dataclass
class DataSelectionConfig(RunDefaults, RoundSelectionConfig):
    """`RoundSelectionConfig` with the defaults of this recipe, and what only the recipe knows."""

    output_dir: str | None = field(
        default="runs/data_selection",
        metadata={"help": "Folder for all that the run leaves. A run started again in its folder goes on there."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better `metric_for_best_model`."}
    )
    map_points: int = field(
        default=5000, metadata={"help": "How many rows of the pool the map shows beside the chosen ones."}
    )
    proxy: str | None = field(
        default="linear", metadata={"help": RoundSelectionConfig.__dataclass_fields__["proxy"].metadata["help"]}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: `no`, `steps` or `epoch`."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "How many checkpoints to keep; the best and the last always stay."}
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the weights that scored best on validation."}
    )
    metric_for_best_model: str | None = field(
        default="f1_macro", metadata={"help": "What `best` means: any of the metrics, or `loss`."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"`early_stopping_patience` must be at least 1, got {self.early_stopping_patience}")
        if self.map_points < 1:
            raise ValueError(f"`map_points` must be at least 1, got {self.map_points}")


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    with ExitStack() as tracked:
        _run(sys.argv[1:] if argv is None else argv, tracked)
    end_processes()


def _run(argv: list[str], tracked: ExitStack) -> None:
    start, memory = time.perf_counter(), PeakMemory()
    with user_errors():
        data_args, model_args, args = parse(argv)
        folder = Path(str(args.output_dir))
        name_run(folder)
        overwrite, args.overwrite = args.overwrite, False  # said once: a run repeated by its run.yaml must not delete
        complete, checkpoint = open_run(folder, data_args, model_args, args, overwrite=overwrite)
        if complete:
            if PartialState().is_main_process:
                print(f"the run in {folder} is complete; to run it again, pass --overwrite true")
                print_summary(read_results(folder / "results.json"), folder)
            return
        args.check_extras()
        tracker = tracked.enter_context(emissions_tracked(args.track_emissions, folder))
        with memory.phase("loading"):
            data = _load_data(data_args)
            # Not before: what reproduces the run, and is written down, is where the user said, which may be nowhere.
            named, args.signal_cache = args.signal_cache, args.signal_cache or str(cache_dir() / "signals")
            trainer, test = _make_trainer(data, model_args, args)
        resumed = args.resume_from_checkpoint or (str(checkpoint) if checkpoint else None)
        trainer.check_resume(resumed)
    loaded = time.perf_counter()
    with user_errors(FloatingPointError), memory.phase("training"):
        trainer.train(resumed)
    trained = time.perf_counter()
    with memory.phase("evaluation"):
        run = _evaluate(trainer, test, data, args, memory)
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    trainer.save_state()
    run.timings = _timings(trainer, start, loaded, trained)
    run.emissions = None if tracker is None else tracker.stop()
    run.publish = partial(publish, args, files=[CARD_NAME]) if args.push_to_hub else None
    args.signal_cache = named
    run.args = resolved_arguments(data_args, model_args, args)
    results = write_run(run)
    log_run(args.report_to, folder, results)
    print_summary(results, folder)


def parse(argv: list[str]) -> tuple[DataArguments, ModelArguments, DataSelectionConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "data_selection") as argv:
        return _parsed(argv)


def _parsed(argv: list[str]) -> tuple[DataArguments, ModelArguments, DataSelectionConfig]:
    data_args, model_args, args = parse_arguments((DataArguments, ModelArguments, DataSelectionConfig), argv, __doc__)
    check_best_metric(args.metric_for_best_model, CLASSIFICATION_METRICS)
    if model_args.model_name_or_path is None and not any(getattr(data_args, name) for name in _OWN_DATA):
        model_args.model_name_or_path = SMALL
    if model_args.model_name_or_path == SMALL and args.learning_rate == TrainingArguments.learning_rate:
        raise ValueError(
            f"the `{SMALL}` model starts from nothing, and `learning_rate` {args.learning_rate} is meant for "
            "pretrained ones: pass --learning_rate 1e-3"
        )
    return data_args, model_args, args


def _load_data(data_args: DataArguments) -> ClassificationData:
    with PartialState().main_process_first():  # the others find what the first one cached
        data = load_classification_data(data_args)
    found = {name: count for name, count in data.report["duplicates"].items() if count}
    if found and PartialState().is_main_process:
        print("duplicates:", ", ".join(f"{name} {count}" for name, count in found.items()), flush=True)
    return data


def _make_trainer(
    data: ClassificationData, model_args: ModelArguments, args: DataSelectionConfig
) -> tuple[RoundSelectionTrainer, Dataset]:
    """The trainer, and the tokenised test split."""
    logging.set_verbosity(args.get_process_log_level())
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set")  # on every machine without a GPU
    logging.disable_progress_bar()  # one for every file written or read; those of training and of the pool stay
    model, tokenizer = load_classifier(model_args, data, Path(str(args.output_dir)) / "initial_model", args.seed)
    with PartialState().main_process_first():
        train, validation, test = (
            tokenise(rows, tokenizer, model_args.max_length) for rows in (data.train, data.validation, data.test)
        )
    stopping = [] if args.early_stopping_patience is None else [EarlyStoppingCallback(args.early_stopping_patience)]
    trainer = RoundSelectionTrainer(
        model,
        args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=ClassificationMetrics(),
        callbacks=stopping,
    )
    return trainer, test


def _evaluate(
    trainer: RoundSelectionTrainer,
    test: Dataset,
    data: ClassificationData,
    args: DataSelectionConfig,
    memory: PeakMemory,
) -> ClassificationRun:
    """Read validation, test, and the part of the pool that the map shows; on all processes, for the first one."""
    splits: dict[str, Any] = {"validation": trainer.eval_dataset, "test": test}
    read = {split: trainer.signals(rows, {"probabilities"}) for split, rows in splits.items()}
    view = view_pool(trainer, args.map_points)
    return ClassificationRun(
        recipe="data_selection",
        folder=Path(str(args.output_dir)),
        names=[data.id2label[i] for i in range(len(data.id2label))],
        splits=splits,
        probabilities={split: values["probabilities"] for split, values in read.items() if values},
        data={"name": data.name, "fingerprint": data.fingerprint, **data.report},
        memory=memory,
        rounds=trainer.ledger.rows,
        history=trainer.state.log_history,
        selection=describe_selection(trainer, view) if view else {},
        pool=view,
        card=facts_of(trainer),
    )


def _timings(trainer: RoundSelectionTrainer, start: float, loaded: float, trained: float) -> dict[str, float]:
    """Seconds of this start of the run; what reading the pool and choosing took is part of `training`."""
    chosen = {name: sum(row["seconds"][name] for row in trainer.ledger.rows) for name in ("scoring", "selecting")}
    now = time.perf_counter()
    return {"loading": loaded - start, "training": trained - loaded, **chosen, "evaluation": now - trained}


if __name__ == "__main__":
    main()
