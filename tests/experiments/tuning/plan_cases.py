"""Plans for the tests of sweeps, without all that runs them: the processes of some tests import this alone."""

import os
from pathlib import Path
from typing import Any

import optuna
import yaml

from lightning_cells.experiments.tuning.study_file import StudyFile

optuna.logging.set_verbosity(optuna.logging.ERROR)
OBJECTIVE = "val/SEG"


def make_plan(folder: Path, hows: tuple[str, ...] = ("good",), trials: int = 4, **changes: Any) -> StudyFile:
    """A plan whose trials do one of these things."""
    space = {"x": {"float": [0, 1]}, "how": {"choices": list(hows)}}
    tree = {"study": "pretended", "objective": {OBJECTIVE: "maximize"}, "trials": trials, "space": space}
    sampler = {"class_path": "optuna.samplers.RandomSampler", "init_args": {"seed": 1}}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**tree, "sampler": sampler, **changes}, sort_keys=False))
    return StudyFile.read(path)


def environment(*folders: Path) -> dict[str, str]:
    """Variables of a process that finds this module, and what lies in these folders."""
    paths = [*map(str, folders), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
