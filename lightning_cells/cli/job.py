"""The process of one job: a training with its tests, tests of other weights, or a classical pipeline.

Not a verb: `experiments.runner.run_job` runs ``python -m lightning_cells.cli.job DESCRIPTOR``.
"""

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from mlflow.entities import Param

from lightning_cells.callbacks.pruning import Pruning
from lightning_cells.cli.resolving import Resolver
from lightning_cells.cli.training import TrainingCLI, run
from lightning_cells.data.voxels import CUBE
from lightning_cells.errors import InputError, first_line
from lightning_cells.experiments.baselines import pixel_forest, tracked, tracked_at_size, tune
from lightning_cells.experiments.processes import Message, ParentLink
from lightning_cells.experiments.runner import log_result
from lightning_cells.experiments.scores import MINUTES, Track, measure, tracked_by
from lightning_cells.instances.classical import ThresholdWatershed
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.loggers.store import open_experiment, open_store
from lightning_cells.paths import output_dir
from lightning_cells.tracking import Device, Tracker

_TASK = "LIGHTNING_CELLS_JOB"  # for the other processes of a distributed training
_STAGE = "test/"
_ONE_PROCESS = ("--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto")  # of a test


class JobCLI(TrainingCLI):
    """A training verb whose run is a child of another one.

    Args:
        words: the command line.
        logger: arguments of the run's logger, which takes the place of the configured one; None leaves that. The
            configuration stays as it was, so that whoever repeats the training from it does not repeat the job.
        callbacks: further ones, behind those that write checkpoints.
    """

    def __init__(self, words: list[str], logger: Mapping[str, Any] | None, callbacks: list[Callback]) -> None:
        self._logger = logger
        self._callbacks = callbacks
        super().__init__(words)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds logger and callbacks."""
        if self._logger is not None:
            kwargs["logger"] = RunLogger(**self._logger)
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks += self._callbacks  # type: ignore[attr-defined]
        return trainer


def main() -> int:
    """Runs a job; returns the exit status."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        task = json.loads(os.environ[_TASK])
        _lightning("fit", task["fit"], task["logger"], Pruning(None))
        return 0
    link = ParentLink(int(sys.argv[1]))
    task = link.receive()
    os.environ[_TASK] = json.dumps(task)
    answer: Message
    status = 0
    try:
        answer = _classical(task) if task["classical"] else _trained(task, link)
        answer["seconds"] = time.process_time()
    except InputError as error:
        answer, status = {"ending": "mistake", "error": str(error)}, 2
    except BaseException as error:
        traceback.print_exc()
        answer, status = {"ending": "crash", "error": f"{type(error).__name__}: {first_line(error)}"}, 1
    if status:
        print(answer["error"], file=sys.stderr)
    link.send(answer)
    link.close()
    return status


def _trained(task: Message, link: ParentLink) -> Message:
    """Trains, unless there are weights, and tests."""

    def tell(message: Mapping[str, Any]) -> bool:
        link.send(dict(message))
        return task["watched"] and link.receive()["stop"]

    pruning = Pruning(tell)
    weights, run_id = task["weights"], ""
    # after the user's own words, so that they win
    own = ["--checkpoint.folder=null", f"--output_dir={output_dir()}"] if task["tests"] else []
    if task["fit"] is not None:
        task["fit"] += own
        os.environ[_TASK] = json.dumps(task)
        began = time.process_time()
        run_id = _run_id(_lightning("fit", task["fit"], task["logger"], pruning))
        minutes = (time.process_time() - began) / 60
        weights = output_dir() / "checkpoints" / run_id / f"{weights}.ckpt"
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # the others have left
    measures: dict[str, dict[str, float]] = {}
    for name, words in task["tests"].items() if not pruning.stopped else ():
        if name in task["unseen"]:
            measures[name] = {**_unseen(words, Path(weights)), MINUTES: minutes}
            continue
        words = [*words, *own, *_ONE_PROCESS, "--trainer.logger=false", f"--ckpt_path={weights}"]
        # weights of another run are measured in a run of their own
        trainer = _lightning("test", words, None if run_id else task["logger"])
        run_id = run_id or _run_id(trainer)
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(_STAGE)}
        measures[name] = {key.removeprefix(_STAGE): value for key, value in values.items() if math.isfinite(value)}
    if measures:
        log_result(open_store(task["logger"]["uri"]), run_id, measures)
    ending = "stopped" if pruning.stopped else "finished"
    return {"ending": ending, "run": run_id, "measures": measures, "logged": pruning.logged}


def _unseen(words: list[str], weights: Path) -> dict[str, float]:
    """Tracks videos as a user would, and measures."""
    resolver = Resolver()
    device: Device = "cpu" if resolver.resolve(words).trainer.accelerator == "cpu" else "auto"
    tracker = Tracker(weights, device)
    return measure(tracked_by(tracker), resolver.data(words, "test").sequences["test"])


def _classical(task: Message) -> Message:
    """Tunes the classical pipeline on what would be trained on, and measures it."""
    resolver = Resolver()
    logger = task["logger"]
    client = open_store(logger["uri"])
    place = open_experiment(client, logger["experiment_name"]).experiment_id
    run_id = client.create_run(place, tags=logger["tags"], run_name=logger["run_name"]).info.run_id
    try:
        seed = seed_everything(resolver.resolve(task["fit"]).seed_everything, verbose=False)  # chooses annotated frames
        training = resolver.data(task["fit"], "fit").sequences["train"]
        began = time.process_time()
        pipeline = pixel_forest(training, seed) if task["classical"] == "forest" else tune(training)
        minutes = (time.process_time() - began) / 60
        settings = asdict(pipeline) if isinstance(pipeline, ThresholdWatershed) else {"classifier": "random forest"}
        if settings.get("voxel") == CUBE:
            del settings["voxel"]  # images have none
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in settings.items()])
        measures = {}
        for name, words in task["tests"].items():
            told = name in task["unseen"] and isinstance(pipeline, ThresholdWatershed)
            track: Track = partial(tracked_at_size if told else tracked, pipeline)  # type: ignore[arg-type]
            videos = resolver.data(words, "test").sequences["test"]
            measures[name] = {**measure(track, videos), MINUTES: minutes}
        log_result(client, run_id, measures)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return {"ending": "finished", "run": run_id, "measures": measures}


def _lightning(verb: str, words: list[str], logger: Mapping[str, Any] | None, *callbacks: Callback) -> Trainer:
    """Runs a training verb; returns the trainer that did it."""
    made: list[JobCLI] = []
    words = [*words, "--trainer.enable_progress_bar=false"]
    run(verb, words, lambda line: made.append(JobCLI(line, logger, [*callbacks])))
    return made[0].trainer


def _run_id(trainer: Trainer) -> str:
    return str(trainer.logger.run_id) if isinstance(trainer.logger, RunLogger) else ""


if __name__ == "__main__":
    sys.exit(main())
