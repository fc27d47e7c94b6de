"""Defaults that most recipes share, where those of Transformers would not do, and a check that it makes too late."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tithe.recipes.errors import nearest
from tithe.recipes.tracking import trackers


@dataclass
class RunDefaults:
    """To be named before a config in the bases of a recipe's own: what is here wins over it."""

    overwrite: bool = field(default=False, metadata={"help": "Delete what another run left in `output_dir`."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to write a checkpoint: `no`, `steps`, `epoch` or `best`."}
    )
    save_total_limit: int | None = field(
        default=1, metadata={"help": "How many checkpoints to keep; the best and the last always stay."}
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "help": "`group_by_length` batches rows of similar length, `random` does not, `sequential` keeps order."
        },
    )
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Rows per device and batch in evaluation and when a pool is read."}
    )
    logging_steps: float = field(default=0.02, metadata={"help": "Log every so many steps, or this share of all."})
    report_to: None | str | list[str] = field(
        default="tensorboard",
        metadata={"help": "Where to log: `tensorboard`, `clearml`, `wandb`, several of them, or `none`."},
    )

    # The model card
    model_license: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the model, for its card: an identifier of the hub such as `apache-2.0`, or the name "
            "of another one, whose text then belongs into a file LICENSE. Default: the card asks for it."
        },
    )
    track_emissions: str | None = field(
        default=None,
        metadata={
            "help": "Estimate energy and CO₂ of the run by CodeCarbon (`tithe[carbon]`), offline, for the card: the "
            "ISO 3166-1 alpha-3 code of the country whose electricity it is, such as DEU."
        },
    )

    def __post_init__(self) -> None:
        trackers(self.report_to)  # each is there: a long run must not find out at its end
        super().__post_init__()  # type: ignore[misc]


def check_best_metric(metric: str | None, known: Iterable[str]) -> None:
    """Raise a `ValueError` where no evaluation gives `metric_for_best_model`: Transformers sees it after an epoch.

    Args:
        known: the names of the metrics, without `eval_`; `loss` is always there.
    """
    names = ["loss", *known]
    if metric is not None and metric.removeprefix("eval_") not in names:
        raise ValueError(
            f"`metric_for_best_model` {metric!r} is none of {', '.join(names)}"
            f"{nearest(metric.removeprefix('eval_'), names)}"
        )
