"""A training as an MLflow run that survives: the store may be away, the process may be killed and go on."""

import colorsys
import math
import sys
import time
import uuid
from collections.abc import Mapping

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from lightning_cells.errors import InputError, without_passwords
from lightning_cells.loggers.delivery import LOCAL_ID, QueuedClient, create_run, open_outbox, refused
from lightning_cells.loggers.outbox import PATIENCE_S, Outbox
from lightning_cells.loggers.run_folder import RunFolder, known_runs
from lightning_cells.loggers.store import open_store, tracking_uri, under_outputs, with_password

EXPERIMENT = "lightning_cells"
LOCAL_NAME = "local-"
"""Beginning of the names of runs that began while the store was away."""
CHILD = "child"
"""Tag of a run that is a row, a data set or a fold of the run above it: its name there."""
_COLOUR = "mlflow.runColor"  # tag by which MLflow's pages draw a run
_ENDS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}
_ATTEMPTS = 3  # at making a run, before it is begun without the store


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger on the project's store.

    What is logged goes to ``outputs/runs/<run>/outbox`` and is delivered in the background. A store that is away delays
    it and nothing else; what a killed process leaves behind is delivered when its training goes on, or by
    ``lightning-cells deliver``.

    Args:
        experiment_name: the experiment that the run belongs to.
        run_name: name of the run; None names it by method, stage and the start of its id, such as ``ulstm-3f2c``.
        uri: address of the store; None takes ``$MLFLOW_TRACKING_URI``, or sqlite under the output folder.
        run_id: continues this run instead of starting one.
        tags: further tags of the run.

    Raises:
        InputError: if runs cannot be kept at that address, or another process is at work on the run.

    Attributes:
        run_name: name of the run, None if it is not known yet.
        folder: what this machine keeps of the run.
        continued: whether the run was begun before.
        ending: the status that the run is to end with, if it is neither finished nor failed.
    """

    def __init__(
        self,
        experiment_name: str = EXPERIMENT,
        run_name: str | None = None,
        uri: str | None = None,
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        known = None if run_id is None else RunFolder(run_id)
        uri = with_password(uri) if uri else (tracking_uri() if known is None else known.uri)
        open_store(uri)
        super().__init__(experiment_name, run_name, tracking_uri=uri, tags=tags, run_id=run_id)
        self.run_name = run_name
        self.unnamed = run_name is None and run_id is None
        self.continued = run_id is not None
        self.ending: str | None = None
        self.folder = known
        self._outbox: Outbox | None = None
        if known is not None:
            self._take_up(known)

    @rank_zero_only
    def _take_up(self, folder: RunFolder) -> None:
        """Claims a run that is to go on, before any other process is started."""
        folder.claim()
        client = MlflowClient(self._tracking_uri)
        try:
            if client.get_run(folder.run_id).info.lifecycle_stage == "deleted":
                client.restore_run(folder.run_id)
        except (MlflowException, OSError) as error:
            if refused(error) and not folder.run_id.startswith(LOCAL_NAME):
                folder.release()
                raise InputError(
                    f"run {folder.run_id} is not in {self._tracking_uri}: begin another from its checkpoint with "
                    "--ckpt_path"
                ) from error

    @property
    @rank_zero_experiment
    def experiment(self) -> MlflowClient:
        """The client, through which everything is logged; the run is made at first use."""
        if not self._initialized:
            self._begin()
        return self._mlflow_client

    def _begin(self) -> None:
        now = time.time_ns() // 1_000_000
        tags = {_COLOUR: _colour(known_runs())} | dict(self.tags or {})
        if self._run_name:
            tags[MLFLOW_RUN_NAME] = self._run_name
        new = {"experiment": self._experiment_name, "tags": resolve_tags(tags), "start_time": now}
        away = False
        if self._run_id is None:
            try:
                self._run_id = self._create(new)
            except (MlflowException, OSError):
                away = True
                self._run_id = f"{LOCAL_NAME}{uuid.uuid4().hex[:12]}"
                new["tags"][LOCAL_ID] = self._run_id
        if self.folder is None:
            self.folder = RunFolder(self._run_id)
            self.folder.claim()
        began = self.folder.read().get("start_time", now)
        uri = None if self._tracking_uri == under_outputs() else self._tracking_uri
        self.folder.write(uri=uri and without_passwords(uri), start_time=began)
        self._outbox = open_outbox(self._tracking_uri, self.folder)
        self._mlflow_client = QueuedClient(self._tracking_uri, self._outbox, since=began)
        self._initialized = True
        if away:
            self._outbox.put("create_run", new)
        elif self.continued:
            self._mlflow_client.update_run(self._run_id, status="RUNNING")

    def _create(self, new: dict) -> str:
        """Makes the run.

        Raises:
            InputError: if the store does not want it.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return create_run(MlflowClient(self._tracking_uri), **new)
            except (MlflowException, OSError) as error:
                if refused(error):
                    raise InputError(f"trainer.logger: {self._tracking_uri} does not take the run: {error}") from error
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(1)
        raise AssertionError

    @property
    def uri(self) -> str:
        """Address of the store."""
        return str(self._tracking_uri)

    @property
    def seconds(self) -> int:
        """Time since the run began, in whole seconds, never less than before."""
        client = self.experiment
        return (client.now() - client.since) // 1000 if isinstance(client, QueuedClient) else 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers; a measure that could not be computed (NaN) leaves a gap in its curve."""
        super().log_metrics({name: value for name, value in metrics.items() if not math.isnan(value)}, step)

    def flush(self, limit: float = PATIENCE_S) -> bool:
        """Waits until all that was logged is in the store, at most `limit` seconds; returns whether it is."""
        return self._outbox is None or self._outbox.flush(limit)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Ends the run, and waits a while for what is not delivered yet; says what is left and where."""
        if self._outbox is not None:
            interrupted = isinstance(sys.exception(), KeyboardInterrupt)
            ending = self.ending or ("KILLED" if interrupted else _ENDS.get(status, status))
            self._mlflow_client.set_terminated(str(self._run_id), ending)
            self._outbox.close()
        if self.folder is not None:
            self.folder.release()


def _colour(number: int) -> str:
    """One of many colours, far from those of the numbers before: hues by the golden ratio, light and dark by turns."""
    hue, lightness = number * 0.618034 % 1, (0.42, 0.58, 0.32)[number % 3]
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, 0.65))
