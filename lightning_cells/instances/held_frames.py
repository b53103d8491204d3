"""The cells of a whole video in little memory."""

import zlib

import numpy as np


class HeldFrames:
    """Frames of cells, compressed but for the last few that were used.

    Attributes:
        areas: of each frame the pixels of its cells, (K,).
        centroids: of each frame the rows and columns of their middles, (K, 2).
    """

    _OPEN = 8  # frames that stay uncompressed

    def __init__(self) -> None:
        self.areas: list[np.ndarray] = []
        self.centroids: list[np.ndarray] = []
        self.shape: tuple[int, int] | None = None
        self._held: list[bytes] = []
        self._open: dict[int, np.ndarray] = {}  # the latest used last
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def append(self, labels: np.ndarray) -> None:
        """Adds a frame, (H, W) int32, 0 background, cells positive: they become cells 0..K-1 by rising label."""
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        present = sizes > 0
        number = np.where(present, np.cumsum(present), 0).astype(np.int32)
        self.areas.append(sizes[present])
        rows, columns = np.nonzero(labels)
        found = number[labels[rows, columns]] - 1
        sums = [np.bincount(found, place, int(present.sum())) for place in (rows, columns)]
        self.centroids.append(np.stack(sums, 1) / sizes[present][:, None])
        self.shape = (labels.shape[0], labels.shape[1])
        self._held.append(_compressed(number[labels]))

    def labels(self, frame: int) -> np.ndarray:
        """(H, W) int32 of a frame, not to be changed: 0 background, cell k as k + 1."""
        if frame not in self._open:
            while len(self._open) >= self._OPEN:
                self._close(next(iter(self._open)))
            pixels = np.frombuffer(zlib.decompress(self._held[frame]), np.int32).reshape(self.shape or (0, 0))
            self._open[frame] = pixels.copy()
        self._open[frame] = self._open.pop(frame)
        return self._open[frame]

    def draw(self, frame: int, pixels: np.ndarray) -> int:
        """Adds a cell to a frame and returns its number; (N, 2) rows and columns of background, at least one."""
        number = len(self.areas[frame])
        self.labels(frame)[tuple(pixels.T)] = number + 1
        self.areas[frame] = np.append(self.areas[frame], len(pixels))
        self.centroids[frame] = np.vstack([self.centroids[frame], pixels.mean(0)])
        self._changed.add(frame)
        return number

    def _close(self, frame: int) -> None:
        labels = self._open.pop(frame)
        if frame in self._changed:
            self._held[frame] = _compressed(labels)
            self._changed.remove(frame)


def _compressed(labels: np.ndarray) -> bytes:
    return zlib.compress(labels.tobytes(), 1)
