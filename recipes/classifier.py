"""The model of a classification recipe: loaded or built, prepared for training on little, and its inputs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tithe.models import freeze, loaded_whole, one_line_errors, set_head_dropout
from tithe.recipes.caching import built_once
from tithe.recipes.classification import ClassificationData
from tithe.recipes.small_model import build_small_model


DEFAULT_MODEL = "answerdotai/ModernBERT-base"
SMALL = "small"


@dataclass
class ModelArguments:
    """Which model is trained, and what of it."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": f"Hub id or folder of the model. `{SMALL}` builds one of 1.4M parameters and a tokenizer from the "
            "training texts; as it starts from nothing, it wants a `learning_rate` of about 1e-3. Default: "
            f"`{SMALL}` on the embedded corpus, else `{DEFAULT_MODEL}`."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the hub model."})
    max_length: int = field(default=128, metadata={"help": "Longest input in tokens; what is longer is cut."})
    head_dropout: float | None = field(
        default=None, metadata={"help": "Dropout before the classification head. Default: the model's own."}
    )
    freeze_embeddings: bool = field(default=False, metadata={"help": "Keep the embeddings as they are."})
    freeze_layers: int = field(default=0, metadata={"help": "Keep the first so many layers as they are."})

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ValueError(f"`max_length` must be at least 8 tokens, got {self.max_length}")


def load_classifier(
    args: ModelArguments, data: ClassificationData, folder: Path, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of `args` with a head for the classes of `data`, and its tokenizer.

    A small model is built in `folder` once, and found there by a resumed run. Raises `ValueError`, in one line, where
    the model cannot be loaded or prepared as `args` say.
    """
    source = args.model_name_or_path
    if source == SMALL:
        source = str(built_once(folder, lambda to: build_small_model(to, data.train["text"][:], data.id2label, seed)))
    model, tokenizer = _load(source or DEFAULT_MODEL, args.model_revision, data.id2label)
    prepare(model, args)
    return model, tokenizer


def prepare(model: PreTrainedModel, args: ModelArguments) -> None:
    """Set the dropout of the head and freeze what `args` say; a `ValueError` where the model cannot be so."""
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and args.max_length > longest:
        raise ValueError(f"`max_length` is {args.max_length}, the model takes at most {longest} tokens")
    if args.head_dropout is not None:
        set_head_dropout(model, args.head_dropout)
    freeze(model, layers=args.freeze_layers, embeddings=args.freeze_embeddings)


def _load(
    source: str, revision: str | None, id2label: dict[int, str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    labels = {"id2label": id2label, "label2id": {name: index for index, name in id2label.items()}}
    hint = f"Give a folder, a hub id that can be reached from here, or `{SMALL}`"
    with (
        loaded_whole(),
        one_line_errors(f"`model_name_or_path` {source} could not be loaded as a text classifier", hint),
    ):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, revision=revision, num_labels=len(id2label), ignore_mismatched_sizes=True, **labels
        )
    if tokenizer.pad_token_id is None:  # GPT-2 and others have none
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def tokenise(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """`rows` with the columns `input_ids`, `attention_mask`, … beside `text` and `label`."""
    columns = [name for name in ("text", "text_pair") if name in rows.column_names]

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        return dict(tokenizer(*(batch[name] for name in columns), truncation=True, max_length=max_length))

    return rows.map(encode, batched=True, desc="Tokenising")
