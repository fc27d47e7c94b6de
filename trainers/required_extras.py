"""What training arguments need beyond the core dependencies, checked before anything is loaded or trained."""

from accelerate.utils import parse_flag_from_env
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from ..models import require_extra


# Those of `OptimizerNames` that Transformers takes from bitsandbytes
BITSANDBYTES_OPTIMIZERS = frozenset(
    ("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")
    + ("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit")
    + ("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit")
    + ("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit")
)


class ExtrasArguments(TrainingArguments):
    """`TrainingArguments` that say which extra of Tithe is missing for what they ask.

    Without DeepSpeed, arguments that ask for it cannot be made. The rest waits for `check_extras`, so that a config
    can be read where it cannot be run.
    """

    def __post_init__(self) -> None:
        if self.deepspeed or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
            require_extra("deepspeed", "deepspeed", "`deepspeed`" if self.deepspeed else "ACCELERATE_USE_DEEPSPEED")
        super().__post_init__()

    def check_extras(self) -> None:
        """Raise an `ImportError`, with what to install, where these arguments need a package that is not there."""
        optimizer = OptimizerNames(self.optim).value
        if optimizer in BITSANDBYTES_OPTIMIZERS:
            require_extra("bitsandbytes", "quantization", f"`optim` {optimizer}")
