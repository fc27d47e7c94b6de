"""What a recipe tells the trackers of `report_to` beside what its Trainers log: arguments, scores, figures."""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from tithe.evaluation import mask
from tithe.trainers.clearml_callback import open_task
from tithe.trainers.command_line import command_line_hidden
from tithe.trainers.trackers import (
    read_picture,
    show_in_clearml,
    show_in_tensorboard,
    show_in_wandb,
    tensorboard_writer,
)


_EXTRA = ("clearml", "wandb")  # what tithe[tracking] brings
_PROJECT = "tithe"


def trackers(report_to: None | str | Sequence[str]) -> list[str]:
    """The trackers that `report_to` names, each of which is installed.

    Raises:
        ValueError: one is not.

    >>> trackers("none"), trackers(["tensorboard"])
    ([], ['tensorboard'])
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    installed = get_available_reporting_integrations()
    if names == ["all"]:
        return installed
    names = [name for name in names if name != "none"]
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"`report_to` {name} is no tracker; there are {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
            )
        if name not in installed:
            package = '"tithe[tracking]"' if name in _EXTRA else name.replace("_", "-")
            found = ", ".join(installed) or "no tracker"
            raise ValueError(f"`report_to` {name} is not installed here; found {found}: pip install {package}")
    return names


def name_run(folder: Path) -> None:
    """Let trackers call the run what its folder is called, in a project `tithe`, unless the environment says other."""
    for variable in ("CLEARML_PROJECT", "WANDB_PROJECT"):
        os.environ.setdefault(variable, _PROJECT)
    for variable in ("CLEARML_TASK", "WANDB_NAME"):
        os.environ.setdefault(variable, folder.resolve().name)


def log_run(report_to: None | str | Sequence[str], folder: Path, results: Mapping[str, Any]) -> None:
    """Log a complete run to the trackers: `args` and `metrics` of its `results`, and the figures in its folder.

    To be called on process 0. A run is begun where no Trainer has begun one. A tracker that fails is warned of.
    """
    values = results["metrics"].items()
    scores = {f"{split}/{name}": float(v) for split, found in values for name, v in found.items() if _is_number(v)}
    figures = {f"figures/{path.stem}": path for path in sorted((folder / "figures").glob("*.png"))}
    for name in trackers(report_to):
        log = _LOGS.get(name)
        try:
            with command_line_hidden():
                if log is not None:
                    log(folder, results["args"], scores, figures)
        except Exception as error:  # of a network, a server or a disk: the run itself is complete
            warnings.warn(
                f"{name} failed, and lacks results: {type(error).__name__}: {mask(str(error))}", stacklevel=2
            )


def log_scores(report_to: None | str | Sequence[str], folder: Path, scores: Mapping[str, float]) -> None:
    """Log `scores`, by name, to those trackers that only Trainers log to, for a run in which there was none."""
    names = [name for name in trackers(report_to) if name not in _LOGS]
    if not names:
        return
    accelerator = Accelerator(log_with=names, project_dir=str(folder / "runs"))
    with command_line_hidden():
        accelerator.init_trackers(_PROJECT)
    accelerator.log({name: float(value) for name, value in scores.items() if _is_number(value)}, step=0)
    accelerator.end_training()


Scores = Mapping[str, float]
Figures = Mapping[str, Path]


def _log_to_tensorboard(folder: Path, args: Mapping[str, Any], scores: Scores, figures: Figures) -> None:
    with tensorboard_writer(folder / "runs" / "results") as writer:
        writer.add_text("arguments", "```json\n" + json.dumps(args, indent=2, default=str) + "\n```")
        for name, value in scores.items():
            writer.add_scalar(name, value, 0)
        for name, path in figures.items():
            show_in_tensorboard(writer, name, read_picture(path), 0)


def _log_to_clearml(folder: Path, args: Mapping[str, Any], scores: Scores, figures: Figures) -> None:
    task = open_task()
    task.connect(dict(args), name="Recipe")
    for name, value in scores.items():
        task.get_logger().report_single_value(name, value)
    for name, path in figures.items():
        show_in_clearml(name, read_picture(path), 0)


def _log_to_wandb(folder: Path, args: Mapping[str, Any], scores: Scores, figures: Figures) -> None:
    import wandb

    run = wandb.run or wandb.init()
    run.config.update({"recipe": dict(args)}, allow_val_change=True)
    run.summary.update(dict(scores))
    for name, path in figures.items():
        show_in_wandb(name, read_picture(path), 0)


_LOGS: dict[str, Callable[[Path, Mapping[str, Any], Scores, Figures], None]] = {
    "tensorboard": _log_to_tensorboard,
    "clearml": _log_to_clearml,
    "wandb": _log_to_wandb,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
