"""A trained method as an MLflow model: frames in, labels and tracks out.

Models in a registry name this module as the one that loads them, so it keeps its place. They hold a checkpoint and no
code; the checkpoint is read as plain values and tensors.
"""

import json
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import Schema, TensorSpec

from lightning_cells.errors import InputError
from lightning_cells.methods.building import load_method

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
)
"""``frames``, float32 since MLflow turns JSON into the type that is named here, and would cut fractions off."""

_CHUNK = 8  # frames that the network sees at a time, as in `track`
_CHANNELS = (1, 3, 4)
_LARGEST = np.iinfo(np.uint16).max


class Refused(MlflowException):
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
        self._method, self._preprocessing = load_method(checkpoint)
        self._method.to("cuda" if torch.cuda.is_available() else "cpu")
        self._one_at_a_time = Lock()  # a server answers requests in threads: their memory would add up

    def predict(self, model_input: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tracks the cells of consecutive frames.

        Args:
            model_input: ``frames``, float32 (T, H, W): grey, whole numbers from 0 to 65535.

        Returns:
            ``labels``, int32 (T, H, W): 0 background, else the track's number. ``tracks``, int32 (N, 4): the track's
            number, its first and last frame, counted from 0, and the number of its mother or 0.

        Raises:
            Refused: if frames are of a wrong kind.
        """
        try:
            frames = check_frames(model_input["frames"])
            with self._one_at_a_time, torch.inference_mode():
                return self._tracked(frames)
        except InputError as error:
            raise Refused(str(error)) from None

    def _tracked(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        size = max(_CHUNK, self._method.first_chunk)
        height, width = frames.shape[1:]
        video = self._method.open_video((height, width))
        labels: list[np.ndarray] = []
        for start in range(0, len(frames), size):
            chunk = self._preprocessing.prepare(frames[start : start + size])
            labels += video.push(chunk.to(self._method.device))
        labels += video.finish()
        tracks = sorted(video.lineage.values())
        return {"labels": np.stack(labels), "tracks": np.array(tracks, np.int32).reshape(-1, 4)}


def check_frames(frames: np.ndarray) -> np.ndarray:
    """Returns frames, (T, H, W) of numbers, as uint16.

    Raises:
        InputError: unless they are what an 8- or 16-bit grey camera could give, and no more than `MOST_PIXELS`.
    """
    shape = " x ".join(map(str, frames.shape))
    if frames.ndim != 3 or not np.issubdtype(frames.dtype, np.number):
        raise InputError(f"frames: are {shape} of {frames.dtype}: give numbers, all frames of one size, (T, H, W)")
    if frames.size == 0:
        raise InputError(f"frames: are empty ({shape}): give at least one frame, (T, H, W)")
    if frames.shape[2] in _CHANNELS and min(frames.shape[:2]) > max(_CHANNELS):
        raise InputError(f"frames: {shape} looks like one image with channels: give grey frames, (T, H, W)")
    if frames.size > MOST_PIXELS:
        raise InputError(
            f"frames: {shape} are {frames.size} pixels, at most {MOST_PIXELS} go at once: give fewer or smaller "
            "frames, or use lightning-cells track, which takes videos of any length"
        )
    if not np.isfinite(frames).all():
        raise InputError("frames: hold values that are not finite (NaN, null or infinite): give whole numbers")
    odd = frames[(frames < 0) | (frames > _LARGEST) | (frames != np.rint(frames))]
    if odd.size:
        raise InputError(
            f"frames: hold {odd[0]:g}: give whole numbers from 0 to {_LARGEST}, as the camera does, not normalised"
        )
    return frames.astype(np.uint16)


def _load_pyfunc(path: str) -> ServedModel:
    """Called by MLflow with the path of the checkpoint."""
    return ServedModel(Path(path))
