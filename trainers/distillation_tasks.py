"""What distillation must know of a task: which positions are compared, with which labels, over which classes."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from ..models import plain_model


IGNORE = -100

_TASKS = {
    "sequence classification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "token classification": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "multiple choice": MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
    "seq2seq": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "causal LM": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}
TASKS = tuple(_TASKS)
LANGUAGE_TASKS = frozenset({"seq2seq", "causal LM"})
_ENDINGS = {
    "ForSequenceClassification": "sequence classification",
    "ForTokenClassification": "token classification",
    "ForMultipleChoice": "multiple choice",
    "ForConditionalGeneration": "seq2seq",
    "ForCausalLM": "causal LM",
}
MOST_CHOICES = 64
"""How many choices a row of multiple choice may have; all rows have the same number."""
_ONE_ITEM = ("sequence classification", "multiple choice")  # a row


def task_of(model: nn.Module, what: str = "model", declared: str | None = None) -> str:
    """`sequence classification`, `token classification`, `multiple choice`, `seq2seq` or `causal LM`.

    What the model's class says, or a class that it derives from: by being one of Transformers' own, or by ending as
    they do, such as `ForTokenClassification`. Where it says nothing, it is the `declared` task.

    Raises:
        ValueError: nothing says which, or `model` scores labels that do not exclude each other.
    """
    inner = plain_model(model)
    name, said = type(inner).__name__, _said_by_class(inner)
    task = said or declared
    if task is None:
        raise ValueError(
            f"`{what}` is a {name}, whose class does not say its task; distillation is for models of "
            f"{', '.join(TASKS)}: set `task`, or let the class's name end as those of Transformers do"
        )
    problem = inner.config.problem_type
    if task.endswith("classification") and (
        problem not in (None, "single_label_classification") or _classes(inner) < 2
    ):
        raise ValueError(
            f"`{what}` must choose one of several labels; its `problem_type` is {problem}, its `num_labels` "
            f"{_classes(inner)}"
        )
    return task


def _said_by_class(model: nn.Module) -> str | None:
    names = [cls.__name__ for cls in type(model).__mro__]
    known = (task for name in names for task, classes in _TASKS.items() if name in classes.values())
    by_ending = (task for name in names for ending, task in _ENDINGS.items() if name.endswith(ending))
    return next(known, None) or next(by_ending, None)


def _classes(model: Any) -> int:
    return int(model.config.num_labels)


def number_of_classes(model: nn.Module, task: str) -> int:
    """Labels of a classifier, outputs of a language model's head, or the most choices there may be."""
    inner = plain_model(model)
    if task == "multiple choice":
        return MOST_CHOICES
    return int(inner.config.get_text_config().vocab_size) if task in LANGUAGE_TASKS else _classes(inner)


def target_labels(task: str, labels: Tensor) -> Tensor:
    """The labels that logits of the same shape are compared with; for a causal LM those of the next position."""
    if task != "causal LM":
        return labels
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORE)], dim=1)


def active_items(
    task: str, labels: Tensor | None, inputs: Mapping[str, Tensor], special_ids: Collection[int] = ()
) -> Tensor:
    """Which logits count: bool[b] in sequence classification and multiple choice, else bool[b, t].

    Of a labelled row those whose label is not -100. Of an unlabelled row (no `labels`, or -100 throughout) all that
    its attention mask shows, without special tokens in token classification.

    Args:
        labels: as in the batch, not shifted.
        inputs: all else in the batch: `input_ids`, or what the model's `forward` has in their place, and
            `attention_mask` where anything is padded.
        special_ids: ids of special tokens.

    Raises:
        ValueError: a seq2seq row has no labels: there is nothing for its decoder to read. Or tokens have none, and
            nothing in the batch says which of them are padding.
    """
    if task in _ONE_ITEM:
        rows = some_input(inputs)
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    ids = inputs.get("input_ids")
    if labels is not None:
        active = target_labels(task, labels) != IGNORE
    elif ids is not None:
        active = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    else:
        raise ValueError(f"{task} needs `labels` or `input_ids` in the batch; it has {', '.join(inputs)}")
    unlabelled = ~active.any(dim=1)
    if task == "seq2seq":
        if labels is None or unlabelled.any():
            raise ValueError("seq2seq rows need `labels`, be they a teacher's: without them the decoder reads nothing")
        return active
    if ids is None and "attention_mask" not in inputs and unlabelled.any():
        raise ValueError(
            "rows without labels need `attention_mask` or `input_ids` in the batch, which say what is padding; it has "
            f"{', '.join(inputs)}"
        )
    shown = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(active)
    if task == "causal LM":
        shown = torch.cat([shown[:, 1:], torch.zeros_like(shown[:, :1])], dim=1) & shown
    elif special_ids and ids is not None:
        shown = shown & ~torch.isin(ids, torch.tensor(sorted(special_ids), device=ids.device))
    return torch.where(unlabelled[:, None], shown, active)


def some_input(inputs: Mapping[str, Any]) -> Tensor:
    """`input_ids`, or where a model takes something else the first input with an entry per row."""
    if "input_ids" in inputs:
        return inputs["input_ids"]
    return next(value for value in inputs.values() if isinstance(value, Tensor) and value.dim())


def items_of_rows(active: Tensor) -> Tensor:
    """How many items each row has, int64[b]."""
    return active.long() if active.dim() == 1 else active.sum(dim=1)


def label_order(student: nn.Module, teacher: nn.Module, name: str) -> Tensor | None:
    """For each label of `student` its index in `teacher`, by name; None where the orders are the same.

    Raises:
        ValueError: the two have different labels.
    """
    ours, theirs = (_names(plain_model(model)) for model in (student, teacher))
    if ours == theirs:
        return None
    if set(ours) != set(theirs) or len(ours) != len(theirs):
        raise ValueError(
            f"{name} has other labels than the student: only the student has {_some(set(ours) - set(theirs))}, only "
            f"the teacher {_some(set(theirs) - set(ours))} ({len(ours)} and {len(theirs)} in all); set `id2label` and "
            "`label2id` in its config, or train it on the same labels"
        )
    return torch.tensor([theirs.index(label) for label in ours])


def _names(model: Any) -> list[str]:
    return [str(model.config.id2label[i]) for i in range(model.config.num_labels)]


def _some(names: set[str], at_most: int = 5) -> str:
    shown = ", ".join(sorted(names)[:at_most]) or "none"
    return shown + (f", … ({len(names)})" if len(names) > at_most else "")


def check_vocabularies(student: nn.Module, teacher: nn.Module, tokens: int | None, name: str) -> None:
    """Raise a `ValueError` unless every token id means the same to both, but for padding at the teacher's end.

    Args:
        tokens: how many tokens the student's tokenizer has, where it is known.
    """
    ours, theirs = (int(plain_model(m).config.get_text_config().vocab_size) for m in (student, teacher))
    if ours == theirs or (tokens is not None and tokens <= ours <= theirs):
        return
    known = "" if tokens is None else f", their tokenizer {tokens}"
    raise ValueError(
        f"{name} has a vocabulary of {theirs}, the student one of {ours}{known}: a language model can only be taught "
        "by one with the same tokenizer"
    )
