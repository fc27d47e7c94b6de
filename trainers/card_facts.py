"""What a trainer knows that belongs into a model card: its data, settings, scores and what they cost."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel
from transformers.modelcard import TASK_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES

from ..evaluation import Emissions, Section, environment, public_name, wilson_interval
from ..models import FactorizedEmbedding, plain_model, virtual_tokens_of


WILSON = "In brackets: 95 % intervals (Wilson), of the rows that were scored. They do not cover another seed."
_CLASSES: Any = TASK_MAPPING | {"multiple-choice": MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES}
_ENDINGS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForConditionalGeneration": "text2text-generation",
    "ForCausalLM": "text-generation",
}
_ON_HUB = re.compile(r"hf://datasets/([^@]+)@([^/]+)/")
_SPEEDS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
_SPLITS = {"eval": "evaluation", "test": "test"}


def base_of(model: Any) -> str | None:
    """What the model was loaded by, a name or a folder; None where it was made from a config."""
    return plain_model(model).config._name_or_path or None


def task_of_card(model: PreTrainedModel) -> str | None:
    """The hub's name of the task that a class of models, or one that it derives from, is for.

    A class that Transformers does not know says so by how its name ends, as theirs do.
    """
    names = [cls.__name__ for cls in type(model).__mro__]
    known = (task for name in names for task, classes in _CLASSES.items() if name in classes.values())
    by_ending = (task for name in names for ending, task in _ENDINGS.items() if name.endswith(ending))
    return next(known, None) or next(by_ending, None)


def usage_of(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The options of `usage_code` that follow from what a model is."""
    inner = plain_model(model)
    usage: dict[str, Any] = {"tokenizer": hasattr(tokenizer, "save_pretrained")}
    if type(inner).__module__.split(".")[0] != "transformers":
        usage["own_class"] = (type(inner).__module__, type(inner).__name__)
    usage["factorized"] = any(isinstance(module, FactorizedEmbedding) for module in inner.modules())
    if hasattr(model, "peft_config"):
        usage |= {"base": public_name(base_of(model)) or "", "prompt": virtual_tokens_of(model) > 0}
        if (task_of_card(inner) or "").endswith("classification"):
            usage["labels"] = inner.config.num_labels
    return usage


def hub_dataset_of(dataset: Any) -> str | None:
    """The id of the hub's data set that `dataset` was loaded from, where its own record tells."""
    return (_origin(dataset) or (None,))[0]


def _origin(dataset: Any) -> tuple[str, str] | None:
    """Id and revision."""
    for source in getattr(getattr(dataset, "info", None), "download_checksums", None) or ():
        if found := _ON_HUB.match(str(source)):
            return found[1], found[2]
    return None


def data_section(trainer: Any) -> Section:
    """Where the rows are from, and how many there are."""
    train, scored = trainer.train_dataset, trainer.eval_dataset
    origin, info = _origin(train), getattr(train, "info", None)
    facts: dict[str, Any] = {"data set": origin[0] if origin else None, "revision": origin[1] if origin else None}
    facts |= {"configuration": getattr(info, "config_name", None) if origin else None}
    facts |= {"rows for training": rows_in(train)}
    several = scored if isinstance(scored, Mapping) else {"": scored}
    facts |= {f"rows for evaluation {name}".strip(): rows_in(rows) for name, rows in several.items()}
    text = "" if origin or train is None else "The rows are not from the hub, or do not say so."
    return Section("Data", text, facts)


def rows_in(dataset: Any) -> str | None:
    """The number of rows, for a reader; None where there is none."""
    return f"{len(dataset):,}" if hasattr(dataset, "__len__") else None


def settings_of(args: Any, steps: int) -> dict[str, Any]:
    """The hyper-parameters worth a line each."""
    batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    length = {"epochs": args.num_train_epochs} if args.max_steps <= 0 else {"steps planned": args.max_steps}
    return {
        "learning rate": args.learning_rate,
        **length,
        "steps": steps,
        "rows per step": batch,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "schedule": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "warm-up": args.warmup_steps or None,
        "weight decay": args.weight_decay,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else None,
        "seed": args.seed,
    }


def compute_of(history: Sequence[Mapping[str, Any]], resumed: bool) -> dict[str, Any]:
    """What the training took, and what it ran on."""
    found = [log["train_runtime"] for log in history if "train_runtime" in log]
    since = " (since it was last resumed)" if resumed else ""
    around = environment()
    versions = ("tithe", "transformers", "torch")
    return {
        "training": f"{found[-1]:,.1f} s{since}" if found else None,
        "device": around["device"],
        "processes": around["processes"],
        "versions": ", ".join(f"{name} {around['versions'][name]}" for name in versions),
    }


def scores_of_history(
    history: Sequence[Mapping[str, Any]], best_step: int | None, rows: int | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, tuple[float, float]]]]:
    """The scores of the weights that were kept, by split and name, and the interval of accuracy, where it is honest.

    Args:
        best_step: of the weights that were loaded at the end of training; None: the last ones count.
        rows: of the evaluation set, where `eval_accuracy` is the share of them that are right.
    """
    ended = max((number for number, log in enumerate(history) if "train_runtime" in log), default=len(history))
    metrics: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for prefix, split in _SPLITS.items():
        start = f"{prefix}_"
        logs = [
            log
            for number, log in enumerate(history)
            if any(name.startswith(start) for name in log)
            # what is scored after training is scored with the best weights, too
            and (best_step is None or log.get("step") == best_step or number > ended)
        ]
        if not logs:
            continue
        found = {name.removeprefix(start): value for name, value in logs[-1].items() if name.startswith(start)}
        scores = {name: v for name, v in found.items() if isinstance(v, int | float) and not name.endswith(_SPEEDS)}
        metrics[split] = {name: float(value) for name, value in scores.items()}
        if prefix == "eval" and rows and (interval := _of_accuracy(found, rows)):
            intervals[split] = {"accuracy": interval}
    return metrics, intervals


def _of_accuracy(found: Mapping[str, Any], rows: int) -> tuple[float, float] | None:
    """Its interval, unless the log tells that it is of other rows than these `rows`."""
    if not {"accuracy", "runtime", "samples_per_second"} <= found.keys():
        return None
    scored = found["runtime"] * found["samples_per_second"]
    rounding = 5e-5 * found["samples_per_second"] + 5e-4 * found["runtime"]  # the log has 4 and 3 decimals
    right = found["accuracy"] * rows
    if abs(scored - rows) > rounding + 0.01 or abs(right - round(right)) > 1e-6 * rows:
        return None
    interval = wilson_interval(round(right), rows)
    return interval.low, interval.high


def emissions_of(callbacks: Sequence[Any]) -> Emissions | None:
    """What a callback has tracked: `TrackEmissions`, or that of `report_to="codecarbon"`."""
    for callback in callbacks:
        if isinstance(found := getattr(callback, "emissions", None), Emissions):
            return found
        if type(callback).__name__ == "CodeCarbonCallback":
            return Emissions.of_tracker(callback.tracker)
    return None
