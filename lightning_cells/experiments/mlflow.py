"""A training as an MLflow run: curves, parameters, configuration, versions, code and data."""

import math
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from lightning_cells.experiments.store import open_experiment, open_store, tracking_uri

EXPERIMENT = "lightning_cells"
_BATCH = 100  # most parameters that MLflow takes at once
_TRAINER_PARAMETERS = (
    "accelerator",
    "devices",
    "strategy",
    "precision",
    "max_epochs",
    "max_steps",
    "max_time",
    "gradient_clip_val",
    "accumulate_grad_batches",
)


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger on the project's store.

    Args:
        experiment_name: the experiment that the run belongs to.
        run_name: name of the run; None names it by method, data set and the start of its id.
        uri: address of the store; None takes ``$MLFLOW_TRACKING_URI``, or sqlite under the output folder.
        run_id: continues this run instead of starting one.
        tags: further tags of the run.

    Raises:
        InputError: if runs cannot be kept at that address.
    """

    def __init__(
        self,
        experiment_name: str = EXPERIMENT,
        run_name: str | None = None,
        uri: str | None = None,
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        uri = uri or tracking_uri()
        self.unnamed = run_name is None and run_id is None
        open_store(uri)
        super().__init__(experiment_name, run_name, tracking_uri=uri, tags=tags, run_id=run_id)

    @property
    @rank_zero_experiment
    def experiment(self) -> MlflowClient:
        """The client, with the experiment and the run made at first use."""
        if self._initialized:
            return self._mlflow_client
        if self._run_id is None:
            self._experiment_id = open_experiment(self._mlflow_client, self._experiment_name).experiment_id
        address = os.environ.get("MLFLOW_TRACKING_URI")
        try:
            return MLFlowLogger.experiment.fget(self)  # type: ignore[attr-defined]
        finally:  # MLflow would make this run's store that of all later ones of this process
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            if address is not None:
                os.environ["MLFLOW_TRACKING_URI"] = address

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers; a measure that could not be computed (NaN) leaves a gap in its curve."""
        super().log_metrics({name: value for name, value in metrics.items() if not math.isnan(value)}, step)


class RunRecord(SaveConfigCallback):
    """Writes into the run what is needed to understand and to repeat it.

    Artifacts: ``config.yaml``, resolved, as ``fit -c`` takes it, and ``environment.txt``, the installed versions.
    Parameters: the options of model and data, named as on the command line. Tags: method, data set with its
    fingerprint and split, and the git commit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once on rank zero, when the data are set up and before the first step."""
        logger = trainer.logger
        if not isinstance(logger, RunLogger) or stage == "predict":
            return
        client, run = logger.experiment, str(logger.run_id)
        config = self.parser.dump(self.config, skip_none=False)
        client.log_text(run, config, "config.yaml")
        versions = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()}, key=str.lower)
        client.log_text(run, "\n".join(versions) + "\n", "environment.txt")
        method = type(pl_module).__name__
        tags = {"method": method, "stage": str(trainer.state.fn.value), **_git_tags()}  # type: ignore[union-attr]
        describe = getattr(trainer.datamodule, "describe", None)  # type: ignore[attr-defined]
        if describe is not None:
            tags |= {f"data.{key}": value for key, value in describe().items()}
        if logger.unnamed:  # MLflow's own random names depend on our seed: all runs would have the same
            client.update_run(run, name=" ".join(filter(None, (method, tags.get("data.root"), run[:6]))))
        client.log_batch(run, tags=[RunTag(key, str(value)[:5000]) for key, value in tags.items()])
        known = client.get_run(run).data.params  # a run that is continued keeps what it began with
        parameters = [
            Param(key, str(value)[:6000])
            for key, value in _flatten(self.config.as_dict()).items()
            if _interesting(key) and key not in known
        ]
        for start in range(0, len(parameters), _BATCH):
            client.log_batch(run, params=parameters[start : start + _BATCH])


def _interesting(key: str) -> bool:
    if key.startswith("trainer."):
        return key.removeprefix("trainer.") in _TRAINER_PARAMETERS
    return key.startswith(("model.", "data.")) or key == "seed_everything"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted keys, without the ``init_args`` that the command line leaves out, too."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".strip(".")
        if isinstance(value, dict):
            flat |= _flatten(value, name)
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def _git_tags() -> dict[str, str]:
    """The commit of the code that runs, if it lies in a git checkout."""

    def git(*args: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.SubprocessError):
        return {}
