"""Starting a worker of these tests in one process or several."""

import json
import os
import subprocess
import sys
from pathlib import Path


def launch(worker, folder, processes, settings, check=True):
    """Run `worker`, a file beside this one, with `settings`, which it finds in `folder`; `check`s how it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**settings, "output_dir": str(folder)})
    (folder / "settings.json").write_text(text)
    elastic = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    elastic = elastic + ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"] if processes > 1 else []
    # With `use_cpu` alone transformers takes two processes for DDP whatever `deepspeed` says.
    sharded = {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"} if '"deepspeed": {' in text else {}
    done = subprocess.run(
        [sys.executable, *elastic, str(Path(__file__).with_name(f"{worker}.py")), str(folder / "settings.json")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **sharded},
    )
    assert not check or done.returncode == 0, told(done.stderr)
    return done


def told(stderr):
    """What a failed run says of itself: the lines of process 0, and the last of all."""
    first = [line for line in stderr.splitlines() if line.startswith("[rank0]")]
    return "\n".join(first)[-4000:] + "\n…\n" + stderr[-3000:]


def deepspeed_config(stage):
    """ZeRO-2, or ZeRO-3 that partitions parameters however small, and gathers them when a model is saved."""
    zero = {"stage": stage}
    if stage == 3:
        zero |= {"stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    names = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {**dict.fromkeys(names, "auto"), "zero_allow_untested_optimizer": True, "zero_optimization": zero}
