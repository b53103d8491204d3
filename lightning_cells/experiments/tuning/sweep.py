"""A sweep from beginning to end, as one of its workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.link import Message
from lightning_cells.experiments.tuning.places import places
from lightning_cells.experiments.tuning.record import StudyRecord
from lightning_cells.experiments.tuning.report import Configure, best_trials, summary, write_report
from lightning_cells.experiments.tuning.slot import Work
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import Trials, open_study
from lightning_cells.experiments.tuning.study_file import Chosen, StudyFile, words
from lightning_cells.experiments.tuning.worker import Worker
from lightning_cells.paths import output_dir

_TRAINING = "lightning_cells.cli.trial"
_CLUSTERING = "lightning_cells.experiments.tuning.clustering"


def run_sweep(
    plan: StudyFile,
    storage: Storage,
    config: dict[str, Any],
    configure: Configure,
    workers: int,
    join: bool,
    say: Callable[[str], None],
) -> list[str]:
    """Works on a study until it has as many trials as it is to have, then writes what it found.

    Args:
        plan: the sweep.
        storage: where the study is kept.
        config: the configuration that all trials share.
        configure: the values of a trial -> a configuration file.
        workers: trials at a time.
        join: whether a study that has trials is meant to go on.
        say: told in one line about each trial that ended.

    Returns:
        Lines that sum it up.

    Raises:
        InputError: if the study is another one, its trials fail from the start, or none ends with a value.
        KeyboardInterrupt: when the study can go on.
    """
    shares = places(workers, config["trainer"]["accelerator"], config["trainer"]["devices"])
    study = open_study(plan, storage, join)
    folder = output_dir() / "sweeps" / plan.study
    record = StudyRecord(plan, study, storage)
    work = _clustering(plan, config) if plan.clustering else _training(plan, record)
    worker = Worker(plan, study, storage, record, work, shares, folder / "logs", say)
    try:
        worker.work()
    except InputError as error:
        _give_up(plan, study, storage, record, str(error))
        raise
    except KeyboardInterrupt:
        if not worker.trials.running:
            record.close("KILLED", {"sweep.state": "interrupted"})
        raise
    record.settle(study.get_trials(deepcopy=False))
    files = write_report(folder, study, plan, configure)
    record.artifacts(files)
    record.close("FINISHED", {"sweep.state": "complete"})
    if not best_trials(study):
        raise InputError(f"no trial of study '{plan.study}' ended with a value: see {folder / 'trials.csv'} for why")
    return [*summary(study, plan), f"Best configuration, table and plots: {_short(folder)}"]


def _training(plan: StudyFile, record: StudyRecord) -> Work:
    def task(number: int, chosen: Chosen) -> Message:
        name, tags = record.labels(number)
        return {
            "words": plan.words(chosen),
            "objectives": plan.objectives,
            "logger": {"run_name": name, "tags": tags},
        }

    return Work(_TRAINING, task, lasting=False, logs=True)


def _clustering(plan: StudyFile, config: dict[str, Any]) -> Work:
    shared = {
        "checkpoint": str(plan.checkpoint),
        "config": {part: config[part] for part in ("model", "data", "trainer")},
        "limit": int(plan.cache_gigabytes * 1e9),
        "objectives": list(plan.objectives),
    }
    return Work(_CLUSTERING, lambda _, chosen: {**shared, "words": words(chosen)}, lasting=True, logs=False)


def _give_up(plan: StudyFile, study: optuna.Study, storage: Storage, record: StudyRecord, reason: str) -> None:
    """Ends the parent run; a study from which nothing can be learnt is removed, so that its mistake can be mended."""
    record.close("FAILED", {"sweep.state": "failed", "sweep.reason": reason})
    trials = Trials(study, plan, storage)
    with storage.explained():
        if not trials.good and not trials.under_way:
            optuna.delete_study(study_name=plan.study, storage=storage.rdb)


def _short(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
