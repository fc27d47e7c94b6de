"""What question answering costs beside its peers: answering, and then finding passages, one after the other.

    python benchmarks/slm_qa.py

Runs `answering.py` and `retrieval.py`, each in a process of its own, and prints what they print.
"""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    for name in ("answering", "retrieval"):
        subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=True)


if __name__ == "__main__":
    main()
