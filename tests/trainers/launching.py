"""Starting a worker of these tests in one process or several."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path


def beside(name):
    """The module of that name in this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launch(worker, folder, processes, settings, check=True):
    """Run `worker`, a file, with `settings`, which it finds in `folder`; unless `check` is off it must end well."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({**settings, "output_dir": str(folder)}))
    elastic = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    elastic = elastic + ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"] if processes > 1 else []
    sharded = {"ACCELERATE_USE_DEEPSPEED": "true"} if "deepspeed" in settings["args"] else {}
    done = subprocess.run(
        [sys.executable, *elastic, str(worker), str(folder / "settings.json")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **sharded},
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done
