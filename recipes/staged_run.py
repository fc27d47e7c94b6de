"""What every distillation recipe does around its stages: its folder, data and models, and what the run leaves."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import TrainingArguments
from transformers.utils import logging

from tithe.evaluation import Emissions, MemoryTimeline, PeakMemory, read_results
from tithe.recipes.arguments import resolved_arguments
from tithe.recipes.cards import publish
from tithe.recipes.corpus import CORPUS_NAME
from tithe.recipes.emissions_tracking import emissions_tracked
from tithe.recipes.errors import user_errors
from tithe.recipes.loading import QuantisedArguments
from tithe.recipes.processes import end_processes
from tithe.recipes.run_folder import open_run
from tithe.recipes.stages import StageResult, StageRunner
from tithe.recipes.tracking import log_run, name_run


@dataclass
class StagedRun:
    """All that the files of a run are made of.

    `rows` are as its models take them, `timeline` samples of memory; `publish` puts the model of a folder on the hub,
    where that is asked for.
    """

    folder: Path
    data: Any
    rows: Mapping[str, Dataset]
    stages: Sequence[StageResult]
    memory: PeakMemory
    timeline: Sequence[Mapping[str, Any]]
    args: Mapping[str, Any]
    timings: Mapping[str, float]
    emissions: Emissions | None = None
    publish: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class StagedRecipe:
    """What is a recipe's own.

    Attributes:
        parse: makes the arguments of data, model and training out of flags.
        load: reads the data that the first of them names.
        stages: is given data, the three arguments and the memory, and has the stages.
        write: writes the files of a run, and returns its results.
        show: prints results and the path of the report.
    """

    parse: Callable[[list[str]], tuple[Any, Any, Any]]
    load: Callable[[Any], Any]
    stages: Callable[[Any, Any, Any, Any, PeakMemory], StageRunner]
    write: Callable[[StagedRun], dict[str, Any]]
    show: Callable[[Mapping[str, Any], Path], None]


def run_stages(recipe: StagedRecipe, argv: list[str]) -> None:
    """Run `recipe` with the flags `argv`, from where it was stopped; a complete run is only shown."""
    memory = PeakMemory()
    timeline = MemoryTimeline(memory)
    try:
        _run(recipe, argv, memory, timeline)
    finally:
        timeline.stop()
    end_processes()


def _run(recipe: StagedRecipe, argv: list[str], memory: PeakMemory, timeline: MemoryTimeline) -> None:
    start = time.perf_counter()
    with user_errors():
        data_args, model_args, args = recipe.parse(argv)
        folder = Path(str(args.output_dir))
        name_run(folder)
        overwrite, args.overwrite = args.overwrite, False  # said once: a run repeated by its run.yaml must not delete
        complete, _ = open_run(folder, data_args, model_args, args, overwrite=overwrite)
        if complete:
            if PartialState().is_main_process:
                print(f"the run in {folder} is complete; to run it again, pass --overwrite true")
                recipe.show(read_results(folder / "results.json"), folder)
            return
    with ExitStack() as tracked:
        with user_errors():
            args.check_extras()
            if isinstance(model_args, QuantisedArguments):
                model_args.check_extras()
            tracker = tracked.enter_context(emissions_tracked(args.track_emissions, folder))
            logging.set_verbosity(args.get_process_log_level())
            warnings.filterwarnings("ignore", message="'pin_memory' argument is set")  # on every machine without a GPU
            logging.disable_progress_bar()
            with memory.phase("loading"):
                with PartialState().main_process_first():  # the others find what the first one cached
                    data = recipe.load(data_args)
                stages = recipe.stages(data, data_args, model_args, args, memory)
        with user_errors(FloatingPointError):
            done = stages.run()
    if not PartialState().is_main_process:
        return
    run = StagedRun(
        folder=folder,
        data=data,
        rows=stages.rows,
        stages=done,
        memory=memory,
        timeline=timeline.stop(),
        args=resolved_arguments(data_args, model_args, args),
        timings={"total": time.perf_counter() - start, **{stage.name: stage.seconds for stage in done}},
        emissions=None if tracker is None else tracker.stop(),
        publish=partial(publish, args) if args.push_to_hub else None,
    )
    results = recipe.write(run)
    log_run(args.report_to, folder, results)
    recipe.show(results, folder)


def name_model(data_args: Any, model_args: Any, *, small: str, default: str) -> None:
    """Where no model is named: `small` on the embedded corpus, `default` on data of the user's own."""
    if model_args.model_name_or_path is None:
        files = data_args.train_file or data_args.test_file
        own = files or data_args.dataset not in (None, CORPUS_NAME)
        model_args.model_name_or_path = default if own else small


def check_learning_rates(model_args: Any, args: Any, *, small: str, from_nothing: str) -> None:
    """Raise a `ValueError` where a model would start from nothing at a learning rate meant for pretrained ones.

    Args:
        small: the name of the model that starts from nothing.
        from_nothing: a learning rate for it.
    """
    slow = args.teacher_learning_rate == type(args).teacher_learning_rate
    if model_args.model_name_or_path == small and "teacher" in args.stages and slow:
        raise ValueError(
            f"the `{small}` teacher starts from nothing, and `teacher_learning_rate` {args.teacher_learning_rate} is "
            f"meant for pretrained ones: pass --teacher_learning_rate {from_nothing}"
        )
    if args.student_initialization == "random" and args.learning_rate == TrainingArguments.learning_rate:
        raise ValueError(
            f"a student of random weights learns next to nothing at `learning_rate` {args.learning_rate}: pass "
            "--learning_rate 5e-4"
        )
