"""`.env` in the working folder: keys and settings that a recipe finds in its environment.

A recipe reads it before it imports anything else, as libraries read the environment when they are imported.
"""

import os
from pathlib import Path

from dotenv.main import DotEnv


ENV_FILE = ".env"


def read_env_file(path: str | Path = ENV_FILE) -> list[str]:
    """Put the variables in the file `path`, if there is one, into the environment, and print which: never a value.

    What is in the environment already stays as it is, and so does what has no value in the file. Of several processes
    of a launcher each reads the file, and the first one prints. Returns the names of what was taken.
    """
    if not Path(path).is_file():
        return []
    found = DotEnv(path, encoding="utf-8-sig", override=False).dict()  # in `${NAME}`, too, what is set already wins
    taken = [name for name, value in found.items() if value and name not in os.environ]
    os.environ.update({name: str(found[name]) for name in taken})
    if taken and os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
        print(f"from {path}: {', '.join(taken)}", flush=True)
    return taken
