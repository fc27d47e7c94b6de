"""What the stages of every staged recipe share: a folder, a model and a note of what it came to for each."""

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import get_model_param_count

from tithe.evaluation import PeakMemory, inference_speed, write_atomic
from tithe.recipes.cards import facts_of
from tithe.recipes.processes import renew_deepspeed
from tithe.trainers import last_finished_checkpoint


Rows = Mapping[str, Dataset]

NOTE_NAME = "stage.json"
_SPEED_ROWS = 512


@dataclass
class StageResult:
    """What a stage came to.

    Attributes:
        name: of its model, such as `teacher`, or of what was done with it.
        folder: of that model, or the hub id of a teacher that is used as it is.
        parameters: of the model, each counted once.
        bytes_on_disk: of its weights.
        metrics: split → name → value.
        speed: as `inference_speed` gives it, on test.
        history: what was logged while it was trained.
        notes: what else there is to say of it.
        card: what its model's card says of how it was trained, as `facts_of` gives it; empty where it was not.
    """

    name: str
    folder: str
    parameters: int
    bytes_on_disk: int
    seconds: float
    metrics: dict[str, dict[str, float]]
    speed: dict[str, float]
    history: list[dict[str, Any]]
    notes: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict)


class StageRunner(ABC):
    """Runs stages in order, each unless it is finished already; a recipe's own class says which, and of what model.

    Its `__init__` sets, beside what this one takes, `tokenizer`, and `rows`, the splits as its models take them.
    """

    tokenizer: Any
    rows: dict[str, Dataset]

    def __init__(self, args: Any, memory: PeakMemory) -> None:
        self.args, self.memory = args, memory
        self.root = Path(str(args.output_dir))

    @abstractmethod
    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included."""

    def _arguments_in(self, folder: Path, **changes: Any) -> Any:
        """The arguments of the run, changed, for a trainer of their own that is made next."""
        args = copy.copy(self.args)
        args.output_dir = str(folder)
        args.push_to_hub, args.hub_model_id = False, None  # the run publishes one model, and not that of every stage
        for name, value in changes.items():
            setattr(args, name, value)
        renew_deepspeed(args)
        return args

    def _once(self, name: str, make: Callable[[Path], tuple[Any, Rows]]) -> StageResult:
        """Run a stage, from where it was stopped, unless it is finished.

        Args:
            make: is given the stage's folder; makes its trainer, and names the rows that its model is scored on.
        """
        return self._unless_finished(name, lambda folder: self._train(name, folder, make))

    def _unless_finished(self, name: str, run: Callable[[Path], StageResult]) -> StageResult:
        """What a stage came to when it was finished before, or comes to now: `run` is given its folder."""
        folder = self.root / name
        found = read_note(folder)
        if PartialState().is_main_process:
            print(f"{name}:" if found is None else f"{name}: finished already, in {folder}", flush=True)
        if found is not None:
            return found
        result = run(folder)
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            write_atomic(folder / NOTE_NAME, json.dumps(asdict(result), indent=2, default=float))
        PartialState().wait_for_everyone()
        return result

    def _train(self, name: str, folder: Path, make: Callable[[Path], tuple[Any, Rows]]) -> StageResult:
        start = time.perf_counter()
        with self.memory.phase(name):
            trainer, rows = make(folder)
            untrained = self._untrained(trainer, name)
            last, held_out = last_finished_checkpoint(folder), [split for split in rows if split != "train"]
            trainer.train(str(last) if last else None)
            metrics = {
                split: scores_of(trainer.evaluate(rows[split], metric_key_prefix=split), split) for split in held_out
            }
        seconds = time.perf_counter() - start
        trainer.save_model()
        notes: dict[str, Any] = {"epochs": trainer.args.num_train_epochs, "learning_rate": trainer.args.learning_rate}
        notes |= untrained | self._trained(trainer, rows, folder)
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        speed = self._speed(model, rows[held_out[-1]], trainer.data_collator)
        history = trainer.state.log_history
        return self._result(name, folder, model, metrics, speed, seconds, history, notes, facts_of(trainer))

    def _result(
        self,
        name: str,
        folder: Path,
        model: PreTrainedModel,
        metrics: dict[str, dict[str, float]],
        speed: dict[str, float],
        seconds: float,
        history: list[dict[str, Any]],
        notes: dict[str, Any],
        card: dict[str, Any] | None = None,
    ) -> StageResult:
        return StageResult(
            name=name.replace("_", " "),
            folder=str(folder),
            parameters=get_model_param_count(model),
            bytes_on_disk=_bytes_of(folder, model),
            seconds=seconds,
            metrics=metrics,
            speed=speed,
            history=history,
            notes=notes,
            card=card or {},
        )

    @staticmethod
    def _speed(model: PreTrainedModel, rows: Dataset, collate: Any) -> dict[str, float]:
        known = ("input_ids", "attention_mask", "label", "labels")
        rows = rows.select_columns([name for name in known if name in rows.column_names])
        return inference_speed(model, [rows[i] for i in range(min(_SPEED_ROWS, len(rows)))], collate)

    def _untrained(self, trainer: Any, name: str) -> dict[str, Any]:
        """What there is to say of a stage's model before it is trained."""
        return {}

    def _trained(self, trainer: Any, rows: Rows, folder: Path) -> dict[str, Any]:
        """What there is to say of it afterwards, and to leave in its folder; all processes call it."""
        return {}


def _bytes_of(folder: Path, model: PreTrainedModel) -> int:
    """The size of the weights in `folder`; of a hub model, which lies in no folder of ours, that of its parameters."""
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return files or sum(p.numel() * p.element_size() for p in model.parameters())


def read_note(folder: Path) -> StageResult | None:
    path = folder / NOTE_NAME
    return StageResult(**json.loads(path.read_text())) if path.is_file() else None


def scores_of(found: dict[str, float], split: str) -> dict[str, float]:
    return {name.removeprefix(f"{split}_"): value for name, value in found.items() if not _is_timing(name)}


def _is_timing(name: str) -> bool:
    return name == "epoch" or name.endswith(("_runtime", "_per_second", "_model_preparation_time"))
