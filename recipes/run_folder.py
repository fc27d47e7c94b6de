"""Whose `output_dir` is this, and how far has its run come?"""

import shutil
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from tithe.recipes.arguments import resolved_arguments, save_run_yaml
from tithe.trainers import finished_checkpoints, last_finished_checkpoint


# What may differ between two starts of one run.
_IMMATERIAL = {"overwrite", "disable_tqdm", "resume_from_checkpoint", "log_level"}
_FILES = ("run.yaml", "results.json", "rounds.jsonl", "ledger.safetensors", "trainer_state.json", "report.html")
_MORE = ("predictions.parquet", "memory_usage.json", "README.md", "model.safetensors", "config.json")
_FOLDERS = ("figures", "initial_model", "runs")


def open_run(folder: Path, *arguments: Any, overwrite: bool = False) -> tuple[bool, Path | None]:
    """Claim `folder`, an `output_dir`, for the run that `arguments` describe, by writing its `run.yaml`.

    Started again with the same arguments, a run goes on where it was stopped, or is found complete.

    Args:
        folder: made if missing.
        arguments: the dataclasses that `parse_arguments` gave.
        overwrite: delete what another run left there.

    Returns:
        Whether the run is complete, and else the finished checkpoint it should go on from, or None.

    Raises:
        ValueError: the folder belongs to another run; says in what it differs.
    """
    state = PartialState()
    with state.main_process_first():
        if overwrite and state.is_main_process:
            _clear(folder)
        if (folder / "run.yaml").exists():
            _check_same(folder, resolved_arguments(*arguments))
        elif left := [name for name in ("results.json", "trainer_state.json") if (folder / name).exists()] or [
            path.name for path in folder.glob("checkpoint-*")
        ]:
            raise ValueError(
                f"`output_dir` {folder} holds {left[0]} of another run: choose another folder or pass --overwrite true"
            )
        elif state.is_main_process:
            save_run_yaml(folder / "run.yaml", *arguments)
    if (folder / "results.json").exists():
        return True, None
    return False, last_finished_checkpoint(folder)


def _check_same(folder: Path, wanted: dict[str, Any]) -> None:
    found = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8")) or {}
    for name in sorted((found.keys() | wanted.keys()) - _IMMATERIAL):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"`output_dir` {folder} holds another run: its `{name}` is {found.get(name)}, this one's is "
                f"{wanted.get(name)}; choose another folder, or pass --overwrite true"
            )


def _clear(folder: Path) -> None:
    """Delete what a run leaves, and nothing else that may lie there; the results first, so that none outlives it."""
    for name in ("results.json", *_FILES, *_MORE):
        (folder / name).unlink(missing_ok=True)
    for path in [*finished_checkpoints(folder), *folder.glob("checkpoint-*"), *(folder / name for name in _FOLDERS)]:
        shutil.rmtree(path, ignore_errors=True)
