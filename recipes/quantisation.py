"""The flags that hold a base in 8 or 4 bits, and what `from_pretrained` is to be told for them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import BitsAndBytesConfig


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


def loading_options(args: QuantisedArguments, cpu: bool) -> dict[str, Any]:
    """The options of `from_pretrained` for what `args` say; none where the base is not quantised."""
    if not args.quantised:
        return {}
    if args.load_in_8bit:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    return {"quantization_config": config, "device_map": "cpu" if cpu else {"": torch.cuda.current_device()}}
