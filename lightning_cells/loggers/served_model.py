"""A trained method as an MLflow model: frames in, labels and tracks out.

Models in a registry name this module as the one that loads them, so it keeps its place. They hold a checkpoint and no
code; the checkpoint is read as plain values and tensors.
"""

import json
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from lightning_cells.errors import InputError
from lightning_cells.tracking import Tracker

MOST_PIXELS = 2**24
"""Of all frames of a request together."""
SIGNATURE = ModelSignature(
    Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1), "frames")]),
    Schema(
        [
            TensorSpec(np.dtype(np.int32), (-1, -1, -1), "labels"),
            TensorSpec(np.dtype(np.int32), (-1, 4), "tracks"),
        ]
    ),
    ParamSchema(
        [ParamSpec("planes", DataType.long, 1), ParamSpec("voxel", DataType.double, [1.0, 1.0, 1.0], shape=(-1,))]
    ),
)
"""``frames``, float32 since MLflow turns JSON into the type that is named here, and would cut fractions off; as it
knows one number of axes only, volumes are given plane after plane, and ``planes`` says how many make one."""


class RefusedFrames(MlflowException):
    """Frames that cannot be tracked: status 400 for the client of a server, with the one line that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, error_code=INVALID_PARAMETER_VALUE)
        self._reason = reason

    def serialize_as_json(self) -> str:
        """What a client gets: the reason alone, since the server puts all frames in front of `message`."""
        return json.dumps({"error_code": self.error_code, "message": self._reason})


class ServedModel:
    """What ``mlflow.pyfunc.load_model`` gives frames to.

    Args:
        checkpoint: weights, method and preprocessing.

    Raises:
        InputError: if the checkpoint cannot be used.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._tracker = Tracker(checkpoint)
        self._one_at_a_time = Lock()  # a server answers requests in threads: their memory would add up

    def predict(
        self, model_input: dict[str, np.ndarray], params: dict[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Tracks the cells of consecutive frames.

        Args:
            model_input: ``frames``, float32 (T, H, W): grey, whole numbers from 0 to 65535. Of volumes all planes of
                the first one, then those of the next.
            params: ``planes`` of each volume, 1 of images; ``voxel``, the depth, height and width of a voxel.

        Returns:
            ``labels``, int32 like the frames: 0 background, else the track's number. ``tracks``, int32 (N, 4): the
            track's number, its first and last frame, counted from 0, and the number of its mother or 0.

        Raises:
            RefusedFrames: if frames are of a wrong kind.
        """
        frames, given = model_input["frames"], params or {}
        planes = int(given.get("planes", 1))
        try:
            if frames.size > MOST_PIXELS:
                shape = " x ".join(map(str, frames.shape))
                raise InputError(
                    f"frames: {shape} are {frames.size} pixels, at most {MOST_PIXELS} go at once: give fewer or "
                    "smaller frames, or use lightning-cells track, which takes videos of any length"
                )
            if planes < 1 or len(frames) % planes:
                raise InputError(f"planes: {len(frames)} frames are no volumes of {planes}: give all planes of each")
            volumes = frames.reshape(-1, planes, *frames.shape[1:]) if planes > 1 else frames
            voxel = tuple(given["voxel"]) if planes > 1 and "voxel" in given else None
            with self._one_at_a_time:
                result = self._tracker.track(volumes, progress=False, voxel=voxel)
        except InputError as error:
            raise RefusedFrames(str(error)) from None
        return {"labels": result.labels.reshape(frames.shape), "tracks": result.tracks.to_numpy(np.int32)}


def _load_pyfunc(path: str) -> ServedModel:
    """Called by MLflow with the path of the checkpoint."""
    return ServedModel(Path(path))
