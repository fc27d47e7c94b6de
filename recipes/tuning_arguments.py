"""The arguments of a tuning run: those of `data_selection`, and what is searched, how, and on how much."""

from dataclasses import dataclass, field
from typing import Any

from tithe.evaluation import CLASSIFICATION_METRICS
from tithe.recipes.data_selection import DataSelectionConfig
from tithe.trainers import Choice, Range
from tithe.trainers.search_space import check_space
from tithe.trainers.study import SAMPLERS, import_optuna


PRETRAINED_RATES = (1e-5, 1e-4)
BATCH_SIZE, SEARCH, RUN = STAGES = ("batch_size", "search", "run")


@dataclass
class TuneConfig(DataSelectionConfig):
    """What is searched; all else is that of the main run.

    Raises:
        ValueError: a range, a stage or a share is not one.
    """

    output_dir: str | None = field(
        default="runs/tune",
        metadata={"help": "Folder for the study and the report; the main run lies below, in `run`."},
    )
    stages: list[str] = field(
        default_factory=lambda: list(STAGES),
        metadata={
            "help": "Which to run: `batch_size`, the largest that fits; `search`; `run`, with the best values. "
            "Beside another run, a process with `search` alone joins the search in its folder."
        },
    )
    processes: int = field(default=1, metadata={"help": "How many processes search, each on a GPU where there are."})
    run_processes: int = field(
        default=1, metadata={"help": "How many processes train the main run: the batch is divided over them."}
    )
    # The batch size
    memory_limit: float | None = field(
        default=None, metadata={"help": "GiB that a process may hold on a CPU. Default: what the machine leaves it."}
    )
    memory_margin: float = field(default=0.05, metadata={"help": "Share of the free memory to leave free."})
    largest_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "The most rows per device to try. Default: the batch that is asked for, which is kept by "
            "accumulating smaller ones."
        },
    )
    # The search
    trials: int = field(default=25, metadata={"help": "How many trials, over all processes and starts."})
    sampler: str = field(default="random", metadata={"help": f"How values are drawn: {' or '.join(SAMPLERS)}."})
    objective: str = field(default="loss", metadata={"help": "What is best: `loss`, `accuracy` or another metric."})
    prune: bool = field(
        default=False, metadata={"help": "Stop trials that fall behind, by asynchronous successive halving (ASHA)."}
    )
    trial_epochs: float = field(default=2.0, metadata={"help": "Epochs of each trial."})
    sample: float = field(default=0.15, metadata={"help": "Share of train on which the trials run, stratified."})
    held_out: float = field(
        default=0.2, metadata={"help": "Share of the sample on which they are scored; validation is not touched."}
    )
    # What is searched; one number instead of two keeps a range there
    learning_rate_range: list[float] = field(
        default_factory=lambda: list(PRETRAINED_RATES),
        metadata={"help": "Learning rates, from and to, by order of magnitude."},
    )
    head_learning_rate_range: list[float] | None = field(
        default=None, metadata={"help": "The same for the head alone; the other range is then the backbone's."}
    )
    head_dropout_range: list[float] = field(
        default_factory=lambda: [0.1, 0.5], metadata={"help": "Dropout before the head, from and to."}
    )
    weight_decays: list[float] = field(
        default_factory=lambda: [0.0, 0.01, 0.1], metadata={"help": "Weight decays to choose from."}
    )
    adam_betas: list[str] = field(
        default_factory=lambda: ["0.9,0.999", "0.95,0.999", "0.9,0.99"],
        metadata={"help": "Pairs of Adam's betas to choose from."},
    )
    further_space: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Other arguments to search, as JSON: a list to choose from, or a range: "
            '{"warmup_steps": {"low": 0.0, "high": 0.2}, "lr_scheduler_type": ["linear", "cosine"]}.'
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [stage for stage in self.stages if stage not in STAGES]:
            raise ValueError(f"`stages` must be of {', '.join(STAGES)}; got {unknown[0]!r}")
        for name in ("trials", "processes", "run_processes", "largest_batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("trial_epochs", "memory_limit"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if not 0 < self.sample <= 1 or not 0 < self.held_out < 1 or not 0 <= self.memory_margin < 1:
            raise ValueError(
                "`sample`, `held_out` and `memory_margin` are shares from 0 to 1; got "
                f"{self.sample}, {self.held_out} and {self.memory_margin}"
            )
        if self.sampler not in SAMPLERS:
            raise ValueError(f"`sampler` must be one of {', '.join(SAMPLERS)}; got {self.sampler!r}")
        scores = ["loss", *CLASSIFICATION_METRICS]
        if self.objective not in scores:
            raise ValueError(f"`objective` must be one of {', '.join(scores)}; got {self.objective!r}")
        check_space(self.space(), self)

    def check_extras(self) -> None:
        super().check_extras()
        if SEARCH in self.stages:
            import_optuna()

    @property
    def maximises(self) -> bool:
        """Whether more of the objective is better; `greater_is_better` is that of the main run."""
        return self.objective != "ece" and not self.objective.endswith("loss")

    def space(self) -> dict[str, Range | Choice]:
        """What is searched, as `tithe.trainers.tune` takes it."""
        found: dict[str, Range | Choice] = {
            "learning_rate": _range("learning_rate_range", self.learning_rate_range, log=True)
        }
        if self.head_learning_rate_range:
            found["head_learning_rate"] = _range("head_learning_rate_range", self.head_learning_rate_range, log=True)
        found["head_dropout"] = _range("head_dropout_range", self.head_dropout_range)
        found["weight_decay"] = Choice(tuple(self.weight_decays))
        found["adam_betas"] = Choice(tuple(_pair(text) for text in self.adam_betas))
        for name, values in (self.further_space or {}).items():
            found[name] = _further(name, values)
        return found


def _range(name: str, numbers: list[float], log: bool = False) -> Range | Choice:
    if len(numbers) == 1:
        return Choice((float(numbers[0]),))
    if len(numbers) != 2:
        raise ValueError(f"`{name}` takes two numbers, from and to, or one to keep it there; got {numbers}")
    try:
        return Range(float(numbers[0]), float(numbers[1]), log=log)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error


def _pair(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"`adam_betas` takes pairs such as 0.9,0.999; got {text!r}") from None
    if not 0 <= first < 1 or not 0 <= second < 1:
        raise ValueError(f"`adam_betas` must lie in [0, 1), got {text!r}")
    return first, second


def _further(name: str, values: Any) -> Range | Choice:
    if isinstance(values, list) and values:
        return Choice(tuple(values))
    if isinstance(values, dict) and {"low", "high"} <= values.keys() <= {"low", "high", "log"}:
        try:
            return Range(values["low"], values["high"], bool(values.get("log", False)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"`further_space` of {name}: {error}") from error
    raise ValueError(
        f"`further_space` of {name} must be a list of values, or a mapping with low, high and perhaps log; got "
        f"{values}"
    )
