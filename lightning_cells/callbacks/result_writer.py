"""Predictions -> result folders in Cell Tracking Challenge layout."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cells.data.clips import Chunk
from lightning_cells.data.locking import reserved
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.tracks import Lineage
from lightning_cells.errors import InputError
from lightning_cells.methods import Tracked
from lightning_cells.paths import output_dir


class ResultFolders(Callback):
    """Writes each predicted video to ``FOLDER/NN_RES``, frame by frame.

    A result folder appears when its video is complete; after an error nothing is left of it.

    Args:
        folder: where results go; None takes ``outputs/predictions/<data set>``.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._writer: ResultWriter | None = None
        self._lineage: Lineage = {}
        self._open = ExitStack()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses two parts of one video, whose results would be one folder."""
        names = [sequence.name for sequence in trainer.datamodule.sequences["predict"]]  # type: ignore[attr-defined]
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"data.predict: video {name} is chosen twice, but has one result folder: choose it once"
                )

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Writes the frames of a chunk."""
        chunk, tracked = batch, outputs
        assert isinstance(chunk, Chunk)
        assert isinstance(tracked, Tracked)
        if not tracked.labels:
            return
        if tracked.start == 0:
            target = self.folder(trainer).resolve() / f"{chunk.sequence.name}_RES"
            self._writer = self._open.enter_context(self._writing(target, chunk.sequence.files.digits))
        assert self._writer is not None
        for index, labels in enumerate(tracked.labels, tracked.start):
            self._writer.write(chunk.sequence.numbers[index], labels)
        self._lineage = tracked.lineage
        if chunk.last:
            self._finish()

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Completes a video of which `limit_predict_batches` let only a part through."""
        if self._writer is not None:
            self._finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes back the video under way."""
        self._writer = None
        self._open.__exit__(type(exception), exception, exception.__traceback__)

    def _finish(self) -> None:
        assert self._writer is not None
        self._writer.finish(self._lineage)
        self._writer = None
        self._open.close()

    @contextmanager
    def _writing(self, target: Path, digits: int) -> Iterator[ResultWriter]:
        """A writer by whose hidden folder the next process knows what a killed one left, and removes it."""
        hidden = target.with_name(f".{target.name}.predicting")
        writer = ResultWriter(target, digits, hidden)
        with reserved(hidden), writer:
            yield writer

    def folder(self, trainer: Trainer) -> Path:
        """Folder of all results of this prediction."""
        if self._folder is not None:
            return Path(self._folder)
        return output_dir() / "predictions" / Path(trainer.datamodule.root).name  # type: ignore[attr-defined]
