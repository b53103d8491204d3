"""What the trials of a sweep do, in processes: each is a training, or a task for processes that last."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lightning_cells.errors import InputError
from lightning_cells.experiments.processes import Child, Message, ProcessPool
from lightning_cells.experiments.runner import Job, Outcome, Progress, Watch, run_job
from lightning_cells.experiments.tuning.mlflow_runs import StudyRuns
from lightning_cells.experiments.tuning.space import Chosen
from lightning_cells.experiments.tuning.study_file import StudyFile


@dataclass(frozen=True)
class Work:
    """What trials do.

    Attributes:
        run: runs a trial in a process of the pool, from any thread: pool, number of the trial, its values, and who is
            told how it goes and may stop it -> what became of it. An InputError that it raises spoils every trial.
        logs: whether the processes begin and write the runs of the trials themselves.
    """

    run: Callable[[ProcessPool, int, Chosen, Watch], Outcome]
    logs: bool


def trainings(plan: StudyFile, runs: StudyRuns) -> Work:
    """Each trial is a training, in a process of its own.

    Args:
        plan: the sweep.
        runs: the study in MLflow.
    """

    def run(pool: ProcessPool, number: int, chosen: Chosen, watch: Watch) -> Outcome:
        name, tags = runs.labels(number)
        job = Job(name=process_name(number), fit=tuple(plan.words(chosen)), tags=tags, run_name=name)
        return run_job(job, runs.parent, pool, watch)

    return Work(run, logs=True)


def lasting_processes(module: str, folder: Path, task: Callable[[int, Chosen], Message]) -> Work:
    """Each trial is a task of one of the worker's processes, which take one after another.

    They report by messages with ``step`` and ``measures``, and are told whether to ``stop``. Their last word on a task
    are attributes of an `Outcome`, and ``spoils``: whether an error spoils every trial.

    Args:
        module: run by Python, with the descriptor of its link as argument.
        folder: for what the processes print.
        task: number and values of a trial -> what a process is told.
    """
    idle: list[tuple[Child, ExitStack]] = []
    numbers = count()

    def start(pool: ProcessPool) -> tuple[Child, ExitStack]:
        stack = ExitStack()
        log = folder / f"worker-{os.getpid()}-{next(numbers)}.log"
        return stack.enter_context(pool.start(module, log)), stack

    def run(pool: ProcessPool, number: int, chosen: Chosen, watch: Watch) -> Outcome:
        job = Job(name=process_name(number), fit=())
        try:
            child, stack = idle.pop()
        except IndexError:
            child, stack = start(pool)
        with stack:
            child.send(task(number, chosen))
            while (message := child.receive()) is not None and "step" in message:
                child.send({"stop": watch(Progress("", None, **message))})
            if message is None:
                died = child.end()
                pool.check()
                return Outcome(job, "crash", error=died)
            idle.append((child, stack.pop_all()))  # the process goes on
        if message.pop("spoils", False):
            raise InputError(message["error"])
        return Outcome(job, **message)

    return Work(run, logs=False)


def process_name(number: int) -> str:
    """What a trial's process is called, and its log."""
    return f"trial-{number:04d}"
