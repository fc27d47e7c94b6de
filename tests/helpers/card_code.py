"""The code of model cards, run as a reader runs it: from the folder that holds the model's, in another process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path


_RUNNER = """
import contextlib, io, json, os, sys
said = []
for folder, code in json.load(sys.stdin):
    os.chdir(folder)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, folder, "exec"), {"__name__": "__main__"})
    said.append(out.getvalue())
print(json.dumps(said))
"""


def code_of(card):
    """The one block of Python in a card."""
    (block,) = re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL)
    return block


def run_cards(*cards):
    """What the code of each README.md prints, one process for all; it fails where one of them does."""
    given = [(str(path.parent.parent), code_of(path.read_text())) for path in map(Path, cards)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER], input=json.dumps(given), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert all(text.endswith("\n") for text in said), said  # a line, even if a model of no skill writes nothing on it
    return [text.strip() for text in said]
