"""What a hyper-parameter search may try, and how a trial's values reach its trainer."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from transformers import TrainingArguments


HEAD_DROPOUT, ADAM_BETAS = "head_dropout", "adam_betas"
# What our trainers read anew in every `train()`, or of `model_init`; all else of theirs they read when they are made.
_OURS = ("head_learning_rate", "hard_weight", "soft_weight", "lora_rank", "lora_alpha", "lora_dropout")
# Of the arguments of Transformers those that a trial cannot change, or that would make trials incomparable.
_FIXED = {
    *("output_dir", "seed", "data_seed", "logging_steps", "eval_steps", "eval_strategy", "save_strategy", "report_to"),
    *("fp16", "bf16", "use_cpu", "deepspeed", "fsdp", "resume_from_checkpoint", "metric_for_best_model"),
}


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; with `log` their orders of magnitude are equally likely.

    Raises:
        ValueError: the ends are in the wrong order, or `log` is asked of numbers that are not above 0.

    >>> Range(1e-5, 1e-4, log=True).low
    1e-05
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            above = " above 0" if self.log else ""
            raise ValueError(f"a range needs two numbers{above}, the lower one first; got {self.low} and {self.high}")


@dataclass(frozen=True)
class Choice:
    """One of `values`: numbers, texts or booleans; for `adam_betas` pairs of numbers.

    Raises:
        ValueError: there is none.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a choice needs at least one value")


Space = Mapping[str, Range | Choice]

DEFAULT_SPACE: Space = {
    "learning_rate": Range(1e-5, 1e-4, log=True),
    HEAD_DROPOUT: Range(0.1, 0.5),
    "weight_decay": Choice((0.0, 0.01, 0.1)),
    ADAM_BETAS: Choice(((0.9, 0.999), (0.95, 0.999), (0.9, 0.99))),
}


def check_space(space: Space, args: TrainingArguments) -> None:
    """Raise a `ValueError` unless every name of `space` is one that a trial with `args` can change."""
    if not space:
        raise ValueError("`space` is empty: name at least one hyper-parameter to search")
    theirs = {field.name for field in fields(TrainingArguments) if field.init} - _FIXED
    ours = {name for name in _OURS if hasattr(args, name)}
    for name, searched in space.items():
        if name == ADAM_BETAS:
            if isinstance(searched, Range) or any(not _is_pair(value) for value in searched.values):
                raise ValueError(f"`{ADAM_BETAS}` must be a choice of pairs such as (0.9, 0.999), got {searched}")
        elif name != HEAD_DROPOUT and name not in theirs | ours:
            known = ", ".join([HEAD_DROPOUT, ADAM_BETAS, *sorted(ours)])
            reason = "is read once, when the trainer is made" if hasattr(args, name) else "is no argument of training"
            raise ValueError(
                f"`{name}` cannot be searched: it {reason}; those that can are {known}, and the arguments of "
                "Transformers' optimizer and schedule"
            )


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """The values of `trial`, an Optuna trial, by name; asked twice, a trial gives the same."""
    return {name: _suggest(trial, name, searched) for name, searched in space.items()}


def named_values(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """What Optuna keeps of a trial as the values of `space`: it knows texts, and no pairs."""
    return {name: _of_text(space[name], value) for name, value in params.items() if name in space}


def as_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a space as arguments of training: `adam_betas` are two there.

    >>> as_arguments({"adam_betas": (0.9, 0.99), "learning_rate": 2e-5})
    {'learning_rate': 2e-05, 'adam_beta1': 0.9, 'adam_beta2': 0.99}
    """
    found = {name: value for name, value in values.items() if name != ADAM_BETAS}
    if ADAM_BETAS in values:
        found["adam_beta1"], found["adam_beta2"] = values[ADAM_BETAS]
    return found


def distributions(space: Space) -> dict[str, Any]:
    """The space as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, searched in space.items():
        if isinstance(searched, Choice):
            found[name] = CategoricalDistribution([_as_text(value) for value in searched.values])
        elif isinstance(searched.low, int) and isinstance(searched.high, int):
            found[name] = IntDistribution(searched.low, searched.high, log=searched.log)
        else:
            found[name] = FloatDistribution(float(searched.low), float(searched.high), log=searched.log)
    return found


def describe_space(space: Space) -> dict[str, Any]:
    """The space as JSON can hold it."""
    return {
        name: [_as_text(value) for value in searched.values]
        if isinstance(searched, Choice)
        else {"low": searched.low, "high": searched.high, "log": searched.log}
        for name, searched in space.items()
    }


def _suggest(trial: Any, name: str, searched: Range | Choice) -> Any:
    if isinstance(searched, Choice):
        return _of_text(searched, trial.suggest_categorical(name, [_as_text(value) for value in searched.values]))
    if isinstance(searched.low, int) and isinstance(searched.high, int):
        return trial.suggest_int(name, searched.low, searched.high, log=searched.log)
    return trial.suggest_float(name, float(searched.low), float(searched.high), log=searched.log)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, float) for part in value)


def _as_text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _of_text(searched: Range | Choice, value: Any) -> Any:
    if isinstance(searched, Range):
        return value
    return next((each for each in searched.values if _as_text(each) == value), value)
