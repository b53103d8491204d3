"""How verbs write commands and paths for people."""

import os
import shlex
from pathlib import Path


def shown(*words: str) -> str:
    """A command as a shell takes it."""
    return " ".join(["lightning-cells", *(f"'{word}'" if '"' in word else shlex.quote(word) for word in words)])


def readable(path: Path) -> str:
    """A path as short as it can be: from the working directory where it is below that."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
