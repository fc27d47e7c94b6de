"""What a Trainer's trackers lack: pictures and embeddings, and that no tracker that fails ends training.

Trackers are what `report_to` names: TensorBoard, ClearML, Weights & Biases and others. Scalars are logged by the
callbacks of Transformers; only process 0 logs.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK, ClearMLCallback, TensorBoardCallback, WandbCallback

from ..evaluation import mask
from .clearml_callback import BestModelClearMLCallback
from .command_line import command_line_hidden


Pixels = NDArray[np.uint8]

_TRACKERS = tuple(INTEGRATION_TO_CALLBACK.values())
_EVENTS = tuple(name for name in vars(TrainerCallback) if name.startswith("on_"))


def set_up_trackers(callbacks: list[TrainerCallback]) -> None:
    """Make the trackers among `callbacks` harmless, in place, and ClearML's one that logs the best model."""
    for place, callback in enumerate(callbacks):
        if type(callback) is ClearMLCallback:
            callback = callbacks[place] = BestModelClearMLCallback()
        if isinstance(callback, _TRACKERS):
            _guard(callback)


def _guard(callback: TrainerCallback) -> None:
    """Let `callback` fail without a consequence but one warning; it is left alone until training begins anew."""
    failed: list[str] = []

    def guarded(event: str, run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def call(*args: Any, **kwargs: Any) -> Any:
            if event == "on_train_begin":
                failed.clear()
            if failed:
                return None
            try:
                with command_line_hidden():
                    return run(*args, **kwargs)
            except Exception as error:  # a tracker's network, server or disk, in as many ways as there are trackers
                failed.append(event)
                _warn(type(callback).__name__, error)
                return None

        return call

    for event in _EVENTS:
        setattr(callback, event, guarded(event, getattr(callback, event)))


class Pictures:
    """Shows pictures in those trackers among `callbacks` that can: TensorBoard, ClearML, Weights & Biases.

    One that fails is warned of, and shown no more.

    Args:
        callbacks: of a Trainer; looked at anew for every picture.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback]) -> None:
        self._callbacks = callbacks
        self._failed: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is a tracker that shows pictures."""
        return bool(self._shows())

    def show(self, name: str, picture: Path | str, step: int, folder: Path) -> None:
        """Show the PNG file `picture` under `name` (`section/name`) at `step` of training.

        `folder` is where TensorBoard's files go if its callback has none open.
        """
        pixels: Pixels | None = None
        for tracker, show in self._shows().items():
            try:
                pixels = read_picture(picture) if pixels is None else pixels
                show(name, pixels, step, folder)
            except Exception as error:
                self._failed.add(tracker)
                _warn(tracker, error)

    def _shows(self) -> dict[str, Callable[[str, Pixels, int, Path], None]]:
        found: dict[str, Callable[[str, Pixels, int, Path], None]] = {}
        for callback in self._callbacks:
            if isinstance(callback, TensorBoardCallback):
                found["tensorboard"] = _InTensorBoard(callback)
            elif isinstance(callback, ClearMLCallback):
                found["clearml"] = _in_clearml
            elif isinstance(callback, WandbCallback):
                found["wandb"] = _in_wandb
        return {name: show for name, show in found.items() if name not in self._failed}


class _InTensorBoard:
    def __init__(self, callback: Any) -> None:
        self._callback = callback

    def __call__(self, name: str, pixels: Pixels, step: int, folder: Path) -> None:
        if self._callback.tb_writer is not None:
            show_in_tensorboard(self._callback.tb_writer, name, pixels, step)
            return
        with tensorboard_writer(self._callback.logging_dir or folder) as writer:  # training is over, or not begun
            show_in_tensorboard(writer, name, pixels, step)


def _in_clearml(name: str, pixels: Pixels, step: int, folder: Path) -> None:
    show_in_clearml(name, pixels, step)


def _in_wandb(name: str, pixels: Pixels, step: int, folder: Path) -> None:
    show_in_wandb(name, pixels, step)


@contextmanager
def tensorboard_writer(folder: Path | str) -> Iterator[Any]:
    """A writer of TensorBoard files in `folder`, closed at the end."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()


def read_picture(path: Path | str) -> Pixels:
    """The pixels [height, width, 3] of an image file."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def show_in_tensorboard(writer: Any, name: str, pixels: Pixels, step: int) -> None:
    """Add a picture to a `SummaryWriter`."""
    writer.add_image(name, pixels, step, dataformats="HWC")
    writer.flush()


def show_in_clearml(name: str, pixels: Pixels, step: int) -> None:
    """Report a picture to ClearML's current task; without one, which would have been told of, do nothing."""
    from clearml import Task

    task: Any = Task.current_task()
    if task is not None:
        section, _, series = name.rpartition("/")
        task.get_logger().report_image(section or "figures", series, iteration=step, image=pixels)


def show_in_wandb(name: str, pixels: Pixels, step: int) -> None:
    """Log a picture to the current run of Weights & Biases, if there is one."""
    import wandb

    if wandb.run is not None:
        wandb.log({name: wandb.Image(pixels), "train/global_step": step})


def _warn(tracker: str, error: Exception) -> None:
    reason = mask(" ".join(f"{type(error).__name__}: {error}".split()))
    warnings.warn(f"{tracker} failed and is left alone from here on; training goes on. {reason}", stacklevel=3)
