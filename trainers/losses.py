"""Losses that are right under gradient accumulation and over several processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from ..models import plain_model


LossFunction = Callable[..., Tensor]

_HEADS = {
    *MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values(),
    *MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values(),
}
# Heads of encoder-decoders that return a local mean and ignore `num_items_in_batch`, as those above do.
_SEQ2SEQ = frozenset(
    """
    BartForConditionalGeneration BigBirdPegasusForConditionalGeneration BlenderbotForConditionalGeneration
    BlenderbotSmallForConditionalGeneration EncoderDecoderModel FSMTForConditionalGeneration
    LEDForConditionalGeneration LongT5ForConditionalGeneration M2M100ForConditionalGeneration MarianMTModel
    MBartForConditionalGeneration MT5ForConditionalGeneration MvpForConditionalGeneration
    NllbMoeForConditionalGeneration PegasusForConditionalGeneration PegasusXForConditionalGeneration
    PLBartForConditionalGeneration ProphetNetForConditionalGeneration SeamlessM4TForTextToText
    SeamlessM4Tv2ForTextToText SwitchTransformersForConditionalGeneration T5ForConditionalGeneration
    UMT5ForConditionalGeneration
    """.split()
)
_CHOOSE = frozenset(MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES.values())


def classification_loss(model: nn.Module, label_smoothing: float = 0.0) -> LossFunction | None:
    """A `compute_loss_func` for `model` if it is a sequence or token classifier, else None.

    loss = Σ cross-entropy over the active labels / number of active labels in the whole accumulated batch, over all
    processes. The heads themselves return a local mean, which `Trainer` takes for such a quotient and so multiplies by
    accumulation steps × processes (transformers#47688; this can go once it is closed). Causal language models do it
    right and are left alone, and so are classes whose `forward` is their own; for encoder-decoders see
    `share_of_batch`.

    Args:
        model: the model that will be trained, perhaps with PEFT around it.
        label_smoothing: as `TrainingArguments.label_smoothing_factor`; for single-label classification.

    Returns:
        A function of the model's outputs, the labels, and `num_items_in_batch`. The labels are class indices (-100 is
        ignored), or by the config's `problem_type` real numbers (regression) or 0/1 rows (multi-label).
    """
    inner = plain_model(model)
    names = _forward_of(inner)
    if not names & (_HEADS | _CHOOSE):
        return None
    chooses, config = bool(names & _CHOOSE), inner.config

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        total, active = _summed(logits, labels, None if chooses else config, label_smoothing)
        if num_items_in_batch is None:
            return total / active
        # Under `DataParallel` the count comes as one equal entry per device, each the devices' share of the whole.
        count = num_items_in_batch.sum() if isinstance(num_items_in_batch, Tensor) else num_items_in_batch
        return total / count

    return loss


def share_of_batch(model: nn.Module, labels: Tensor | None, num_items_in_batch: Tensor | int | None) -> Tensor | None:
    """What the loss of an encoder-decoder's head must be multiplied by to be right, or None where it is right.

    The heads of T5, BART and their kin return the mean over the labels of their own micro-batch, which `Trainer` takes
    for a sum over them / `num_items_in_batch`. That it becomes by the factor: active labels / `num_items_in_batch`.
    """
    if labels is None or num_items_in_batch is None or not _forward_of(plain_model(model)) & _SEQ2SEQ:
        return None
    return (labels != -100).sum() / num_items_in_batch


def _forward_of(model: nn.Module) -> set[str]:
    """The names of its class and of those that it derives from, up to the one whose `forward` it has.

    A class with a `forward` of its own has a loss of its own, of which nothing is known.
    """
    names = set()
    for cls in type(model).__mro__:
        names.add(cls.__name__)
        if "forward" in vars(cls):
            break
    return names


def _summed(logits: Tensor, labels: Tensor, config: Any, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The summed loss and the number of items it sums over; `config` is None for a choice among the logits."""
    problem = None if config is None else config.problem_type or _problem_type(labels, config.num_labels)
    if problem == "regression":
        return F.mse_loss(logits.view_as(labels), labels, reduction="sum"), torch.tensor(labels.numel())
    if problem == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum"), torch.tensor(labels.numel())
    labels = labels.view(-1)
    total = F.cross_entropy(
        logits.view(-1, logits.shape[-1]).float(), labels, reduction="sum", label_smoothing=label_smoothing
    )
    return total, (labels != -100).sum()


def _problem_type(labels: Tensor, num_labels: int) -> str:
    """What the heads of Transformers conclude where the config names no `problem_type`."""
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
