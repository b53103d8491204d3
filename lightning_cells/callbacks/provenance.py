"""What a result depends on beside its configuration: the code, the installed packages, the machine."""

import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

_MOST_DIFF = 2_000_000  # characters of a difference that are kept


class GitState(NamedTuple):
    """The code that runs.

    Attributes:
        commit: its 40 hexadecimal digits.
        dirty: whether files under version control differ from the commit.
        diff: how they differ, as ``git apply`` takes it; empty if they do not.
    """

    commit: str
    dirty: bool
    diff: str


def git_state() -> GitState | None:
    """The state of the checkout that this package lies in; None outside of one, or without git."""

    def git(*args: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, timeout=20, check=True)
        return done.stdout.decode(errors="replace")

    try:
        commit = git("rev-parse", "HEAD").strip()
        diff = git("diff", "--no-color", "--no-ext-diff", "--binary", "HEAD", "--", ":/")
    except (OSError, subprocess.SubprocessError):
        return None
    kept = diff if len(diff) <= _MOST_DIFF else f"{diff[:_MOST_DIFF]}\n# cut: {len(diff)} characters in all\n"
    return GitState(commit, bool(diff), kept)


def packages() -> str:
    """Installed packages, one ``name==version`` per line, as ``pip install -r`` takes them."""
    known = (distribution.metadata for distribution in distributions())  # each is a file that is read and parsed
    versions = sorted({f"{about['Name']}=={about['Version']}" for about in known}, key=str.lower)
    return "\n".join(versions) + "\n"


def machine() -> dict[str, str | int | list[str]]:
    """Python, operating system, processors, memory and GPUs of this machine."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "host": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": gpus,
        "cuda": torch.version.cuda or "none",
        "torch_threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
