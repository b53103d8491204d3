"""The process of one run of a table: a training with its tests, tests of other weights, or a classical pipeline.

Not a verb: ``lightning-cells reproduce`` runs ``python -m lightning_cells.cli.row DESCRIPTOR``.
"""

import json
import math
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Trainer
from mlflow.entities import Metric, Param, RunTag

from lightning_cells.cli.resolving import Resolver
from lightning_cells.cli.training import TrainingCLI, run
from lightning_cells.errors import InputError, first_line
from lightning_cells.experiments.papers.runs import RESULT, Measures
from lightning_cells.experiments.tuned_baseline import measure, tune
from lightning_cells.experiments.tuning.link import Message, WorkerLink
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.loggers.store import open_experiment, open_store
from lightning_cells.paths import output_dir

_STAGE = "test/"


def main() -> int:
    """Runs a job; returns the exit status."""
    link = WorkerLink(int(sys.argv[1]))
    task = link.receive()
    answer: Message
    status = 0
    try:
        name, measures = (_classical if task["kind"] == "classical" else _trained)(task)
        _log(task["logger"]["uri"], name, measures)
        answer = {"run": name, "measures": measures, "seconds": time.process_time()}
    except InputError as error:
        answer, status = {"failed": str(error)}, 2
    except BaseException as error:
        traceback.print_exc()
        answer, status = {"failed": f"{type(error).__name__}: {first_line(error)}"}, 1
    if status:
        print(answer["failed"], file=sys.stderr)
    link.send(answer)
    link.close()
    return status


def _trained(task: dict[str, Any]) -> tuple[str, Measures]:
    """Trains, unless there is a checkpoint, and tests; returns the run's id and its measures."""
    logger = {"class_path": "lightning_cells.loggers.mlflow.RunLogger", "init_args": task["logger"]}
    own = "--trainer.logger=" + json.dumps(logger)
    checkpoint, name = task["checkpoint"], ""
    if checkpoint is None:
        name = _run_of(_lightning("fit", [*task["words"], own, "--checkpoint.folder=null"]))
        checkpoint = output_dir() / "checkpoints" / name / f"{task['weights']}.ckpt"
    measures: Measures = {}
    for column, words in task["tests"].items():
        logging = "--trainer.logger=false" if name else own  # weights of another run are measured in one of their own
        trainer = _lightning("test", [*words, logging, f"--ckpt_path={checkpoint}"])
        name = name or _run_of(trainer)
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(_STAGE)}
        measures[column] = {key.removeprefix(_STAGE): value for key, value in values.items() if math.isfinite(value)}
    return name, measures


def _classical(task: dict[str, Any]) -> tuple[str, Measures]:
    """Tunes the classical pipeline on what would be trained on, and measures it; returns the run's id and measures."""
    resolver = Resolver()
    logger = task["logger"]
    client = open_store(logger["uri"])
    place = open_experiment(client, logger["experiment_name"]).experiment_id
    run_id = client.create_run(place, tags=logger["tags"], run_name=logger["run_name"]).info.run_id
    try:
        pipeline = tune(resolver.data(task["words"], "fit").sequences["train"])
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in asdict(pipeline).items()])
        measures = {
            column: measure(pipeline, resolver.data(words, "test").sequences["test"])
            for column, words in task["tests"].items()
        }
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id, measures


def _lightning(verb: str, words: list[str]) -> Trainer:
    """Runs a training verb; returns the trainer that did it."""
    made: list[TrainingCLI] = []
    run(verb, [*words, "--trainer.enable_progress_bar=false"], lambda args: made.append(TrainingCLI(args)))
    return made[0].trainer


def _run_of(trainer: Trainer) -> str:
    assert isinstance(trainer.logger, RunLogger)
    return str(trainer.logger.run_id)


def _log(uri: str, name: str, measures: Measures) -> None:
    """Writes the measures into the run; those of the only column as any test does."""
    now = time.time_ns() // 1_000_000
    single = len(measures) == 1
    metrics = [
        Metric(f"{_STAGE}{key}" if single else f"{_STAGE}{_plain(column)}/{key}", value, now, 0)
        for column, values in measures.items()
        for key, value in values.items()
    ]
    open_store(uri).log_batch(name, metrics=metrics, tags=[RunTag(RESULT, json.dumps(measures))])


def _plain(column: str) -> str:
    """A name without what MLflow's store does not take."""
    return "".join(letter if letter.isalnum() or letter in "-. " else "_" for letter in column)


if __name__ == "__main__":
    sys.exit(main())
