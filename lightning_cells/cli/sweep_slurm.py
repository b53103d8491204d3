"""A SLURM array whose jobs are workers of one study."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from lightning_cells.errors import InputError
from lightning_cells.paths import DATA_VARIABLE, HOME_VARIABLE, data_dir, output_dir

_WARNING_S = 120  # that a job has to put back its trials before its time is up


def array_script(words: list[str], jobs: int, options: list[str]) -> str:
    """Returns the script of an array.

    Each job is one `sweep`, so that it gets the signal before its time is up and puts back what it could not finish.

    Args:
        words: options of each job's ``sweep``.
        jobs: how many.
        options: further options of sbatch, such as ``--time=8:00:00``.

    Raises:
        InputError: if there is none.
    """
    if jobs < 1:
        raise InputError(f"--slurm {jobs}: must be at least 1 job")
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=lightning-cells-sweep",
        f"#SBATCH --array=0-{jobs - 1}",
        f"#SBATCH --signal=B:TERM@{_WARNING_S}",
        f"#SBATCH --output={output_dir()}/sweeps/slurm-%A-%a.log",
        *(f"#SBATCH {option}" for option in options),
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
    ]
    known = {HOME_VARIABLE: str(output_dir()), DATA_VARIABLE: str(data_dir())}
    if store := os.environ.get("MLFLOW_TRACKING_URI"):
        known["MLFLOW_TRACKING_URI"] = store
    lines += [f"export {name}={shlex.quote(value)}" for name, value in known.items()]
    lines.append(f"exec {shlex.quote(sys.executable)} -m lightning_cells sweep {shlex.join(words)} --resume")
    return "\n".join(lines) + "\n"


def submit(script: str) -> None:
    """Hands a script to sbatch.

    Raises:
        InputError: if there is no SLURM here, or it refuses.
    """
    (output_dir() / "sweeps").mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["sbatch"], input=script, text=True, check=True)
    except FileNotFoundError:
        raise InputError("there is no sbatch here: call this where jobs are submitted, or see --dry-run") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"sbatch refused the jobs (status {error.returncode}): see --dry-run") from None
