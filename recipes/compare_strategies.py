"""Compare strategies: each with every seed and budget on one data set, in tables, figures and a report.

    accelerate launch recipes/compare_strategies.py
    tithe compare_strategies --dataset my/data --strategies random margin k_center --seeds 42 1 2 --budgets 0.05 0.1

Every run is the recipe `data_selection` in a process of its own, and takes its other flags from here. Started again
with the same arguments, it skips the runs that are complete and goes on with the others. With neither data, model nor
`--config` named it runs `configs/compare_strategies.yaml`.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import dataclasses
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tithe.evaluation import FULL, write_atomic
from tithe.recipes import data_selection
from tithe.recipes.arguments import ArgumentError, parse_arguments, resolved_arguments, secret_flags
from tithe.recipes.classifier import ModelArguments
from tithe.recipes.comparison_progress import Progress, run_name
from tithe.recipes.comparison_results import write_comparison
from tithe.recipes.comparison_runs import (
    FAILED,
    Run,
    RunPool,
    leave_launcher,
    locked,
    slim,
    stopped_by_signals,
    visible_devices,
)
from tithe.recipes.config_files import RunDumper, over_own_config, read_config
from tithe.recipes.data import DataArguments
from tithe.recipes.data_selection import DataSelectionConfig
from tithe.recipes.errors import user_errors
from tithe.recipes.run_folder import another_run
from tithe.selection import STRATEGIES, get_strategy


# Fields of a single run, and what says the same of a comparison.
_OF_ONE_RUN = {
    "strategy": "pass `--strategies`",
    "strategy_kwargs": 'pass `--strategy_options \'{"k_center": {"robust": 0.01}}\'`',
    "seed": "pass `--seeds`",
    "budget": "pass `--budgets`",
    "resume_from_checkpoint": "each run of a comparison resumes by itself",
    "push_to_hub": "a comparison publishes no models",
}
# With one of these a config is that of a single run: its place is not that of the comparison either.
_CONFIG_OF_ONE_RUN = ("strategy", "seed", "budget")
_MARKER = "comparison.yaml"
_FILES = ("comparison.json", "tables.md", "test.csv", "validation.csv", "report.html", "figures", "runs", "run.yaml")


@dataclass
class ComparisonConfig(DataSelectionConfig):
    """What is compared; all else is passed to every run."""

    output_dir: str | None = field(
        default="runs/compare_strategies", metadata={"help": "Folder for the comparison; its runs lie below `runs`."}
    )
    strategies: list[str] = field(
        default_factory=lambda: list(STRATEGIES), metadata={"help": "Names of the strategies, as `--strategy` takes."}
    )
    seeds: list[int] = field(default_factory=lambda: [42, 1, 2], metadata={"help": "Seeds: one run with each."})
    budgets: list[float] = field(
        default_factory=lambda: [0.1],
        metadata={"help": "Budgets, as `--budget` takes; `all` has none, and runs once with each seed."},
    )
    processes: int = field(default=1, metadata={"help": "How many runs go on at the same time."})
    strategy_options: dict[str, Any] | None = field(
        default=None, metadata={"help": 'Hyper-parameters by strategy, as JSON: {"k_center": {"robust": 0.01}}.'}
    )
    overrides: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Other arguments by strategy, as JSON. An epoch of `all` has ten times the rows of one at a "
            'budget of 0.1: {"all": {"num_train_epochs": 3}}.'
        },
    )
    keep_models: bool = field(
        default=False, metadata={"help": "Keep the weights and checkpoints of runs that are complete."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("strategies", "seeds", "budgets"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"`{name}` must name at least one, and each once; got {values}")
        if self.processes < 1:
            raise ValueError(f"`processes` must be at least 1, got {self.processes}")
        for name in ("strategy_options", "overrides"):
            for strategy, values in (getattr(self, name) or {}).items():
                get_strategy(strategy)
                if not isinstance(values, dict):
                    raise ValueError(f"`{name}` of {strategy} must be a mapping, got {values!r}")
        known = {f.name for f in dataclasses.fields(DataSelectionConfig) if f.init}
        known -= {*_OF_ONE_RUN, "output_dir", "overwrite"}
        for strategy, values in (self.overrides or {}).items():
            if unknown := sorted(values.keys() - known):
                raise ValueError(f"`overrides` of {strategy}: `{unknown[0]}` is no argument of training")
        for strategy in self.strategies:
            get_strategy(strategy, **(self.strategy_options or {}).get(strategy, {}))


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    if os.environ.get("RANK", "0") != "0":
        return  # a launcher started several of us: the first one compares
    leave_launcher(os.environ)
    with ExitStack() as held:
        with user_errors():
            data_args, model_args, args = parse(sys.argv[1:] if argv is None else argv)
            args.check_extras()
            folder = _claim(Path(str(args.output_dir)))
            lock = held.enter_context(locked(folder))
            settings = _settings(args, data_args, model_args)
            secret = secret_flags(data_args)  # written to no file: a run gets them from its command line alone
            runs = _prepare(folder, settings, args, secret)
        progress = Progress(runs)
        pool = RunPool(
            runs,
            args.processes,
            progress.update,
            extra_flags=secret,
            keep_models=args.keep_models,
            devices=[] if args.use_cpu else visible_devices(),
            lock=lock,
        )
        try:
            with stopped_by_signals(), progress.shown():
                pool.run()
        finally:
            _conclude(folder, runs, write_comparison(folder, runs, settings))
    if any(run.state == FAILED for run in runs):
        raise SystemExit(1)


def parse(argv: list[str]) -> tuple[DataArguments, ModelArguments, ComparisonConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    for flag in argv:
        name = flag.partition("=")[0].removeprefix("--")
        if flag.startswith("--") and name in _OF_ONE_RUN:
            raise ArgumentError(f"`--{name}` is for a single run: {_OF_ONE_RUN[name]}")
    with over_own_config(argv, "compare_strategies") as argv, tempfile.TemporaryDirectory() as scratch:
        parsed = parse_arguments(
            (DataArguments, ModelArguments, ComparisonConfig), _without_single_run(argv, Path(scratch)), __doc__
        )
    data_args, model_args, args = parsed
    return data_args, model_args, args


def _without_single_run(argv: list[str], scratch: Path) -> list[str]:
    """`argv`; a config file of a single run is replaced by a copy in `scratch` without what is of that run alone."""
    found, place = [], 0
    while place < len(argv):
        name, joined, value = argv[place].partition("=")
        if name != "--config":
            found.append(argv[place])
            place += 1
            continue
        words = argv[place : place + (1 if joined else 2)]
        copy = _copy_without_single_run(Path(value if joined else words[-1]), scratch / str(place))
        found += words if copy is None else ["--config", str(copy)]
        place += len(words)
    return found


def _copy_without_single_run(path: Path, scratch: Path) -> Path | None:
    try:
        values = read_config(path)
    except (OSError, ValueError, yaml.YAMLError):
        return None  # for the parser to complain of
    dropped = [name for name in _OF_ONE_RUN if values.get(name) is not None]
    if any(name in values for name in _CONFIG_OF_ONE_RUN):
        dropped += ["output_dir"] if "output_dir" in values else []
    if not dropped:
        return None
    print(f"left out of {path}, as of a single run: {', '.join(dropped)}", flush=True)
    scratch.mkdir()
    copy = scratch / f"{path.stem}.yaml"
    _write_yaml(copy, {name: value for name, value in values.items() if name not in dropped})
    return copy


def _claim(folder: Path) -> Path:
    """`folder`, unless it holds what a comparison would overwrite and no comparison wrote."""
    if not (folder / _MARKER).exists() and (found := [name for name in _FILES if (folder / name).exists()]):
        raise ValueError(
            f"`output_dir` {folder} is no comparison's, and holds {found[0]}: choose another folder for the comparison"
        )
    return folder


def _settings(args: ComparisonConfig, *others: Any) -> dict[str, Any]:
    """What reproduces the comparison."""
    return {
        name: value
        for name, value in resolved_arguments(*others, args).items()
        if name not in (*_OF_ONE_RUN, "overwrite")
    }


def _prepare(folder: Path, settings: dict[str, Any], args: ComparisonConfig, secret: list[str]) -> list[Run]:
    """The runs, those that are complete with their results; after every flag of each was checked.

    Raises:
        ValueError: the arguments of a run are wrong, or its folder holds one with others.
    """
    own = {name for name in ComparisonConfig.__annotations__ if name in ComparisonConfig.__dataclass_fields__}
    shared = {name: value for name, value in settings.items() if name not in own}
    path = folder / "settings.yaml"
    runs = [
        _run(folder, strategy, budget, seed, args)
        for seed in args.seeds  # the outermost: what there is at any time compares fairly
        for strategy, budget in _cells(args)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / path.name
        _write_yaml(draft, shared)
        for run in runs:
            wanted = resolved_arguments(*data_selection.parse(["--config", str(draft), *run.flags, *secret]))
            if not args.overwrite and (difference := another_run(run.folder, wanted)):
                raise ValueError(
                    f"{run.folder} holds a run with other arguments: {difference}; choose another `output_dir`, or "
                    "pass --overwrite true to run all again"
                )
    _write_yaml(folder / _MARKER, settings)
    _write_yaml(path, shared)
    for run in runs:
        run.flags = ["--config", str(path), *run.flags]
        if args.overwrite:
            run.flags += ["--overwrite", "true"]
        elif run.find_results() and not args.keep_models:
            slim(run.folder)  # the comparison may have been stopped in between
    return runs


def _cells(args: ComparisonConfig) -> list[tuple[str, float | None]]:
    whole: list[tuple[str, float | None]] = [(FULL, None)] if FULL in args.strategies else []
    return whole + [(name, budget) for budget in args.budgets for name in args.strategies if name != FULL]


def _run(folder: Path, strategy: str, budget: float | None, seed: int, args: ComparisonConfig) -> Run:
    amount = None if budget is None else f"{budget:.12g}"
    name = "-".join(part for part in (strategy.replace(":", "+"), amount, f"seed{seed}") if part)
    place = folder / "runs" / name
    flags = ["--strategy", strategy, "--seed", str(seed), "--output_dir", str(place), "--disable_tqdm", "true"]
    if amount is not None:
        flags += ["--budget", amount]
    if options := (args.strategy_options or {}).get(strategy):
        flags += ["--strategy_kwargs", json.dumps(options)]
    for key, value in (args.overrides or {}).get(strategy, {}).items():
        flags += [f"--{key}", *_words(value)]
    return Run(strategy, budget, seed, place, flags)


def _words(value: Any) -> list[str]:
    """A value as the words of a command line."""
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    return [json.dumps(value) if isinstance(value, dict | bool) else str(value)]


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    write_atomic(path, yaml.dump(values, Dumper=RunDumper, sort_keys=False, allow_unicode=True))


def _conclude(folder: Path, runs: list[Run], notes: list[str]) -> None:
    for run in runs:
        if run.state == FAILED:
            print(f"failed: {run_name(run)}: {run.reason}", file=sys.stderr)
    for note in notes:
        print(note)
    if (folder / "report.html").exists():
        print((folder / "tables.md").read_text(encoding="utf-8"))
        print(f"report: {folder / 'report.html'}", flush=True)


if __name__ == "__main__":
    main()
