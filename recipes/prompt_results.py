"""What a prompt-tuning run leaves: scores before and after, texts by several ways of decoding, figures, a card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tithe.evaluation import (
    GENERATION_METRICS,
    LANGUAGES,
    Section,
    environment,
    metric_signatures,
    run_sections,
    write_report,
    write_results,
)
from tithe.recipes.cards import write_run_cards
from tithe.recipes.prompt_stages import ADAPTED, BASE, SETTINGS, read_samples, references_of
from tithe.recipes.stage_results import print_models, stage_figures
from tithe.recipes.staged_run import StagedRun
from tithe.recipes.stages import StageResult


_EXPLANATION = (
    "Scores of the texts written for test, from 0 to 1; METEOR stems words of the language of the data. Untrained is "
    "the base without adapters. BLEU {bleu}; chrF {chrf}."
)
_NAMES = {"bleu": "BLEU", "chrf": "chrF", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
_NAMES |= {"meteor": "METEOR"}


def write_run(run: StagedRun) -> dict[str, Any]:
    """Write every file; `results.json` comes last: where it lies, the run is complete. Returns what is in it."""
    adapted = run.stages[-1]
    metrics = {split: values | adapted.notes["generation"].get(split, {}) for split, values in adapted.metrics.items()}
    untrained = {name: adapted.notes[f"{name} untrained"] for name in GENERATION_METRICS}
    results: dict[str, Any] = {
        "recipe": "prompt_tune",
        "metrics": metrics,
        "untrained": {"test": untrained},
        "signatures": metric_signatures(references_of(run.data.test)),
        "parameters": {"trainable": adapted.notes["trainable"], "all": adapted.notes["parameters"]},
        "stages": [
            {"stage": stage.name, "seconds": stage.seconds, "loss": stage.metrics["test"]["loss"]}
            for stage in run.stages
        ],
        "selection": {},
        "timings": run.timings,
        "memory": run.memory.to_dict(),
        "environment": environment(),
        "data": {"name": run.data.name, "fingerprint": run.data.fingerprint, **run.data.report},
        "args": run.args,
    }
    run.memory.write(run.folder / "memory_usage.json")
    explanation = _EXPLANATION.format(**results["signatures"])
    samples = _sample_rows(read_samples(Path(adapted.folder)))
    extra = [Section("Scores", explanation, table=_score_rows(results))]
    if samples:
        told = "; ".join(f"{name}: {_settings(name)}" for name in SETTINGS)
        extra.append(Section("Samples", f"Rows of test, and what was written for them. {told}.", table=samples))
    facts = {stage.name: {k: v for k, v in stage.notes.items() if not isinstance(v, dict)} for stage in run.stages}
    extra.append(Section("Stages", facts=facts))
    figures = stage_figures(run.folder / "figures", run.stages, told={ADAPTED: "adapters"}, aside="")
    sections = run_sections(results, figures=figures, extra=extra)
    title = f"prompt_tune: {run.data.name}"
    write_report(run.folder / "report.html", title=title, sections=sections, summary=_summary(results))
    _write_card(run, results, adapted)
    write_results(run.folder / "results.json", results)
    return results


def _score_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row for the base and one for what was tuned."""
    found = {"untrained": results["untrained"]["test"], "tuned": results["metrics"]["test"]}
    return [
        {"model": name, **{_NAMES[metric]: f"{scores[metric]:.3f}" for metric in GENERATION_METRICS}}
        for name, scores in found.items()
    ]


def _sample_rows(samples: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"source": row["source"], "reference": row["target"], **{n: row[n] for n in SETTINGS}} for row in samples]


def _settings(name: str) -> str:
    given = SETTINGS[name]
    beams = f"{given['num_beams']} beams, " if given["num_beams"] > 1 else ""
    return f"{beams}temperature {given['temperature']}, top-k {given['top_k']}, top-p {given['top_p']}"


def _summary(results: Mapping[str, Any]) -> str:
    trainable, whole = results["parameters"]["trainable"], results["parameters"]["all"]
    scores, before = results["metrics"]["test"], results["untrained"]["test"]
    return (
        f"{trainable:,} of {whole:,} parameters were tuned ({trainable / whole:.2%}). BLEU on test went from "
        f"{before['bleu']:.3f} to {scores['bleu']:.3f}, ROUGE-L from {before['rougeL']:.3f} to {scores['rougeL']:.3f}"
    )


def _write_card(run: StagedRun, results: Mapping[str, Any], adapted: StageResult) -> None:
    write_run_cards(
        run,
        adapted.card,
        metrics=results["metrics"],
        intervals=adapted.notes["intervals"],
        summary=_summary(results) + ".",
        model=Path(adapted.folder),
        base=BASE if len(run.stages) > 1 else None,
        language=_code(run.args.get("language")),
    )


def _code(language: str | None) -> str | None:
    """ISO 639-1, of a code or a name."""
    return next((code for code, name in LANGUAGES.items() if language in (code, name)), None)


def print_summary(results: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """The table of the scores, and the path of the report as the last line."""
    trainable, whole = results["parameters"]["trainable"], results["parameters"]["all"]
    print(f"tuned {trainable:,} of {whole:,} parameters ({trainable / whole:.2%})", flush=True)
    print_models(f"prompt_tune: {results['data']['name']}", _score_rows(results), folder, console)
