"""Jobs: trainings with their tests, each in a process and an MLflow run of its own below a common parent run.

Cross-validation and the papers' tables are lists of jobs for `run_jobs`, which finds again what was finished before::

    with ParentRun.open("cross_validation", digest(config), {}, "a title", logs) as parent, ProcessPool(shares) as pool:
        outcomes = run_jobs([Job("fold 0", words, {"held out": words})], parent, pool)

A sweep runs its trials one by one by `run_job`, from as many threads as the pool has places, with a watcher that is
told each validation's measures and may stop the training.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from lightning_cells.experiments.processes import ProcessPool
from lightning_cells.loggers.mlflow import CHILD, EXPERIMENT
from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri
from lightning_cells.paths import output_dir

Weights = Literal["last", "best"]
Measures = Mapping[str, Mapping[str, float]]
"""Test of a job -> measure, without ``test/`` -> value; those that could be computed."""
Ending = Literal["finished", "found", "stopped", "mistake", "crash"]

RESULT = "job.result"
"""Tag of a job's run: its measures as JSON."""
_MODULE = "lightning_cells.cli.job"
_STAGE = "test/"
# What may differ between two configurations that give the same result.
_INCIDENTAL = (
    ("config",),
    ("output_dir",),
    ("allow",),
    ("pictures",),
    ("results",),
    ("system",),
    ("resume",),
    ("checkpoint", "folder"),
    ("data", "root"),
    ("data", "fold"),
    ("data", "num_workers"),
    ("trainer", "logger"),
    ("trainer", "accelerator"),
    ("trainer", "enable_progress_bar"),
    ("trainer", "enable_model_summary"),
    ("trainer", "default_root_dir"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """What one process does; each job is itself alone, so that it can be a key.

    Attributes:
        name: tells it from the other jobs of its parent.
        fit: options of ``fit``, without the verb.
        tests: options of ``test`` by the name of the test; without any, it is trained only.
        unseen: tests in which videos are tracked as anyone's, with the size of their cells estimated.
        weights: which checkpoint is tested.
        weights_of: the job whose weights are tested, instead of a training.
        classical: whether a classical pipeline is tuned on the training videos, instead of a training; which, by name.
        tags: of the run; by all of them a finished run is found again, or, without any, by parent and name.
        run_name: None takes `name`.
    """

    name: str
    fit: tuple[str, ...]
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()
    weights: Weights = "best"
    weights_of: "Job | None" = None
    classical: bool | str = False
    tags: Mapping[str, str] = field(default_factory=dict)
    run_name: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        ending: ``found`` of an earlier call, ``finished`` just now, ``stopped`` by its watcher, or failed: by a
            ``mistake`` in what the user gave, which would come again, or a ``crash``.
        run: id of its MLflow run; empty if none was begun.
        checkpoints: folder of its checkpoints; None if it has none.
        measures: of each test.
        logged: the last values of all that the training logged.
        error: why it failed, in one line; empty if it did not.
        seconds: of CPU.
    """

    job: Job
    ending: Ending
    run: str = ""
    checkpoints: Path | None = None
    measures: Measures = field(default_factory=dict)
    logged: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0

    @property
    def weights(self) -> Path:
        """The checkpoint that is tested."""
        return output_dir() / "checkpoints" / self.run / f"{self.job.weights}.ckpt"


class Progress(NamedTuple):
    """What a watcher is told.

    Attributes:
        run: id of the MLflow run.
        checkpoints: folder of the checkpoints; None if none are written.
        step: how many validations there were before; -1 at the beginning of the training.
        measures: all that was logged up to this validation, NaN among them; empty at the beginning.
    """

    run: str
    checkpoints: Path | None
    step: int
    measures: Mapping[str, float]


Watch = Callable[[Progress], bool]
"""Called at the beginning of a training and after each validation; True stops it. What it raises ends the process."""


class ParentRun:
    """The MLflow run that the runs of jobs belong to.

    Args:
        client: of the store.
        run_id: id of the run.
        logs: folder for what the jobs' processes print.

    Attributes:
        ending: the status that the run is to end with at the end of a ``with`` block; an error ends it as FAILED, and
            an interruption as KILLED.
    """

    def __init__(self, client: MlflowClient, run_id: str, logs: Path) -> None:
        self.client = client
        self.run_id = run_id
        self.logs = logs
        self.ending = "FINISHED"

    @classmethod
    def open(cls, key: str, value: str, tags: Mapping[str, str], name: str, logs: Path) -> Self:
        """Finds the run whose tag `key` has a value, or begins it with further tags and a name.

        Raises:
            InputError: if there is no store that could keep it.
        """
        client = open_store(tracking_uri())
        place = open_experiment(client, EXPERIMENT).experiment_id
        found = client.search_runs([place], f"tags.`{key}` = '{value}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return cls(client, found[0].info.run_id, logs)
        run = client.create_run(place, tags={**tags, key: value}, run_name=name)
        return cls(client, run.info.run_id, logs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        broken = "KILLED" if kind is not None and issubclass(kind, KeyboardInterrupt) else "FAILED"
        self.client.set_terminated(self.run_id, self.ending if kind is None else broken)

    @cached_property
    def _place(self) -> str:
        return open_experiment(self.client, EXPERIMENT).experiment_id

    def logger(self, job: Job) -> dict[str, Any]:
        """Arguments of the `RunLogger` of a job's run."""
        return {
            "experiment_name": EXPERIMENT,
            "run_name": job.run_name or job.name,
            "uri": self.client.tracking_uri,
            "tags": {MLFLOW_PARENT_RUN_ID: self.run_id, CHILD: job.name, **job.tags},
        }

    def finished(self, jobs: Iterable[Job]) -> dict[Job, Outcome]:
        """Jobs that were finished before, below any parent if they have tags, without those whose weights are gone."""
        found = {}
        for job in jobs:
            for run in self.runs(job.tags or {MLFLOW_PARENT_RUN_ID: self.run_id, CHILD: job.name}):
                if RESULT in run.data.tags and run.info.status == "FINISHED":
                    measures = json.loads(run.data.tags[RESULT])
                    found[job] = Outcome(job, "found", run.info.run_id, measures=measures)
                    break
        for job in jobs:
            source = job.weights_of
            if job not in found and source in found and not found[source].weights.exists():
                del found[source]
        return found

    def give_up(self, job: Job) -> str:
        """Ends runs of a job of which the process was killed, and which would look as if they went on.

        Returns:
            Id of its last run without a result; empty if there is none.
        """
        runs = self.runs({MLFLOW_PARENT_RUN_ID: self.run_id, CHILD: job.name})
        for run in runs:
            if run.info.status in ("RUNNING", "SCHEDULED"):
                self.client.set_terminated(run.info.run_id, "KILLED")
        return next((run.info.run_id for run in runs if RESULT not in run.data.tags), "")

    def runs(self, tags: Mapping[str, str]) -> list[Run]:
        """Runs that have all of these tags, newest first."""
        first, *others = tags.items()  # values of the others may have quotes, which no filter can ask for
        chosen = f"tags.`{first[0]}` = '{first[1]}'"
        found: list[Run] = []
        token: str | None = None
        while token != "":
            order = ["attributes.start_time DESC"]
            page = self.client.search_runs([self._place], chosen, order_by=order, page_token=token)
            found += page
            token = page.token or ""
        return [run for run in found if all(run.data.tags.get(key) == value for key, value in others)]


def log_result(client: MlflowClient, run_id: str, measures: Measures) -> None:
    """Writes a job's measures into its run; those of an only test as any ``test`` does."""
    now = time.time_ns() // 1_000_000
    metrics = [
        Metric(f"{_STAGE}{key}" if len(measures) == 1 else f"{_STAGE}{plain_name(test)}/{key}", value, now, 0)
        for test, values in measures.items()
        for key, value in values.items()
    ]
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(RESULT, json.dumps(measures))])


def run_job(
    job: Job, parent: ParentRun, pool: ProcessPool, watch: Watch | None = None, weights: Path | None = None
) -> Outcome:
    """Runs a job as soon as there is a free place, and returns when its process has ended.

    May be called from several threads. Neither looks for earlier runs nor touches MLflow: a run whose process was
    killed stands as running until `ParentRun.give_up` ends it, as `run_jobs` has it do.

    Args:
        job: the job.
        parent: the run that its run is a child of.
        pool: where its process runs.
        watch: is told how the training goes.
        weights: the checkpoint that a job with `Job.weights_of` tests.

    Raises:
        KeyboardInterrupt: if the pool was closed before the job had ended, by Ctrl-C, SIGTERM, or its owner.
    """
    task = {
        "fit": None if weights is not None else job.fit,
        "tests": job.tests,
        "unseen": sorted(job.unseen),
        "weights": str(weights) if weights is not None else job.weights,
        "classical": job.classical,
        "logger": parent.logger(job),
        "watched": watch is not None,
    }
    run, checkpoints = "", None
    with pool.start(_MODULE, parent.logs / f"{job.name.replace('/', '-')}.log") as child:
        child.send(task)
        while (message := child.receive()) is not None and "step" in message:
            run = message["run"]
            checkpoints = None if message["checkpoints"] is None else Path(message["checkpoints"])
            if watch is not None:
                stop = watch(Progress(run, checkpoints, message["step"], message["measures"]))
                child.send({"stop": stop})
        died = child.end()
    if message is None:
        pool.check()
        return Outcome(job, "crash", run, checkpoints, error=died)
    if "error" in message:
        return Outcome(job, message["ending"], run, checkpoints, error=message["error"])
    return Outcome(job, checkpoints=checkpoints, **message)


def run_jobs(
    jobs: Sequence[Job],
    parent: ParentRun,
    pool: ProcessPool,
    ended: Callable[[Outcome], None] = lambda outcome: None,
    found: Mapping[Job, Outcome] | None = None,
) -> dict[Job, Outcome]:
    """Runs the jobs that were not finished before, at each place of the pool one at a time.

    Jobs that need no weights of others begin first. One that fails does not end the others, except those that need
    its weights, which fail with it.

    Args:
        jobs: the jobs; with each also the job whose weights it takes.
        parent: the run that their runs are children of.
        pool: where they run.
        ended: told what became of each job, as soon as it is known. What it raises ends all.
        found: finished jobs; None looks for them.

    Returns:
        What became of each job, in the order of `jobs`.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when all processes have ended.
    """
    done: dict[Job, Outcome] = dict(parent.finished(jobs) if found is None else found)
    waiting = sorted((job for job in jobs if job not in done), key=lambda job: job.weights_of is not None)
    running: dict[Future[Outcome], Job] = {}

    def end(outcome: Outcome) -> None:
        done[outcome.job] = outcome
        ended(outcome)

    for outcome in list(done.values()):
        ended(outcome)
    with ThreadPoolExecutor(pool.size) as threads:
        try:
            while waiting or running:
                pool.check()
                for job in list(waiting):
                    source = None if job.weights_of is None else done.get(job.weights_of)
                    if source is not None and source.error:
                        waiting.remove(job)
                        end(Outcome(job, "mistake", error=f"there are no weights: {source.job.name} failed"))
                    elif len(running) < pool.size and (source is not None or job.weights_of is None):
                        waiting.remove(job)
                        parent.give_up(job)
                        weights = None if source is None else source.weights
                        running[threads.submit(run_job, job, parent, pool, weights=weights)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    job = running.pop(future)
                    if outcome.error:
                        outcome = replace(outcome, run=parent.give_up(job))
                    end(outcome)
        finally:
            if running:
                pool.close()
                wait(running)
                for job in running.values():
                    parent.give_up(job)
    return {job: done[job] for job in jobs}


def digest(config: Mapping[str, Any]) -> str:
    """Digest of a configuration without what makes no difference to the result."""
    plain = json.loads(json.dumps(config, default=str))
    for *folders, key in _INCIDENTAL:
        inside = plain
        for folder in folders:
            inside = inside.get(folder) or {}
        inside.pop(key, None)
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def plain_name(name: str) -> str:
    """A name without what MLflow's store does not take."""
    return "".join(letter if letter.isalnum() or letter in "-. " else "_" for letter in name)
