"""A sweep from beginning to end, as one of its workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from lightning_cells.errors import InputError
from lightning_cells.experiments.processes import places
from lightning_cells.experiments.tuning.clustering_trials import clusterings
from lightning_cells.experiments.tuning.mlflow_runs import StudyRuns
from lightning_cells.experiments.tuning.report import Configure, best_trials, summary, write_report
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import open_study
from lightning_cells.experiments.tuning.study_file import StudyFile
from lightning_cells.experiments.tuning.work import trainings
from lightning_cells.experiments.tuning.worker import Worker
from lightning_cells.paths import output_dir


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
    runs = StudyRuns(plan, study, storage, folder / "logs")
    work = clusterings(plan, config, folder / "logs") if plan.clustering else trainings(plan, runs)
    worker = Worker(plan, study, storage, runs, work, shares, say)
    try:
        worker.work()
    except InputError as error:
        runs.close("FAILED", {"sweep.state": "failed", "sweep.reason": str(error)})
        with storage.explained():
            if not worker.trials.good and not worker.trials.under_way:  # so that a mistake can be mended
                optuna.delete_study(study_name=plan.study, storage=storage.rdb)
        raise
    except KeyboardInterrupt:
        if not worker.trials.running:
            runs.close("KILLED", {"sweep.state": "interrupted"})
        raise
    runs.settle(study.get_trials(deepcopy=False))
    runs.artifacts(write_report(folder, study, plan, configure))
    runs.close("FINISHED", {"sweep.state": "complete"})
    if not best_trials(study):
        raise InputError(f"no trial of study '{plan.study}' ended with a value: see {folder / 'trials.csv'} for why")
    return [*summary(study, plan), f"Best configuration, table and plots: {_short(folder)}"]


def _short(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
