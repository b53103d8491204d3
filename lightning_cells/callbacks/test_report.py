"""Writes into the run of a test what it found: pictures, tables, and a page that shows all of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_cells.callbacks.findings import CELLS, FRAMES, CellRow, Findings
from lightning_cells.callbacks.images import mlflow_loggers, numbered
from lightning_cells.callbacks.report_page import About, report_page
from lightning_cells.callbacks.run_info import RunRecord, git_state, machine
from lightning_cells.data.atomic import writing
from lightning_cells.data.clips import Chunk
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.methods import Tracked
from lightning_cells.paths import output_dir
from lightning_cells.visualization.drawing import save_png
from lightning_cells.visualization.montage import Sample, strip
from lightning_cells.visualization.page import file_name

_STAGE = "test/"
_FULL = 1024  # pixels of a panel of the report, at most
_IN_WORST = 4  # pictures that the dashboard compares between runs


def report_path(run: str) -> Path:
    """Where the page of a test lies on this machine."""
    return output_dir() / "reports" / file_name(run) / "report.html"


class Report(Callback):
    """Gathers what a test finds, and logs it to MLflow at the end.

    The run then has these artifacts: ``report.html``, which is also written to ``outputs/reports/<run>``;
    ``test/cells.json``, a table of all cells; ``test/frames/<video>/<number>.png``, the same frames in each test of
    these videos; ``test/tracks/<video>.gif`` and ``test/lineage/<video>.png`` of the first videos. Among its images,
    which the dashboard compares between runs, are ``test/worst_1``, ``test/tracks/<video>`` and
    ``test/lineage/<video>``. With several processes it shows the videos of process zero. Whatever goes wrong here is
    only warned of, once.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._findings: Findings | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._forget()
        if trainer.is_global_zero and mlflow_loggers(trainer):
            with self._forgiving():
                self._folder = tempfile.TemporaryDirectory()
                self._findings = Findings(Path(self._folder.name) / "test")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Takes the frames that are done."""
        if self._findings is not None:
            with self._forgiving():
                tracked, chunk = outputs, batch
                assert isinstance(tracked, Tracked)
                assert isinstance(chunk, Chunk)
                self._findings.add(chunk.sequence, tracked.start, tracked.labels, tracked.lineage)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and logs; by now the measures are pooled over all processes."""
        if self._findings is not None and self._folder is not None:
            with self._forgiving():
                self._findings.close()
                self._write(trainer, pl_module, self._findings, Path(self._folder.name))
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves nothing behind."""
        self._forget()

    def _write(self, trainer: Trainer, method: LightningModule, findings: Findings, folder: Path) -> None:
        for key, candidate in findings.fixed.items():
            save_png(folder / FRAMES / key / f"{candidate.number}.png", strip(candidate.sample()).image)
        worst = [candidate.sample() for _, candidate in findings.worst.items()]
        about = _about(trainer, method)
        about.notes += _notes(trainer, findings)
        page = report_page(about, findings, [strip(sample, _FULL) for sample in worst])
        (folder / "report.html").write_text(page, encoding="utf-8")
        for logger in mlflow_loggers(trainer):
            client, run = logger.experiment, str(logger.run_id)
            client.log_artifacts(run, str(folder))
            if findings.cells:
                client.log_table(run, pd.DataFrame(findings.cells, columns=CellRow._fields), CELLS)
            for key, image in _images(findings, worst):
                client.log_image(run, image, key=key, step=trainer.global_step)
        kept = report_path(str(mlflow_loggers(trainer)[0].run_id))
        with writing(kept) as temporary:
            temporary.write_text(page, encoding="utf-8")
        if findings.cells_left_out:
            rank_zero_info(f"The table of cells is full: {findings.cells_left_out} of later frames are not in it")

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._forget()
            rank_zero_warn(f"There will be no report of this test: {type(error).__name__}: {error}")

    def _forget(self) -> None:
        self._findings = None
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = None


def _images(findings: Findings, worst: list[Sample]) -> Iterator[tuple[str, np.ndarray]]:
    """What the dashboard compares between runs, by key."""
    yield from numbered("test/worst", worst[:_IN_WORST]).items()
    for video in findings.videos:
        if video.sheet is not None and video.lineage is not None:
            yield f"test/tracks/{video.key}", video.sheet
            yield f"test/lineage/{video.key}", video.lineage


def _about(trainer: Trainer, method: LightningModule) -> About:
    logger = mlflow_loggers(trainer)[0]
    data = trainer.datamodule  # type: ignore[attr-defined]
    record = next((callback for callback in trainer.callbacks if isinstance(callback, RunRecord)), None)  # type: ignore[attr-defined]
    state = git_state()
    code = "" if state is None else state.commit + (", changed by git.diff" if state.dirty else "")
    named = logger.run_name if isinstance(logger, RunLogger) else None
    described = data.describe() if isinstance(data, SequenceDataModule) else {}
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    host = machine()
    checkpoint = Path(str(trainer.ckpt_path or ""))
    table = {
        "method": f"{type(method).__module__}.{type(method).__qualname__}",
        "paper": getattr(method, "paper", ""),
        "data set": str(getattr(data, "root", "")),
        "fingerprint of the data": described.get("fingerprint", ""),
        "test videos": described.get("test", ""),
        "normalisation": str(getattr(data, "normalisation", "")),
        "scale": str(getattr(data, "scale", "")),
        "precision": str(trainer.precision),
        "device": f"{trainer.world_size} x {trainer.strategy.root_device.type} on {host['host']}, {host['processor']}",
        "code": code,
    }
    name = named or f"run {logger.run_id}"
    return About(
        title=f"Test of {name}",
        facts=" · ".join(filter(None, (type(method).__name__, described.get("root"), when))),
        measures={
            key.removeprefix(_STAGE): float(np.asarray(value))
            for key, value in trainer.callback_metrics.items()
            if key.startswith(_STAGE)
        },
        table=table,
        config=record.text if record else "",
        command=record.command if record else "",
        origin={
            "run of this test": str(logger.run_id),
            "run of its training": checkpoint.parent.name if checkpoint.parent.name in _trained() else "",
            "checkpoint": str(trainer.ckpt_path or ""),
        },
    )


def _trained() -> set[str]:
    """The runs whose checkpoints this machine has, each in a folder of its name."""
    return {path.name for path in (output_dir() / "checkpoints").glob("*/")}


def _notes(trainer: Trainer, findings: Findings) -> list[str]:
    notes = []
    if trainer.world_size > 1:
        notes.append(
            f"The measures are those of all videos. Tables and pictures show the videos of the first of "
            f"{trainer.world_size} processes."
        )
    if findings.cells_left_out:
        notes.append(f"{findings.cells_left_out} cells of later frames are not in the table of cells.")
    return notes
