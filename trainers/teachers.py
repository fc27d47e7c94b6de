"""Frozen teachers: loaded, checked against the student, and read without a trace in the training around them."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)

from ..models import loaded_whole, model_fingerprint, plain_model, tokenizer_fingerprint
from .distillation_tasks import LANGUAGE_TASKS, check_vocabularies, label_order, some_input, task_of
from .teacher_inputs import OwnInputs


_LOADERS = {
    "sequence classification": AutoModelForSequenceClassification,
    "token classification": AutoModelForTokenClassification,
    "multiple choice": AutoModelForMultipleChoice,
    "seq2seq": AutoModelForSeq2SeqLM,
    "causal LM": AutoModelForCausalLM,
}


@dataclass
class Teacher:
    """One teacher of a student.

    Args:
        model: a fine-tuned model, in any precision, or the hub id or folder of one.
        weight: its share in an ensemble, relative to the others'.
        tokenizer: its own, where that is not the student's; of a model by name the one that lies with it.
    """

    model: nn.Module | str
    weight: float = 1.0
    tokenizer: PreTrainedTokenizerBase | None = None


@dataclass
class BoundTeacher:
    """A teacher that fits the student.

    Attributes:
        order: for each of the student's labels its index in the teacher; None where the orders are the same.
        own: its inputs, where it does not read the student's.
    """

    model: Any
    weight: float
    name: str
    tokenizer: PreTrainedTokenizerBase | None = None
    order: Tensor | None = None
    own: OwnInputs | None = None
    accepts: frozenset[str] = field(default_factory=frozenset)

    def inputs(self, batch: Mapping[str, Any], rows: NDArray[np.int64], labels: Tensor | None) -> dict[str, Any]:
        """What its `forward` takes of the student's `batch`, of the data set's `rows`."""
        if self.own is not None:
            device = some_input(batch).device
            return {k: v.to(device) for k, v in self.own.batch(rows).items() if k in self.accepts}
        taken = {name: value for name, value in batch.items() if name in self.accepts}
        if self.model.config.is_encoder_decoder and labels is not None:
            taken["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels=labels)
        return taken

    def fingerprint(self) -> dict[str, Any]:
        """What its answers follow from, but for the data."""
        return {
            "model": model_fingerprint(self.model),
            "tokenizer": tokenizer_fingerprint(self.tokenizer) if self.own and self.tokenizer else None,
            "max_length": self.own.max_length if self.own else None,
        }


def as_teachers(teachers: Any, weights: Sequence[float] | None = None) -> list[Teacher]:
    """One teacher or several, each a model, a name or a `Teacher`, as a list; `weights` override their own.

    Raises:
        TypeError: one is none of these.
        ValueError: a weight is not above 0, or there are more or fewer than teachers.
    """
    single = isinstance(teachers, (str, nn.Module, Teacher))
    listed = [teachers] if single else list(teachers or ())
    for teacher in listed:
        if not isinstance(teacher, (str, nn.Module, Teacher)):
            raise TypeError(f"`teachers` holds models, names or `Teacher`s, not {type(teacher).__name__}")
    if weights is not None and len(weights) != len(listed):
        raise ValueError(f"`teacher_weights` has {len(weights)} weights for {len(listed)} teachers")
    found = [t if isinstance(t, Teacher) else Teacher(t) for t in listed]
    if weights is not None:
        found = [Teacher(t.model, float(w), t.tokenizer) for t, w in zip(found, weights, strict=True)]
    for number, teacher in enumerate(found):
        if not 0 < teacher.weight < float("inf"):
            raise ValueError(f"the weight of teacher {number} must be above 0, got {teacher.weight}")
    return found


def bind(
    teacher: Teacher,
    student: nn.Module,
    name: str,
    task: str,
    *,
    declared: str | None = None,
    student_tokenizer: PreTrainedTokenizerBase | None,
    dtype: torch.dtype | None = None,
    load_in_8bit: bool = False,
    device: torch.device | str = "cpu",
) -> BoundTeacher:
    """Load `teacher` if need be, freeze it, and check that it can teach `student`, whose task is `task`.

    Where the teacher's class says no task, it is the `declared` one.

    Raises:
        ValueError: it is for another task, has other labels or another vocabulary, or comes without its parameters.
    """
    tokenizer = teacher.tokenizer
    model: Any = teacher.model
    if isinstance(model, str):
        name, tokenizer = f"{name} ({model})", tokenizer or AutoTokenizer.from_pretrained(model)
        model = _load(model, task, dtype, load_in_8bit)
    if model is student:
        raise ValueError(f"{name} is the student itself: pass a copy")
    theirs = task_of(model, name, declared)
    if theirs != task:
        raise ValueError(f"{name} is for {theirs}, the student for {task}")
    if any(parameter.numel() == 0 for parameter in model.parameters()):
        raise ValueError(
            f"{name} has empty parameters: under ZeRO-3 a model loaded after the training arguments is sharded at "
            "once. Pass its name or folder, or load it before them"
        )
    model.eval().requires_grad_(False)
    if not getattr(model, "is_quantized", False) and getattr(model, "hf_device_map", None) is None:
        model.to(device)
    order = None
    if task in LANGUAGE_TASKS:
        tokens = None if student_tokenizer is None else len(student_tokenizer)
        check_vocabularies(student, model, tokens, name)
    elif task != "multiple choice":
        order = label_order(student, model, name)
    other = tokenizer is not None and (
        student_tokenizer is None or tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(student_tokenizer)
    )
    if other and task in LANGUAGE_TASKS:
        raise ValueError(f"{name} has another tokenizer than the student: for language models they must be the same")
    tokens, needed = number_of_inputs(model), number_of_inputs(student)
    if not other and tokens is not None and needed is not None and tokens < needed:
        raise ValueError(
            f"{name} embeds {tokens} tokens, the student {needed}: it has another tokenizer; pass "
            "`Teacher(model, tokenizer=…)`"
        )
    accepts = frozenset(inspect.signature(plain_model(model).forward).parameters) - {"labels"}
    return BoundTeacher(model, teacher.weight, name, tokenizer if other else None, order, None, accepts)


def number_of_inputs(model: nn.Module) -> int | None:
    """How many token ids a model has embeddings for; None where a config of its own does not say so."""
    found = getattr(plain_model(model).config.get_text_config(), "vocab_size", None)
    return None if found is None else int(found)


def _load(name: str, task: str, dtype: torch.dtype | None, load_in_8bit: bool) -> Any:
    options: dict[str, Any] = {"dtype": dtype} if dtype is not None else {}
    if load_in_8bit:
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    with loaded_whole():
        return _LOADERS[task].from_pretrained(name, **options)


def logits_in(outputs: Any) -> Tensor:
    """The logits in what a model's `forward` gave without labels: by name, or the first of a tuple."""
    return outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]


def logits_of(
    teacher: BoundTeacher,
    batch: Mapping[str, Any],
    active: Tensor,
    rows: NDArray[np.int64],
    labels: Tensor | None,
    classes: int,
) -> Tensor:
    """The teacher's logits of the active items, in the student's order of classes, (n, at most `classes`)."""
    with torch.no_grad():
        logits = logits_in(teacher.model(**teacher.inputs(batch, rows, labels)))
    picked = logits[active] if teacher.own is None else teacher.own.pick(logits, rows, active)
    if teacher.order is not None:
        picked = picked.index_select(-1, teacher.order.to(picked.device))
    return picked[:, :classes]
