"""Find the batch that fits, then hyper-parameters, then train with them: `data_selection`, tuned.

    accelerate launch recipes/tune.py
    tithe tune --train_file train.jsonl --model_name_or_path MODEL --trials 25 --processes 2

With neither data, model nor a config of them it runs `configs/tune.yaml`. All trials run on a sample of the training
rows. The best values are left in `hyperparameters.yaml`, which any recipe that trains takes by a further `--config`.
Stopped at any moment and started again with the same arguments, it goes on; started in several terminals, all share
the trials.
Under a launcher of several processes each searches on its own, and then all train the main run together.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import os
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from filelock import FileLock
from transformers.utils import logging

from tithe.evaluation import MemoryTimeline, PeakMemory, give_back_memory, read_results, write_atomic
from tithe.recipes import data_selection
from tithe.recipes.arguments import parse_arguments, resolved_arguments, secret_flags
from tithe.recipes.classifier import SMALL, ModelArguments
from tithe.recipes.comparison_runs import leave_launcher
from tithe.recipes.config_files import RunDumper, over_own_config
from tithe.recipes.data import DataArguments, load_classification_data
from tithe.recipes.errors import user_errors
from tithe.recipes.run_folder import open_run
from tithe.recipes.tracking import log_run, name_run
from tithe.recipes.tuning_arguments import BATCH_SIZE, PRETRAINED_RATES, RUN, SEARCH, STAGES, TuneConfig
from tithe.recipes.tuning_results import TunedRun, print_summary, write_search, write_tuned
from tithe.recipes.tuning_stages import (
    BATCH_NAME,
    BEST_NAME,
    TRIALS_NAME,
    TuningStages,
    helpers,
    read_batch,
    read_tuning,
    take_device,
)
from tithe.trainers.study import STUDY_NAME


SETTINGS_NAME, RUN_FOLDER = "settings.yaml", "run"
_PRODUCES = (STUDY_NAME, BATCH_NAME, BEST_NAME, TRIALS_NAME, SETTINGS_NAME, RUN_FOLDER, "workers", "trials.csv")
_TUNED = "tithe/tuned"
_LONG = timedelta(days=30)


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    argv = sys.argv[1:] if argv is None else argv
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        _prepare_in_one(argv, processes)
    memory = PeakMemory()
    timeline = MemoryTimeline(memory)
    try:
        _run(argv, memory, timeline, processes)
    finally:
        timeline.stop()


def parse(argv: list[str]) -> tuple[DataArguments, ModelArguments, TuneConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "tune") as argv:
        data_args, model_args, args = parse_arguments((DataArguments, ModelArguments, TuneConfig), argv, __doc__)
    if model_args.model_name_or_path is None and not (data_args.dataset or data_args.train_file):
        model_args.model_name_or_path = SMALL
    if model_args.model_name_or_path == SMALL and args.learning_rate_range == list(PRETRAINED_RATES):
        raise ValueError(
            f"the `{SMALL}` model starts from nothing, and `learning_rate_range` {args.learning_rate_range} is meant "
            "for pretrained ones: pass --learning_rate_range 3e-4 3e-3"
        )
    return data_args, model_args, args


def _run(argv: list[str], memory: PeakMemory, timeline: MemoryTimeline, processes: int) -> None:
    timings: dict[str, float] = {}
    with user_errors():
        data_args, model_args, args = parse(argv)
        folder = Path(str(args.output_dir))
        name_run(folder)
        stages, overwrite, searching = args.stages, args.overwrite, args.processes
        # What may differ between two starts is not part of the run.
        args.stages, args.overwrite, args.processes = list(STAGES), False, 1
        args.run_processes = max(processes, args.run_processes)
        complete, _ = open_run(
            folder, data_args, model_args, args, overwrite=overwrite and processes == 1, produces=_PRODUCES
        )
        args.stages, args.processes = stages, searching
        if complete:
            if args.process_index == 0:
                print(f"the run in {folder} is complete; to run it again, pass --overwrite true")
                print_summary(read_results(folder / "results.json"), folder)
            return
        args.check_extras()
        if processes == 1:
            _prepare(data_args, model_args, args, memory, timings)
        if RUN not in stages:
            _say(args, f"hyper-parameters: {folder / BEST_NAME}" if (folder / BEST_NAME).exists() else "")
            return
        if not (folder / BEST_NAME).exists():
            raise ValueError(f"{folder} has no {BEST_NAME}: let `stages` have `{SEARCH}`, too")
    _train(folder, data_args, model_args, args, memory, timeline, timings)


def _prepare(
    data_args: DataArguments,
    model_args: ModelArguments,
    args: TuneConfig,
    memory: PeakMemory,
    timings: dict[str, float],
) -> None:
    """The batch size and the search, as far as `args` ask for them and an earlier start has not done them."""
    if not {BATCH_SIZE, SEARCH} & set(args.stages):
        return
    logging.set_verbosity(args.get_process_log_level())
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set")  # on every machine without a GPU
    folder, devices = Path(str(args.output_dir)), take_device(args)
    with memory.phase("loading"):
        stages = TuningStages(load_classification_data(data_args), model_args, args)
    start = time.perf_counter()
    with FileLock(str(folder / ".batch.lock")), memory.phase(BATCH_SIZE):  # others that join wait for the batch
        batch = stages.batch(search=BATCH_SIZE in args.stages)
    timings[BATCH_SIZE] = time.perf_counter() - start
    if batch.found is not None and BATCH_SIZE in args.stages:
        print(
            f"batch size: {batch.found['rows']} rows of {batch.found['length']} tokens fit; {batch.per_device} per "
            f"device, accumulated {batch.accumulation} times",
            flush=True,
        )
    if SEARCH in args.stages:
        start = time.perf_counter()
        flags = ["--config", str(folder / "run.yaml"), "--output_dir", str(folder), *secret_flags(data_args)]
        with helpers(args, flags, devices), memory.phase(SEARCH):
            found = stages.search(batch)
        timings[SEARCH] = time.perf_counter() - start
        write_search(folder, args, batch, found)
    del stages
    give_back_memory()


def _train(
    folder: Path,
    data_args: DataArguments,
    model_args: ModelArguments,
    args: TuneConfig,
    memory: PeakMemory,
    timeline: MemoryTimeline,
    timings: dict[str, float],
) -> None:
    """The main run, unless another process that searched with this one has it in hand."""
    settings = _settings(data_args, model_args, args)
    is_first = args.process_index == 0
    with FileLock(str(folder / ".run.lock")) if is_first else nullcontext():
        if is_first:
            write_atomic(
                folder / SETTINGS_NAME, yaml.dump(settings, Dumper=RunDumper, sort_keys=False, allow_unicode=True)
            )
        PartialState().wait_for_everyone()
        start = time.perf_counter()
        flags = [
            "--config",
            str(folder / SETTINGS_NAME),
            "--config",
            str(folder / BEST_NAME),
            *secret_flags(data_args),
        ]
        with memory.phase(RUN):
            data_selection.main([*flags, "--output_dir", str(folder / RUN_FOLDER)])
        timings[RUN] = time.perf_counter() - start
        if not is_first:
            return
        tuned = TunedRun(
            folder=folder,
            run=read_results(folder / RUN_FOLDER / "results.json"),
            found=read_tuning(folder),
            batch=read_batch(folder),
            args=resolved_arguments(data_args, model_args, args),
            timings=timings,
            memory=memory,
            timeline=timeline.stop(),
        )
        results = write_tuned(tuned, args)
        log_run(args.report_to, folder, results)
        print_summary(results, folder)


def _settings(data_args: DataArguments, model_args: ModelArguments, args: TuneConfig) -> dict[str, Any]:
    """The arguments of the main run, before the best values go over them."""
    own = {*TuneConfig.__annotations__, "overwrite", "resume_from_checkpoint"}
    resolved = resolved_arguments(data_args, model_args, args)
    return {name: value for name, value in resolved.items() if name not in own}


def _prepare_in_one(argv: list[str], processes: int) -> None:
    """Let the first of several processes run batch size and search in processes of their own; the others wait."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise SystemExit(
            "error: under this launcher the processes cannot wait for the search: run `tithe tune --stages batch_size "
            "search` without it, and then the recipe with `--config hyperparameters.yaml`"
        )
    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False)
    if os.environ.get("RANK") != "0":
        store.wait([_TUNED], _LONG)
        return
    environment = dict(os.environ)
    leave_launcher(environment)
    own = ["--processes", str(processes), "--run_processes", str(processes)]
    command = [sys.executable, "-m", "tithe.recipes.tune", *own, *argv, "--stages", BATCH_SIZE, SEARCH]
    if code := subprocess.run(command, env=environment).returncode:
        raise SystemExit(code)
    store.set(_TUNED, "yes")


def _say(args: TuneConfig, line: str) -> None:
    if line and args.process_index == 0:
        print(line, flush=True)


if __name__ == "__main__":
    main()
