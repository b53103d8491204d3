"""Cross-validation: a training per fold, their measures, mean and standard deviation."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.experiments.child_runs import ChildRuns, Launch, Measured, Weights, command
from lightning_cells.loggers.store import open_experiment
from lightning_cells.metrics.ctc import OPERATIONS

IDENTITY = "cross_validation"
"""Tag of the common run: digest of what is cross-validated."""
# What may differ between two calls that mean the same cross-validation.
_INCIDENTAL = (
    ("config",),
    ("output_dir",),
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


@dataclass(frozen=True)
class Table:
    """The measures of all folds.

    Attributes:
        title: what was cross-validated.
        folds: measures of each fold.
    """

    title: str
    folds: list[dict[str, float]]

    @property
    def names(self) -> list[str]:
        """Measures that all folds have, without counts, which grow with a fold's size."""
        shared = set(self.folds[0]).intersection(*self.folds[1:])
        return [name for name in self.folds[0] if name in shared and name not in OPERATIONS]

    def mean(self, name: str) -> float:
        """Mean of a measure over the folds."""
        return statistics.fmean(fold[name] for fold in self.folds)

    def sd(self, name: str) -> float:
        """Standard deviation of a measure over the folds, with n - 1."""
        return statistics.stdev(fold[name] for fold in self.folds)

    def __str__(self) -> str:
        names = sorted(self.names, key=lambda name: (not name.startswith("Dice"), name))
        width = max([len("fold"), *map(len, names)])
        head = [*map(str, range(len(self.folds))), "mean", "sd"]
        lines = [self.title, "", f"{'fold':<{width}}" + "".join(f"{word:>8}" for word in head)]
        for name in names:
            values = [*(fold[name] for fold in self.folds), self.mean(name), self.sd(name)]
            lines.append(f"{name:<{width}}" + "".join(f"{value:8.4f}" for value in values))
        return "\n".join(lines)


def cross_validate(
    client: MlflowClient,
    experiment: str,
    words: Sequence[str],
    config: dict[str, Any],
    fingerprint: str,
    title: str,
    weights: Weights = "last",
    launch: Launch = command,
) -> Table:
    """Trains and tests each fold that has not been before, one after another.

    All are children of one run, which is found again by what is cross-validated: configuration and contents of the
    data. So a call that was interrupted can be repeated.

    Args:
        client: of the store.
        experiment: that the runs belong to.
        words: options of ``fit``, without the verb.
        config: what ``fit`` makes of them.
        fingerprint: of the data.
        title: name of the common run.
        weights: the checkpoint that is measured on the held-out fold. The best one was chosen by it, so that its
            measures are too good.
        launch: runs a command.

    Raises:
        InputError: if a training or a test fails.
    """
    parent = _parent(client, experiment, {**config, "weights": weights, "fingerprint": fingerprint}, title)
    children = ChildRuns(client, parent, launch)
    run_id, count = parent.info.run_id, config["data"]["folds"]
    folds: list[Measured] = []
    try:
        for fold in range(count):
            child = f"fold {fold} of {count}"
            folds.append(children.run(child, [*words, f"--data.fold={fold}"], weights, f"{title}, fold {fold}"))
            print(f"{child}: run {folds[-1].run_id}{'' if folds[-1].new else ', as it was'}", flush=True)
    except BaseException as error:
        client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    table = Table(f"{title}, {weights} checkpoint", [fold.measures for fold in folds])
    for name in table.names:
        client.log_metric(run_id, f"test/{name}", table.mean(name))
        client.log_metric(run_id, f"test/{name}_sd", table.sd(name))
    client.log_text(run_id, f"{table}\n", "folds.txt")
    client.set_terminated(run_id, "FINISHED")
    return table


def _parent(client: MlflowClient, experiment: str, identity: dict[str, Any], title: str) -> Run:
    """The common run, found again or begun."""
    identifier = digest(identity)
    place = open_experiment(client, experiment).experiment_id
    for run in client.search_runs([place], f"tags.{IDENTITY} = '{identifier}'"):
        client.update_run(run.info.run_id, status="RUNNING")
        return run
    run = client.create_run(place, tags={IDENTITY: identifier, **_tags(identity)}, run_name=title)
    client.log_text(run.info.run_id, json.dumps(identity, indent=1, default=str), "config.json")
    return run


def _tags(identity: dict[str, Any]) -> dict[str, str]:
    return {
        "method": identity["model"]["class_path"].rpartition(".")[2],
        "stage": "cross-validate",
        "seed": str(identity.get("seed_everything")),
        "data.fingerprint": identity["fingerprint"],
    }


def digest(identity: dict[str, Any]) -> str:
    """Digest of a configuration without what makes no difference."""
    plain = json.loads(json.dumps(identity, default=str))
    for *folders, key in _INCIDENTAL:
        inside = plain
        for folder in folders:
            inside = inside.get(folder) or {}
        inside.pop(key, None)
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()
