"""Models held in 8 or 4 bits where flags say so, and tokenizers that can pad; errors name the flag, in one line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from tithe.models import loaded_whole, one_line_errors, require_extra


@dataclass
class QuantisedArguments:
    """In how many bits a base is held."""

    load_in_8bit: bool = field(default=False, metadata={"help": "Hold the base in 8 bits (bitsandbytes)."})
    load_in_4bit: bool = field(default=False, metadata={"help": "Hold the base in 4 bits, nf4 (bitsandbytes)."})

    def __post_init__(self) -> None:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("`load_in_8bit` and `load_in_4bit` exclude each other")

    @property
    def quantised(self) -> bool:
        """Whether the base is held in 8 or 4 bits."""
        return self.load_in_8bit or self.load_in_4bit

    def check_extras(self) -> None:
        """Raise an `ImportError`, with what to install, where the base cannot be held as these arguments say."""
        if self.quantised:
            require_extra("bitsandbytes", "quantization", "`load_in_8bit`" if self.load_in_8bit else "`load_in_4bit`")


def load_quantisable(
    auto: Any,
    args: QuantisedArguments,
    source: str | Path,
    revision: str | None,
    cpu: bool,
    kind: str,
    argument: str = "model_name_or_path",
    **options: Any,
) -> PreTrainedModel:
    """The model at `source`, in as many bits as `args` say, on the CPU or the current GPU where it is quantised.

    Under ZeRO-3, too, each process first has the whole model: it is read before it is trained.

    Args:
        auto: the class that loads it.
        kind: what errors say that it should be.
        argument: what errors call the flag that named it.
        options: what else `from_pretrained` is told.

    Raises:
        ImportError: bitsandbytes is to hold it, and is missing.
        ValueError: it cannot be had.
    """
    args.check_extras()
    with loaded_whole(), one_line_errors(f"`{argument}` {source} could not be loaded as {kind}"):
        return auto.from_pretrained(str(source), revision=revision, **_quantisation(args, cpu), **options)


def load_tokenizer(
    source: str | Path, revision: str | None, *, argument: str = "model_name_or_path", ending: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer at `source`.

    Args:
        argument: what errors call the flag that named it.
        ending: what an end-of-sequence token must end; it then pads, too, where there is no padding token.

    Raises:
        ValueError: there is none, or it lacks that token.
    """
    with one_line_errors(f"`{argument}` {source} has no tokenizer that could be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(str(source), revision=revision)
    if ending is not None:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {source} has no end-of-sequence token, which must end {ending}")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _quantisation(args: QuantisedArguments, cpu: bool) -> dict[str, Any]:
    """The options of `from_pretrained` for what `args` say; none where the model is not quantised."""
    if not args.quantised:
        return {}
    if args.load_in_8bit:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    return {"quantization_config": config, "device_map": "cpu" if cpu else {"": torch.cuda.current_device()}}
