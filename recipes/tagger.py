"""The models of a tagging recipe and their inputs: loaded from anywhere, or a small one made of nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from tithe.models import loaded_whole, one_line_errors
from tithe.recipes.caching import built_once
from tithe.recipes.small_model import initial_embeddings, train_tokenizer
from tithe.trainers import tokenize_and_align


DEFAULT_TAGGER = "google-bert/bert-base-cased"
SMALL = "small"
_LONGEST = 256


@dataclass
class TaggerArguments:
    """Which model becomes the teacher, and how words become its tokens."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": f"Hub id or folder of the teacher before it is fine-tuned. `{SMALL}` builds one of 2.6M "
            "parameters and a tokenizer from the training sentences; as it starts from nothing, it wants a "
            f"`teacher_learning_rate` of about 1e-3. Default: `{SMALL}` on the embedded corpus, else "
            f"`{DEFAULT_TAGGER}`."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the hub model."})
    max_length: int = field(
        default=128, metadata={"help": "Longest sentence in tokens; words beyond it are cut and counted, not scored."}
    )
    label_scheme: str = field(
        default="all",
        metadata={
            "help": "Which tokens of a word learn its label: `all`, or the `first`. Scores are of words either way."
        },
    )

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ValueError(f"`max_length` must be at least 8 tokens, got {self.max_length}")
        if self.label_scheme not in ("all", "first"):
            raise ValueError(f"`label_scheme` must be `all` or `first`, got {self.label_scheme!r}")


def load_tagger(
    source: str, revision: str | None, names: Sequence[str], folder: Path, sentences: Dataset, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A token classifier with a label for each of `names`, and its fast tokenizer.

    A small one is built in `folder` once from `sentences`. Raises `ValueError`, in one line, where none can be had.
    """
    if source == SMALL:
        joined = [" ".join(words) for words in sentences["words"]]
        source = str(built_once(folder, lambda to: build_small_tagger(to, joined, names, seed)))
    labels: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
    hint = f"Give a folder, a hub id that can be reached from here, or `{SMALL}`"
    with (
        loaded_whole(),
        one_line_errors(f"`model_name_or_path` {source} could not be loaded as a token classifier", hint),
    ):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **_prefix(source, revision))
        set_seed(seed)  # of the new head
        model = AutoModelForTokenClassification.from_pretrained(
            source, revision=revision, num_labels=len(names), ignore_mismatched_sizes=True, **labels
        )
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {source} does not say which word a token is of: it is no fast one")
    return model, tokenizer


def _prefix(source: str, revision: str | None) -> dict[str, Any]:
    """Byte-level tokenizers (RoBERTa, GPT-2) take lists of words only with a space before each."""
    found = AutoTokenizer.from_pretrained(source, revision=revision)
    return {"add_prefix_space": True} if getattr(found, "add_prefix_space", None) is False else {}


def build_small_tagger(folder: Path, texts: Sequence[str], names: Sequence[str], seed: int) -> None:
    """Write a cased tokenizer trained on `texts` and a BERT of 4 layers × 160 with a tagging head into `folder`."""
    tokenizer = train_tokenizer(texts, lowercase=False)
    tokenizer.save_pretrained(folder)
    set_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        num_hidden_layers=4,
        num_attention_heads=5,
        intermediate_size=640,
        max_position_embeddings=_LONGEST,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    model = BertForTokenClassification(config)
    words = model.bert.embeddings.word_embeddings.weight.data
    words.copy_(initial_embeddings(tokenizer, texts, words.shape[1]))
    model.save_pretrained(folder)


def encode(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], scheme: str, longest: int
) -> Dataset:
    """`rows` with `input_ids`, `attention_mask`, `labels` per token, and `words_cut`, beside their `words`."""
    return rows.map(
        tokenize_and_align,
        batched=True,
        fn_kwargs={
            "tokenizer": tokenizer,
            "names": tuple(names),
            "label_column": "labels",
            "max_length": longest,
            "scheme": scheme,
        },
        desc="Tokenising",
    )
