"""What a run of several processes, or several engines one after another, needs around its trainers."""

import gc
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState


def end_processes() -> None:
    """Close the process group, if there is one: left open, its threads may abort the process as it exits."""
    gc.collect()  # a DDP model is part of cycles, and keeps the group's threads
    PartialState().destroy_process_group()


def renew_deepspeed(args: Any) -> None:
    """Prepare `args`, a copy of training arguments under DeepSpeed, for a trainer after others in the same process.

    Accelerate keeps the first trainer's plugin, whose `auto` values are filled in, and refuses another beside it. This
    lets go of it and makes one of the arguments as they are now. Without DeepSpeed it does nothing.
    """
    if args.deepspeed_plugin is None:
        return
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    gc.collect()  # an engine is part of cycles
    AcceleratorState._reset_state()
    if args.deepspeed:
        args.hf_deepspeed_config = HfTrainerDeepSpeedConfig(args.deepspeed)
        args.hf_deepspeed_config.trainer_config_process(args)
        args.deepspeed_plugin = DeepSpeedPlugin(hf_ds_config=args.hf_deepspeed_config)
    else:  # by `accelerate launch`
        args.deepspeed_plugin = DeepSpeedPlugin()
        args.deepspeed_plugin.set_mixed_precision(args.mixed_precision)
        args.deepspeed_plugin.set_deepspeed_weakref()
