"""`tithe report RUN`: a run's report from what lies in its folder, whether it has ended or not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tithe.evaluation import (
    Section,
    learning_curve,
    loss_curve,
    read_results,
    rewrite_report,
    run_sections,
    write_report,
)
from tithe.recipes.config_files import read_config
from tithe.recipes.stage_results import series
from tithe.recipes.stages import NOTE_NAME, StageResult, read_note
from tithe.trainers import last_finished_checkpoint


_PAGE = "report.html"
_ROUNDS = "rounds.jsonl"


def rebuild_report(folder: Path) -> Path:
    """Write `folder`/report.html anew, and return its path.

    Of a run that has ended it is the report that the run wrote, drawn again from `report.json` and the figures as they
    are now; without `report.json`, from `results.json`. Of one that has not, what it has come to: rounds, finished
    stages, and the curves of its last checkpoint.

    Raises:
        ValueError: no run lies in `folder`, or its files are broken.
    """
    page = folder / _PAGE
    if not (folder / "run.yaml").is_file() and not (folder / "results.json").is_file():
        raise ValueError(f"no run lies in {folder}: it has neither run.yaml nor results.json")
    try:
        if page.with_suffix(".json").is_file():
            for name in rewrite_report(page):
                print(f"{name} is gone: the report is without it", flush=True)
        elif (folder / "results.json").is_file():
            _write_ended(folder)
        else:
            _write_unfinished(folder)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"a file in {folder} is broken: {type(error).__name__} {error}") from error
    return page


def _write_ended(folder: Path) -> None:
    results = read_results(folder / "results.json")
    figures = [(path, path.stem.replace("_", " ")) for path in sorted(folder.glob("figures/*.png"))]
    sections = run_sections(results, rounds=_rounds(folder), figures=figures)
    write_report(folder / _PAGE, title=f"{results['recipe']}: {results['data']['name']}", sections=sections)


def _write_unfinished(folder: Path) -> None:
    """Its own page, and no `report.json`, which is that of a run that has ended."""
    rounds, stages = _rounds(folder), _stages(folder)
    figures = []
    for place in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir() and read_note(path) is None)):
        figures += _curves(place, folder / "figures", rounds if place == folder else [])
    results = {"args": read_config(folder / "run.yaml")}
    done = Section("Finished stages", table=[_stage_row(stage) for stage in stages])
    sections = [*([done] if stages else []), *run_sections(results, rounds=rounds, figures=figures)]
    told = [f"rounds chosen: {len(rounds)}"] if rounds else []
    told += [f"stages finished: {len(stages)}"] if stages else []
    summary = f"This run has not ended; {', '.join(told) or 'it has left nothing yet'}."
    write_report(folder / _PAGE, title=f"{folder.resolve().name}, so far", sections=sections, summary=summary)
    (folder / _PAGE).with_suffix(".json").unlink()


def _rounds(folder: Path) -> list[dict[str, Any]]:
    """The rows of `rounds.jsonl`, in the run's folder or in the last checkpoint of a run that has not ended."""
    checkpoint = last_finished_checkpoint(folder)
    for place in (folder, *([checkpoint] if checkpoint else [])):
        if (place / _ROUNDS).is_file():
            return [json.loads(line) for line in (place / _ROUNDS).read_text(encoding="utf-8").splitlines()]
    return []


def _stages(folder: Path) -> list[StageResult]:
    notes = sorted(folder.glob(f"*/{NOTE_NAME}"), key=lambda path: path.stat().st_mtime)
    return [note for path in notes if (note := read_note(path.parent)) is not None]


def _stage_row(stage: StageResult) -> dict[str, Any]:
    scores = {f"{split} {name}": value for split, found in stage.metrics.items() for name, value in found.items()}
    return {"stage": stage.name, "seconds": stage.seconds, **scores}


def _curves(folder: Path, figures: Path, rounds: Sequence[Mapping[str, Any]]) -> list[tuple[Path, str]]:
    """Losses and the score on validation, as the last checkpoint in `folder` knows them."""
    checkpoint = last_finished_checkpoint(folder)
    if checkpoint is None:
        return []
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    drawn, called = [], folder.name
    if losses := series(history, "loss"):
        path = loss_curve(figures / f"so_far_loss_{called}.png", losses, series(history, "eval_loss"))
        drawn.append((path, f"Loss of {called} up to {checkpoint.name}"))
    for metric in ("f1_macro", "f1", "accuracy"):
        if scores := series(history, f"eval_{metric}"):
            name = f"validation {metric}"
            path = learning_curve(figures / f"so_far_{metric}_{called}.png", scores, rounds, metric=name)
            drawn.append((path, f"{metric} of {called} on validation up to {checkpoint.name}"))
            break
    return drawn
