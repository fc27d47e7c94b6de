"""A hub cache with tiny models under the names that the documentation uses: the same code loads them as any others.

To give pages another model, add a line to `MODELS`: its name on the hub, and which of the makers below makes its like.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from documentation_files import instructions, named, passages, questions, reviews
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    set_seed,
)

from tithe.recipes.byte_tokenizer import train_byte_tokenizer
from tithe.recipes.small_model import train_tokenizer


COMMIT = "0" * 40
LONGEST = 512
_CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def texts() -> list[str]:
    """What the tokenizers are trained on: all that the files of `documentation_files` hold."""
    rows = [row["text"] for row in reviews(400, 0)]
    rows += [" ".join(words) for words, _ in named(100, 0)] + [row["text"] for row in passages()]
    rows += [row["question"] for row in questions()]
    return rows + [f"{row['instruction']} {row['input']} {row['output']}" for row in instructions(100, 0)]


def encoder(folder: Path, *, config: type, cased: bool = True, layers: int = 2, width: int = 32, **more: int) -> None:
    """A masked language model."""
    tokenizer = train_tokenizer(texts(), lowercase=not cased)
    tokenizer.model_max_length = LONGEST
    tokenizer.save_pretrained(folder)
    AutoModelForMaskedLM.from_config(_config(config, tokenizer, layers, width, **more)).save_pretrained(folder)


def classifier(folder: Path, *, config: type, labels: tuple[str, ...], layers: int = 2, width: int = 32) -> None:
    """A classifier of sentences with these labels, with random weights."""
    tokenizer = train_tokenizer(texts(), lowercase=True)
    tokenizer.model_max_length = LONGEST
    tokenizer.save_pretrained(folder)
    found = _config(config, tokenizer, layers, width)
    found.id2label, found.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    AutoModelForSequenceClassification.from_config(found).save_pretrained(folder)


def seq2seq(folder: Path) -> None:
    """A T5."""
    tokenizer = _byte_tokenizer(folder, ends=True)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)


def causal(folder: Path, chat: bool = False, layers: int = 2, width: int = 32) -> None:
    """A Llama, with a chat template or without."""
    tokenizer = _byte_tokenizer(folder, template=_CHAT if chat else None)
    config = _config(LlamaConfig, tokenizer, layers, width, num_key_value_heads=4, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def _byte_tokenizer(folder: Path, ends: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = train_byte_tokenizer(texts(), 600, 512, ends=ends)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def _config(
    config: type, tokenizer: PreTrainedTokenizerFast, layers: int, width: int, **more: int
) -> ModernBertConfig | LlamaConfig:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4}
    if config is DistilBertConfig:
        sizes = {"dim": width, "n_layers": layers, "n_heads": 4, "hidden_dim": 2 * width}
    else:
        sizes["intermediate_size"] = 2 * width
    found = config(vocab_size=len(tokenizer), max_position_embeddings=LONGEST + 2, **sizes, **more)
    for name in ("pad", "bos", "eos", "cls", "sep"):
        setattr(found, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    return found


MODELS: dict[str, Callable[[Path], None]] = {
    "answerdotai/ModernBERT-base": partial(encoder, config=ModernBertConfig),
    "google-bert/bert-base-cased": partial(encoder, config=BertConfig, layers=4),
    "google-bert/bert-base-uncased": partial(encoder, config=BertConfig, cased=False, layers=4),
    "distilbert/distilbert-base-uncased": partial(encoder, config=DistilBertConfig, cased=False),
    "FacebookAI/roberta-base": partial(encoder, config=RobertaConfig),
    "sentence-transformers/all-MiniLM-L6-v2": partial(encoder, config=BertConfig, cased=False),
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": partial(
        classifier, config=DistilBertConfig, labels=("NEGATIVE", "POSITIVE")
    ),
    "google/flan-t5-small": seq2seq,
    "google-t5/t5-small": seq2seq,
    "HuggingFaceTB/SmolLM2-135M": causal,
    "HuggingFaceTB/SmolLM2-360M": partial(causal, layers=4, width=64),
    "HuggingFaceTB/SmolLM2-135M-Instruct": partial(causal, chat=True),
}


def write_hub(cache: Path) -> None:
    """Write all of `MODELS` as the hub's client would have, had it fetched them."""
    for name, make in MODELS.items():
        folder = cache / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        set_seed(0)
        make(folder / "snapshots" / COMMIT)
