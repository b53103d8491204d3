"""What the tests of sweeps share: plans, and processes that only pretend to train."""

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import yaml
from plan_cases import OBJECTIVE, environment, make_plan

from lightning_cells.experiments.processes import Place
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import open_study
from lightning_cells.experiments.tuning.study_file import StudyFile
from lightning_cells.experiments.tuning.work import Work, lasting_processes
from lightning_cells.experiments.tuning.worker import Worker

HERE = Place((), None)

# A process that does what the option "how" says; its value is the option "x".
PRETENDER = """
import json, math, os, signal, sys, time
from pathlib import Path

from lightning_cells.experiments.processes import ParentLink

link = ParentLink(int(sys.argv[1]))
while True:
    task = link.receive()
    with open(task["diary"], "a") as diary:
        diary.write(json.dumps({"pid": os.getpid(), "number": task["number"], **task["chosen"]}) + chr(10))
    how, x = task["chosen"]["how"], task["chosen"]["x"]
    if how == "crash" or (how == "crash once" and not Path(task["diary"] + ".crashed").exists()):
        Path(task["diary"] + ".crashed").touch()
        print("the lamp went out", flush=True)
        os.kill(os.getpid(), signal.SIGKILL) if task["lasting"] else sys.exit(7)
    elif how == "raise":
        link.send({"error": "RuntimeError: no light", "ending": "crash"})
    elif how == "input":
        link.send({"error": "margin: too wide", "ending": "mistake"})
    elif how == "sleep":
        time.sleep(100)
    else:
        time.sleep(0.5 if how == "slow" else 0)
        stopped = False
        for step in range(3):
            value = math.nan if how == "nan" else x * (step + 1) / 3
            link.send({"measures": {"val/SEG": value, "val/TRA": 1 - value}, "step": step})
            stopped = link.receive()["stop"]
            if stopped:
                break
        value = math.nan if how == "nan" else x
        link.send({"ending": "stopped"} if stopped else
                  {"ending": "finished", "logged": {"val/SEG": value, "val/TRA": 1 - value}})
    if not task["lasting"]:
        link.close()
        break
"""


def single_processes(*arguments: Any) -> Work:
    """Each trial is a process of its own, as of trainings."""
    return Work(lambda *trial: lasting_processes(*arguments).run(*trial), logs=False)


@dataclass
class Notes:
    """Takes the place of MLflow."""

    parent: Any
    begun: list[int] = field(default_factory=list)
    ended: list[tuple[str, str, str]] = field(default_factory=list)  # run, state, reason
    logged: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    best_values: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def begin(self, number: int, chosen: dict[str, Any]) -> str:
        self.begun.append(number)
        return f"run {number}"

    def find(self, number: int) -> None:
        return None

    def log(self, run: str, reports: list[dict[str, float]]) -> None:
        self.logged[run] = reports

    def end(self, run: str, state: str, reason: str = "", log: Path | None = None) -> None:
        self.ended.append((run, state, reason))

    def best(self, step: int, values: dict[str, float]) -> None:
        self.best_values.append((step, values))


@dataclass
class Office:
    """A worker, and what it leaves."""

    plan: StudyFile
    storage: Storage
    study: optuna.Study
    notes: Notes
    worker: Worker
    diary: Path
    said: list[str]

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials()]

    def entries(self) -> list[dict[str, Any]]:
        return [yaml.safe_load(line) for line in self.diary.read_text().splitlines()] if self.diary.exists() else []


def office(
    folder: Path,
    plan: StudyFile,
    lasting: bool = False,
    workers: int = 1,
    heartbeat: int = 30,
    address: str | None = None,
) -> Office:
    """A worker of a plan, with a study in the folder, that may be there already."""
    (folder / "pretender.py").write_text(PRETENDER)
    path = os.environ.get("PYTHONPATH", "")
    if str(folder) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), path)))
    diary = folder / "diary"
    storage = Storage(address or f"sqlite:///{folder / 'optuna.db'}", heartbeat)
    study = open_study(plan, storage, join=True)

    def task(number: int, chosen: dict[str, Any]) -> dict[str, Any]:
        return {"number": number, "chosen": chosen, "diary": str(diary), "lasting": lasting}

    work = (lasting_processes if lasting else single_processes)("pretender", folder / "logs", task)
    notes, said = Notes(SimpleNamespace(logs=folder / "logs")), []
    say: Callable[[str], None] = said.append
    worker = Worker(plan, study, storage, notes, work, [HERE] * workers, say)
    return Office(plan, storage, study, notes, worker, diary, said)


def age_heartbeats(file: Path, seconds: int) -> None:
    """Makes it look as if the last signs of life had come earlier."""
    with sqlite3.connect(file) as database:
        database.execute(f"UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-{seconds} seconds')")


__all__ = ["HERE", "OBJECTIVE", "Notes", "Office", "age_heartbeats", "environment", "make_plan", "office"]
