"""What all trainers of Tithe share: whole checkpoints, the right loss, exact resume, a stop at the first NaN."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import HPSearchBackend, has_length

from ..models import plain_model
from .cards import CardTrainer
from .checkpoints import (
    is_finished,
    last_finished_checkpoint,
    mark_finished,
    remove_checkpoint,
    rotate_finished,
)
from .losses import classification_loss, share_of_batch
from .required_extras import ExtrasArguments
from .sampler import RoundSampler, TellSampler, row_lengths
from .trackers import Pictures, set_up_trackers
from .unpickled import keep_token_unpickled


class ReliableTrainer(CardTrainer):
    """A `Trainer` that can be killed at any moment, and that computes what it says.

    Beside the card of its parent (`tithe.trainers.cards`) it differs from `Trainer` in these points:

    - A checkpoint is complete or is not one (`tithe.trainers.checkpoints`). Resuming takes the last complete one, an
      incomplete one named explicitly is refused, and old ones are deleted only once the new one is complete.
    - Where rows of like length share a batch (`group_by_length`), the order is drawn from (seed, epoch): the parent's
      comes out of the global generator, which a resumed run has in another state.
    - A resumed run stops early where the uninterrupted one would: `EarlyStoppingCallback` keeps its patience.
    - Classification heads and those of encoder-decoders get the loss of `tithe.trainers.losses` unless
      `compute_loss_func` is given.
    - A model can be evaluated before it is trained. After that the parent trains each process of DDP on its own, with
      no word of it; with ZeRO-3 it cannot train, and with ZeRO-2 it refuses to evaluate.
    - Evaluation keeps a classifier's logits, and not the hidden states that some return beside them.
    - A loss that is not finite ends training before it reaches the weights, unless `logging_nan_inf_filter` is off or
      training runs in fp16, whose scaler expects overflows. A trial of a search by Optuna is then pruned, and the
      search goes on.
    - A tracker of `report_to` that fails is warned of, and training goes on without it. Trackers show pictures, too
      (`log_picture`), and ClearML keeps the best model (`tithe.trainers.clearml_callback`).
    - `hub_token` is in no file; the parent writes it into the `training_args.bin` of every checkpoint.
    """

    model: Any  # the parent allows None in between

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keep_token_unpickled(self.args)
        set_up_trackers(self.callback_handler.callbacks)
        self.pictures = Pictures(self.callback_handler.callbacks)
        if isinstance(self.args, ExtrasArguments):
            self.args.check_extras()
        self.sampler: RoundSampler | None = None
        self.add_callback(TellSampler(self))
        loss = classification_loss(self.model, self.args.label_smoothing_factor)
        self._is_classifier = loss is not None
        if self.compute_loss_func is None:
            self.compute_loss_func = loss

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `Trainer.train`; `resume_from_checkpoint=True` takes the last *finished* checkpoint of `output_dir`.

        Raises:
            ValueError: the checkpoint is unfinished, or there is none.
            FloatingPointError: the training loss is not finite.
        """
        keep_token_unpickled(self.args)  # it may have been set since
        self._run_dir = Path(self._get_output_dir(trial))
        folder = self._resumed = self._checkpoint_to_resume(resume_from_checkpoint)
        try:
            return super().train(None if folder is None else str(folder), trial, ignore_keys_for_eval)
        except FloatingPointError as error:
            if trial is None or self.hp_search_backend != HPSearchBackend.OPTUNA:
                raise
            raise _pruned(trial, error) from error

    def _inner_training_loop(self, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        # Not before: the model of a `model_init` is made, and the arguments of a trial are set, only now.
        self._before_training(self._resumed)
        return super()._inner_training_loop(batch_size, *args, **kwargs)

    def check_resume(self, resume_from_checkpoint: str | bool | None) -> None:
        """Raise the `ValueError` that `train(resume_from_checkpoint)` would raise, and do nothing else."""
        self._run_dir = Path(self._get_output_dir(None))
        self._before_training(self._checkpoint_to_resume(resume_from_checkpoint))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not has_length(dataset):
            return super()._get_train_sampler(train_dataset)
        ids = plain_model(self.model).main_input_name
        return self._sampler_of_all(dataset, row_lengths(dataset, self.args.length_column_name, ids))

    def _sampler_of_all(self, dataset: Any, lengths: NDArray[np.int64] | None) -> RoundSampler:
        """All rows of `dataset` once an epoch; batches of like length, where there are `lengths`."""
        args, rows = self.args, len(dataset)
        self.sampler = RoundSampler(
            rows,
            args.seed if args.data_seed is None else args.data_seed,
            lengths=lengths,
            group_size=self._train_batch_size * args.gradient_accumulation_steps * args.world_size,
            shuffle=args.train_sampling_strategy != "sequential",
        )
        self.sampler.set_selected(np.arange(rows))
        return self.sampler

    def log_picture(self, name: str, path: str | Path, step: int | None = None) -> None:
        """Show a PNG, such as the functions of `tithe.evaluation` draw, in the trackers of `report_to`.

        TensorBoard, ClearML and Weights & Biases show it under `name`, which may be `section/name`, at `step`, by
        default the last one of training. Every process may call it; the first one logs.
        """
        if self.is_world_process_zero():
            step = self.state.global_step if step is None else step
            self.pictures.show(name, path, step, Path(str(self.args.output_dir)) / "runs" / "figures")

    def _before_training(self, checkpoint: Path | None) -> None:
        """For subclasses: take up state from `checkpoint`, or start afresh where it is None."""

    def _write_to_checkpoint(self, folder: Path) -> None:
        """For subclasses: write state of their own into the checkpoint, on the process that saves."""

    def _checkpoint_to_resume(self, wanted: str | bool | None) -> Path | None:
        if not wanted:
            return None
        last = last_finished_checkpoint(str(self.args.output_dir))
        if wanted is True:
            if last is None:
                raise ValueError(f"no finished checkpoint in `output_dir` {self.args.output_dir}: nothing to resume")
            return last
        folder = Path(wanted)
        if not is_finished(folder):
            other = f"the last finished one in `output_dir` is {last.name}" if last else "`output_dir` has none"
            raise ValueError(f"checkpoint {folder} is missing or was never finished; {other}")
        return folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self._run_dir / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            remove_checkpoint(folder)  # what a killed run left there must not mix with ours
            folder.mkdir(parents=True)
            self._write_to_checkpoint(folder)
        self.accelerator.wait_for_everyone()
        # The parent deletes old checkpoints before we can vouch for the new one; ours are deleted after.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            torch.save(self.args, folder / TRAINING_ARGS_NAME)  # again, with the limit
            mark_finished(folder)
            rotate_finished(self._run_dir, limit, self.state.best_model_checkpoint)

    def _load_callback_state(self) -> None:
        """Give `ExportableState` callbacks what they knew; the parent does so only on request, with new objects."""
        super()._load_callback_state()
        if self.args.restore_callback_states_from_checkpoint:
            return
        states_by_name: Any = self.state.stateful_callbacks  # a mapping, whatever the parent's annotation says
        for name, saved in states_by_name.items():
            callbacks = [c for c in self.callback_handler.callbacks if type(c).__name__ == name]
            states = saved if isinstance(saved, list) else [saved]
            for callback, state in zip(callbacks, states, strict=False):
                if isinstance(callback, ExportableState):
                    vars(callback).update(state["attributes"])

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, *rest: Any
    ) -> tuple[int, int]:
        """A run that had already stopped early when it was killed has no epoch left."""
        trained = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, *rest)
        return (num_train_epochs, 0) if self.state.global_step and self._has_stopped() else trained

    def _has_stopped(self) -> bool:
        stopping = [c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
        return any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in stopping)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        models = self.accelerator._models
        if models or self.is_fsdp_enabled:
            return super().evaluation_loop(*args, **kwargs)
        if _is_partitioned(self.model):  # it takes an engine, which training must not find
            try:
                return super().evaluation_loop(*args, **kwargs)
            finally:
                if self.deepspeed is not None:
                    self.deepspeed.destroy()
                self.deepspeed, self.model_wrapped = None, self.model
                models.clear()
        if self.is_deepspeed_enabled:
            self._move_model_to_device(self.model, self.args.device)
        models.append(self.model)  # else the parent would prepare it for evaluation, and then not for training
        by_deepspeed, self.is_deepspeed_enabled = self.is_deepspeed_enabled, False
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        try:
            with torch.autocast(self.args.device.type, dtype=dtype, enabled=dtype is not None):
                return super().evaluation_loop(*args, **kwargs)
        finally:
            self.is_deepspeed_enabled = by_deepspeed
            models.clear()

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        if self._is_classifier and isinstance(logits, tuple):
            logits = logits[0]
        return loss, logits, labels

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        factor = None
        if self.compute_loss_func is None and self.label_smoother is None and self.args.n_gpu <= 1:
            factor = share_of_batch(self.model, inputs.get("labels"), num_items_in_batch)
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if factor is None:
            return found
        return (found[0] * factor, found[1]) if return_outputs else found * factor

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        # The parent looks at the loss anyway when it filters, so this costs no further wait for the device.
        if self.args.logging_nan_inf_filter and not self.args.fp16 and not torch.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss.item()} at step {self.state.global_step + 1}: lower `learning_rate`, set "
                "`max_grad_norm`, or look for broken inputs; the weights are those of the step before"
            )
        return loss


def _pruned(trial: Any, error: FloatingPointError) -> Exception:
    import optuna

    trial.set_user_attr("diverged", str(error))
    return optuna.TrialPruned(str(error))


def _is_partitioned(model: nn.Module) -> bool:
    """Whether ZeRO-3 has cut up its parameters, so that it takes an engine to read them."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())
