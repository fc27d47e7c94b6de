"""LoRA and prompt tuning together in one sequence-to-sequence model, or in a causal one."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, Seq2SeqTrainer, Seq2SeqTrainingArguments

from ..evaluation import Section
from ..models import add_lora_and_prompt, input_positions, plain_model, virtual_tokens_of
from .card_sections import adapters_section
from .reliable import ReliableTrainer
from .required_extras import ExtrasArguments


IGNORED = -100


@dataclass
class PTSeq2SeqConfig(ExtrasArguments, Seq2SeqTrainingArguments):
    """The arguments of `PTSeq2SeqTrainer`: those of `Seq2SeqTrainingArguments`, and what is added to the model.

    Raises:
        ImportError: it asks for DeepSpeed, which is not installed.
        ValueError: a value is out of range, or two contradict each other.
    """

    # LoRA
    lora_rank: int = field(default=8, metadata={"help": "Rank of LoRA's matrices; 0 for the prompt alone."})
    lora_alpha: int | None = field(
        default=None, metadata={"help": "LoRA's scale is `lora_alpha` / `lora_rank`. Default: twice the rank."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before LoRA's matrices."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Layers that get LoRA, by name. Default: query and value."}
    )
    # The prompt
    virtual_tokens: int = field(default=20, metadata={"help": "Vectors of the prompt; 0 for LoRA alone."})
    prompt_init: str = field(
        default="vocabulary",
        metadata={"help": "What the prompt begins as: rows of the `vocabulary`, a `text`, or `random`."},
    )
    prompt_text: str | None = field(default=None, metadata={"help": "The text of `prompt_init` text."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lora_rank", "virtual_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`lora_dropout` must be at least 0 and below 1, got {self.lora_dropout}")
        if self.prompt_init == "text" and not self.prompt_text:
            raise ValueError("`prompt_init` text needs `prompt_text`")


class PTDataCollator:
    """Pads inputs and targets of a batch, each to its longest.

    Masks are of the input alone: the model knows its prompt. For an encoder-decoder a row has `input_ids` and, to be
    trained on, `labels`. For a causal model it has the `input_ids` of input and target, and labels of the same length
    that are -100 where the input is.

    Args:
        tokenizer: pads, on its `padding_side`.
        model: makes `decoder_input_ids` of the labels, where it is an encoder-decoder: label smoothing needs them.
        pad_to_multiple_of: rounds the lengths up, such as 8 for tensor cores.

    Raises:
        ValueError: a row has no label that counts.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: Any = None, pad_to_multiple_of: int | None = None
    ) -> None:
        self.tokenizer, self.pad_to_multiple_of = tokenizer, pad_to_multiple_of
        self._decoder_inputs = getattr(model, "prepare_decoder_input_ids_from_labels", None)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        names = [name for name in ("input_ids", "attention_mask") if name in rows[0]]
        inputs = [{name: list(row[name]) for name in names} for row in rows]
        batch: dict[str, Any] = dict(
            self.tokenizer.pad(inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt")
        )
        if "labels" not in rows[0]:
            return batch
        labels = [list(row["labels"]) for row in rows]
        for place, row in enumerate(labels):
            if all(label == IGNORED for label in row):
                raise ValueError(f"row {place} of the batch has an empty target: nothing can be learnt from it")
        width, step = max(map(len, labels)), self.pad_to_multiple_of or 1
        width = -(-width // step) * step
        padded = torch.full((len(labels), width), IGNORED)
        for place, row in enumerate(labels):
            where = slice(width - len(row), None) if self.tokenizer.padding_side == "left" else slice(len(row))
            padded[place, where] = torch.tensor(row)
        batch["labels"] = padded
        if self._decoder_inputs is not None:
            batch["decoder_input_ids"] = self._decoder_inputs(labels=padded)
        return batch


class PTSeq2SeqTrainer(ReliableTrainer, Seq2SeqTrainer):
    """A `Seq2SeqTrainer` that trains LoRA and a soft prompt of a model whose own weights stay as they are.

    The model is wrapped by `tithe.models.add_lora_and_prompt` as `args` say; one that has adapters already, such as
    `load_lora_and_prompt` gives, is taken as it is, and so is every model where `lora_rank` and `virtual_tokens` are
    0. Checkpoints hold what was added, and no more. Everything else is as in `Seq2SeqTrainer`: `predict_with_generate`
    with beams or sampling, quantised bases, DeepSpeed, `resume_from_checkpoint`.

    Causal models are trained on rows that hold input and target (see `PTDataCollator`); they generate with
    `tithe.models.generate_predictions`, not in evaluation.

    Args:
        model, args, …: as for `Seq2SeqTrainer`; `args` is a `PTSeq2SeqConfig`.
        data_collator: by default a `PTDataCollator` of `processing_class`.

    Raises:
        TypeError: `args` is of another type, or the model cannot have what is to be added.
        ValueError: an input is longer than the positions that the prompt leaves, a target is empty, or
            `predict_with_generate` is asked of a causal model; before anything is trained.

    Example:
        >>> from tithe.trainers import PTSeq2SeqConfig, PTSeq2SeqTrainer
        >>> args = PTSeq2SeqConfig("out", lora_rank=8, virtual_tokens=20, learning_rate=3e-4)  # doctest: +SKIP
        >>> PTSeq2SeqTrainer(model, args, train_dataset=rows, processing_class=tokenizer).train()  # doctest: +SKIP
    """

    args: PTSeq2SeqConfig

    def __init__(
        self,
        model: nn.Module | None = None,
        args: PTSeq2SeqConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        *trainer_args: Any,
        model_init: Callable[..., Any] | None = None,
        processing_class: Any = None,
        **trainer_kwargs: Any,
    ) -> None:
        args = PTSeq2SeqConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, PTSeq2SeqConfig):
            raise TypeError(f"`args` must be a `PTSeq2SeqConfig`, got `{type(args).__name__}`")
        self._args_of_adapters, self._tokenizer = args, processing_class
        if model is not None:
            model = self._adapted(model)
        if data_collator is None and isinstance(processing_class, PreTrainedTokenizerBase):
            data_collator = PTDataCollator(processing_class, model)
        super().__init__(
            model,
            args,
            data_collator,
            train_dataset,
            *trainer_args,
            model_init=None if model_init is None else self._adapting(model_init),
            processing_class=processing_class,
            **trainer_kwargs,
        )
        self._check()

    def _adapted(self, model: Any) -> Any:
        args = self._args_of_adapters
        if isinstance(model, PeftModel) or not args.lora_rank + args.virtual_tokens:
            return model
        return add_lora_and_prompt(
            model,
            rank=args.lora_rank,
            alpha=args.lora_alpha,
            dropout=args.lora_dropout,
            target_modules=args.lora_target_modules,
            virtual_tokens=args.virtual_tokens,
            prompt_init=args.prompt_init,
            prompt_text=args.prompt_text,
            tokenizer=self._tokenizer,
            seed=args.seed,
        )

    def _adapting(self, model_init: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(model_init)  # the parent looks how many arguments it takes
        def adapted(*given: Any) -> Any:
            return self._adapted(model_init(*given))

        return adapted

    def card_sections(self) -> list[Section]:
        """As the parent's, with what was added to the model."""
        return [*super().card_sections(), *adapters_section(self)]

    def card_tags(self) -> list[str]:
        added = {"lora": self.args.lora_rank, "prompt-tuning": self.args.virtual_tokens}
        return [*super().card_tags(), *(name for name, size in added.items() if size)]

    def _check(self) -> None:
        config: Any = plain_model(self.model).config
        if self.args.predict_with_generate and not config.is_encoder_decoder:
            raise ValueError(
                f"`predict_with_generate` needs an encoder-decoder, got {type(plain_model(self.model)).__name__}: its "
                "inputs hold the targets; use `tithe.models.generate_predictions` on inputs without them"
            )
        if self.args.fp16 and "t5" in config.model_type:
            warnings.warn(f"{config.model_type} overflows in fp16: pass `bf16` instead", stacklevel=3)
        longest = input_positions(plain_model(self.model))
        room = None if longest is None else longest - virtual_tokens_of(self.model)
        for name, dataset in (("train_dataset", self.train_dataset), *_named(self.eval_dataset)):
            if dataset is not None and hasattr(dataset, "__len__"):
                check_rows(dataset, name, room)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent's, over each row once.

        `Seq2SeqTrainer` gathers what the processes generated without dropping the rows that filled up the last batch,
        so that predictions, and the scores made of them, have some rows twice.
        """
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)


def _named(dataset: Any) -> list[tuple[str, Any]]:
    if isinstance(dataset, Mapping):
        return [(f"eval_dataset[{name!r}]", part) for name, part in dataset.items()]
    return [("eval_dataset", dataset)]


def check_rows(dataset: Any, name: str, room: int | None) -> None:
    """Raise a `ValueError` where a row has no target, or an input of more than `room` tokens (None: any length)."""
    for number, (ids, labels) in enumerate(_rows(dataset)):
        if labels is not None and all(label == IGNORED for label in labels):
            raise ValueError(f"row {number} of `{name}` has an empty target: nothing can be learnt from it")
        if room is not None and len(ids) > room:
            raise ValueError(
                f"row {number} of `{name}` has {len(ids)} tokens, and the prompt leaves {room} positions: cut the "
                "inputs, or lower `virtual_tokens`"
            )


def _rows(dataset: Any) -> Any:
    if hasattr(dataset, "select_columns"):  # datasets.Dataset
        wanted = [name for name in ("input_ids", "labels") if name in dataset.column_names]
        for batch in dataset.select_columns(wanted).iter(batch_size=1000):
            labels = batch.get("labels") or [None] * len(batch["input_ids"])
            yield from zip(batch["input_ids"], labels, strict=True)
    else:
        for number in range(len(dataset)):
            row = dataset[number]
            if isinstance(row, Mapping):  # else its collator alone knows what is in it
                yield row.get("input_ids", ()), row.get("labels")
