"""The package from Python: load a model, track frames, measure the result."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from lightning_cells import trust
from lightning_cells.data.simulate import simulate
from lightning_cells.data.voxels import Order
from lightning_cells.errors import InputError
from lightning_cells.loggers.models import trained_model
from lightning_cells.methods.decoding import LinkerName
from lightning_cells.methods.pretrained import DEFAULT
from lightning_cells.result import Result
from lightning_cells.tracking import Device, Tracker

__all__ = ["Result", "Tracker", "evaluate", "load", "simulate"]


def load(
    model: str | Path = DEFAULT,
    device: Device = "auto",
    linker: LinkerName | None = None,
    scale: float | None = None,
    chunk: int = 8,
    diameter: float | Literal["auto", "training"] = "auto",
    min_size: float | None = None,
    decoder: Mapping[str, Any] | None = None,
    flips: bool = False,
    sequence: Order | None = None,
    allow: str | None = None,
) -> Tracker:
    """Loads a trained model.

    Args:
        model: the name of one that comes with the package, such as ``nuclei``; path of a checkpoint, such as
            ``outputs/checkpoints/RUN/best.ckpt``; or a registered model: ``models:/NAME/VERSION``,
            ``models:/NAME/latest``, ``models:/NAME@ALIAS``.
        device: see `Tracker`, as for the others.
        linker: what links cells.
        scale: factor on the frames that the network sees.
        chunk: frames in memory at a time.
        diameter: of a typical cell in pixels of the frames; estimated by default.
        min_size: share of a typical cell's area below which pieces are dropped.
        decoder: other settings of the decoder, by their names.
        flips: whether probabilities are averaged over mirrored frames, too.
        sequence: what a recurrent network goes through in volumes, ``time`` or ``z``; as in its training by default.
        allow: packages whose classes the model may name, such as ``my_lab``, with commas between; they are imported.

    Raises:
        InputError: if there is no such model, it cannot be used, or an option does not fit it.
    """
    trust.allow(allow)
    with trained_model(model) as checkpoint:
        return Tracker(checkpoint, device, linker, scale, chunk, diameter, min_size, decoder, flips, sequence)


def evaluate(result: Result | str | Path, truth: Result | str | Path) -> dict[str, float | int | None]:
    """Compares tracked cells with the truth, by the measures of the Cell Tracking Challenge.

    Args:
        result: tracked cells, or a result folder such as ``01_RES``.
        truth: the true cells, or a truth folder such as ``01_GT``.

    Returns:
        SEG, DET, TRA, LNK, OP_CSB and OP_CTB from 0 to 1, the numbers of operations behind them, and the divisions;
        None for what the truth does not allow to compute.

    Raises:
        InputError: if one of the two cannot be read, they do not fit each other, or the result is not valid.
    """
    if isinstance(truth, Result):
        return _compared(result if isinstance(result, Result) else Result.read(result), truth)
    from lightning_cells.metrics.evaluate import evaluate as evaluate_folders

    if not isinstance(result, Result):
        return evaluate_folders(Path(result), Path(truth)).as_dict()
    with TemporaryDirectory(prefix="lightning_cells-") as folder:  # one way of reading and checking for all
        return evaluate_folders(result.save(Path(folder, "result")), Path(truth)).as_dict()


def _compared(result: Result, truth: Result) -> dict[str, float | int | None]:
    """Compares two results; the second one counts as the truth of every pixel."""
    from lightning_cells.metrics.ctc_measures import CTCMatcher

    if (result.first_frame, result.labels.shape) != (truth.first_frame, truth.labels.shape):
        here, there = (f"{one.labels.shape} from frame {one.first_frame}" for one in (result, truth))
        raise InputError(f"the result is {here}, the truth {there}: give the same frames of one video")
    matcher = CTCMatcher()
    for number, (labels, true) in enumerate(zip(result.labels, truth.labels, strict=True), result.first_frame):
        matcher.update(number, labels, true, true)
    return matcher.compute(result.lineage, truth.lineage).as_dict()
