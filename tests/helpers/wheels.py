"""Tithe as others have it: built into a wheel and installed, with the checkout out of reach."""

import shutil
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parent.parent.parent


def build_wheel(folder: Path) -> Path:
    """Built from a copy in `folder`: `build/` in the tree would leak into it."""
    copy = folder / "tithe"
    ignored = shutil.ignore_patterns(".git", ".venv*", "build", "*.egg-info", "__pycache__", "runs", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return next((copy / "dist").glob("*.whl"))


def without_the_tree(installed: Path) -> str:
    """Python statements after which `tithe` comes from the folder `installed`, and from no editable install."""
    return (
        f"import sys; sys.path.insert(0, {str(installed)!r}); "
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder)]; "
    )
