"""Whose `output_dir` is this, and how far has its run come?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from tithe.recipes.arguments import resolved_arguments, save_run_yaml
from tithe.trainers import last_finished_checkpoint
from tithe.trainers.checkpoints import remove_checkpoint


# What may differ between two starts of one run; its folder may have been moved, or be named from elsewhere.
_IMMATERIAL = {"output_dir", "overwrite", "disable_tqdm", "resume_from_checkpoint", "log_level", "track_emissions"}
_CHECKPOINTS = "checkpoint-*"
# What a run has to show for itself once it has begun to train.
_PRODUCED = ("results.json", "rounds.jsonl", _CHECKPOINTS)
_FILES = (
    *("results.json", "rounds.jsonl", "ledger.safetensors", "trainer_state.json", "report.html", "report.json"),
    *("README.md", "predictions.parquet", "memory_usage.json", "emissions.json", "model.safetensors", "config.json"),
)
_FOLDERS = ("figures", "initial_model", "runs")


def open_run(
    folder: Path, *arguments: Any, overwrite: bool = False, produces: Sequence[str] = ()
) -> tuple[bool, Path | None]:
    """Claim `folder`, an `output_dir`, for the run that `arguments` describe, by writing its `run.yaml`.

    Started again with the same arguments, a run goes on where it was stopped, or is found complete.

    Args:
        folder: made if missing.
        arguments: the dataclasses that `parse_arguments` gave.
        overwrite: delete what another run left there. A folder without a `run.yaml` is never touched.
        produces: files and folders that the recipe leaves beside those that all do.

    Returns:
        Whether the run is complete, and else the finished checkpoint it should go on from, or None.

    Raises:
        ValueError: the folder belongs to another run, and in what it differs; or it is no run's and not free.
    """
    state = PartialState()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`output_dir` {folder} is a file: name a folder")
    with state.main_process_first():
        if not (folder / "run.yaml").exists():
            if found := [name for name in (*_FILES, *_FOLDERS, _CHECKPOINTS, *produces) if list(folder.glob(name))]:
                raise ValueError(
                    f"`output_dir` {folder} is no run's, and holds {found[0]}, which a run would overwrite: choose "
                    "another folder"
                )
        elif overwrite and state.is_main_process:
            _clear(folder, produces)
        elif difference := _difference(folder, resolved_arguments(*arguments)):
            if any(list(folder.glob(name)) for name in (*_PRODUCED, *produces)):
                raise ValueError(
                    f"`output_dir` {folder} holds another run: {difference}; choose another folder or pass "
                    "--overwrite true"
                )
            _clear(folder, produces)  # that run came to nothing: its data were refused, say
        if not (folder / "run.yaml").exists() and state.is_main_process:
            save_run_yaml(folder / "run.yaml", *arguments)
    if (folder / "results.json").exists():
        return True, None
    return False, last_finished_checkpoint(folder)


def another_run(folder: Path, wanted: dict[str, Any]) -> str | None:
    """In what the run that has begun in `folder` differs from one of the arguments `wanted`; None if there is none."""
    if not (folder / "run.yaml").exists() or not any(list(folder.glob(name)) for name in _PRODUCED):
        return None
    return _difference(folder, wanted)


def _difference(folder: Path, wanted: dict[str, Any]) -> str | None:
    """In what the arguments of the run in `folder` differ from `wanted`, or None where they do not."""
    found = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8")) or {}
    for name in sorted((found.keys() | wanted.keys()) - _IMMATERIAL):
        if found.get(name) != wanted.get(name):
            return f"its `{name}` is {found.get(name)}, this one's is {wanted.get(name)}"
    return None


def _clear(folder: Path, produced: Sequence[str] = ()) -> None:
    """Delete what the run in `folder` left, and nothing else that may lie there; what makes it a run's goes last."""
    for path in [*folder.glob(_CHECKPOINTS), *(folder / name for name in (*_FILES, *_FOLDERS, *produced))]:
        if path.is_dir():
            remove_checkpoint(path)
        else:
            path.unlink(missing_ok=True)
    (folder / "run.yaml").unlink(missing_ok=True)
