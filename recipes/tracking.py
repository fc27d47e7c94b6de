"""Scores of a run to TensorBoard, ClearML and what else `report_to` names, where no Trainer has logged them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers.integrations import get_available_reporting_integrations


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
        if name not in installed:
            raise ValueError(
                f"`report_to` {name} is not installed here; found {', '.join(installed) or 'no tracker'}. For "
                'ClearML: pip install "tithe[tracking]"'
            )
    return names


def log_scores(names: Sequence[str], folder: Path, project: str, scores: Mapping[str, float]) -> None:
    """Log `scores`, by name, as step 0 of a run of `project` to the trackers `names`; files lie in `folder`/runs."""
    if not names:
        return
    accelerator = Accelerator(log_with=list(names), project_dir=str(folder / "runs"))
    accelerator.init_trackers(project)
    values: dict[str, Any] = {name: float(value) for name, value in scores.items() if value == value}
    accelerator.log(values, step=0)
    accelerator.end_training()
