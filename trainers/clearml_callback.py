"""ClearML with the best model of a run, with a server as without one."""

import os
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import ClearMLCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import ENV_VARS_TRUE_VALUES

from .command_line import command_line_hidden


# What of a checkpoint is the model; the state of optimizer and trainer is not.
_MODEL_FILES = (
    *("*model*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("adapter_config.json", "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model"),
)
_REACHABLE_WITHIN, _DESCRIBED_WITHIN = 10.0, 60.0  # seconds


class BestModelClearMLCallback(ClearMLCallback):
    """`ClearMLCallback` that logs one model, the best, and works in offline mode (`CLEARML_OFFLINE_MODE=1`).

    It differs from its parent in four points:

    - The parent uploads every checkpoint whole. Here the model of the best checkpoint, or of the last where none is
      best, is logged once when training ends, unless `CLEARML_LOG_MODEL` says `false`. In offline mode the parent
      fails at that: a model without a server has no `locked` (clearml 2.1).
    - The task stays open when training ends, for evaluations and figures after it; ClearML closes it when the process
      ends. Several trainers of one process share a task, as the parent's `_2`, `_3` behind the names of their scalars.
    - The command line is not recorded: keys may be in it. The arguments of the trainer are, without tokens.
    - A server that cannot be reached is an error at once; ClearML itself would try for hours.
    """

    def setup(self, args: Any, state: TrainerState, model: Any, processing_class: Any, **kwargs: Any) -> None:
        if not self._initialized and state.is_world_process_zero:
            open_task()
        super().setup(args, state, model, processing_class, **kwargs)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Nothing: what is best is known only in the end."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and self._clearml_task is not None:
            if os.getenv("CLEARML_LOG_MODEL", "TRUE").upper() in ENV_VARS_TRUE_VALUES:
                self._log_best(args, state)

    def _log_best(self, args: TrainingArguments, state: TrainerState) -> None:
        last = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        folder = Path(state.best_model_checkpoint or last)
        files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
        if not any(path.suffix == ".safetensors" for path in files):
            return  # no checkpoint was written, or one that is not a model as yet
        name = "best" if state.best_model_checkpoint else "last"
        name += ClearMLCallback.log_suffix
        task: Any = self._clearml_task
        model = _output_model()(task=task, name=name, framework="PyTorch")
        package = _packed(files)
        ours = offline = task.is_offline()  # online the upload goes on behind our back, and deletes the file after it
        try:
            model.update_weights(
                package,
                target_filename=f"{name}.zip",
                auto_delete_file=not offline,
                iteration=int(folder.name.rpartition("-")[2]),
                update_comment=False,
                is_package=True,
            )
        except Exception:
            ours = True
            raise
        finally:
            if ours:
                os.unlink(package)


def _packed(files: Sequence[Path]) -> str:
    """The files in a zip of their own, as they are: weights do not shrink."""
    handle, package = tempfile.mkstemp(prefix="tithe-", suffix=".zip")
    os.close(handle)
    with zipfile.ZipFile(package, "w") as archive:
        for path in files:
            archive.write(path, path.name)
    return package


def open_task() -> Any:
    """ClearML's current task; where there is none, one of the project and name that the environment says.

    Raises:
        ConnectionError: the server cannot be reached.
    """
    from clearml import Task

    if not Task.running_locally() or Task.current_task() is not None:
        return Task.current_task()
    if not Task.is_offline():
        _check_server()
    # The installed versions, in seconds; ClearML would look for what is imported, for minutes, when the process ends.
    Task.force_requirements_env_freeze()
    with command_line_hidden():
        task: Any = Task.init(
            project_name=os.getenv("CLEARML_PROJECT", "HuggingFace Transformers"),
            task_name=os.getenv("CLEARML_TASK", "Trainer"),
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,
            output_uri=True,
        )
        _wait_for_script(task)
    return task


def _wait_for_script(task: Any) -> None:
    """Until ClearML has read what was started, the command line included, which it does in a thread.

    That thread goes on for longer; this does not wait for its end.
    """
    thread, end = getattr(task, "_detect_repo_async_thread", None), time.monotonic() + _DESCRIBED_WITHIN
    while thread is not None and thread.is_alive() and time.monotonic() < end:
        script = task.data.script
        if script is not None and script.entry_point:
            return
        time.sleep(0.05)


def _output_model() -> type:
    """`clearml.OutputModel`, mended for offline mode; made here, as clearml may not be installed."""
    from clearml import OutputModel

    class OfflineOutputModel(OutputModel):
        @property
        def published(self) -> bool:
            task: Any = self._task
            return not task.is_offline() and super().published

    return OfflineOutputModel


def _check_server() -> None:
    """Raise a `ConnectionError` where ClearML's server cannot be reached."""
    import requests
    from clearml.backend_api import Session

    server = Session.get_api_server_host()
    try:
        requests.get(f"{server}/debug.ping", timeout=_REACHABLE_WITHIN)
    except requests.exceptions.SSLError:
        pass  # it is there; whether its certificate will do is for ClearML's own settings to say
    except requests.exceptions.RequestException as error:
        raise ConnectionError(f"the server {server} cannot be reached ({type(error).__name__})") from None
