"""Simulated videos with exact truth, written in the layout of the Cell Tracking Challenge.

Every cell of every frame is segmented, labelled and linked to its mother, so nothing has to be downloaded or
annotated to train, track and measure.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lightning_cells.data.image_files import write_image
from lightning_cells.data.locking import lock_of, reserved
from lightning_cells.data.simulation.brightfield import brightfield
from lightning_cells.data.simulation.fibres import fibres
from lightning_cells.data.simulation.nuclei import nuclei
from lightning_cells.data.simulation.varied import varied
from lightning_cells.data.simulation.volumes import volumes
from lightning_cells.data.tracks import Lineage, Track, write_tracks
from lightning_cells.data.voxels import Voxel, check_voxel
from lightning_cells.errors import InputError
from lightning_cells.progress import Progress

Kind = Literal["nuclei", "brightfield", "fibres", "varied"]

SMALLEST_SIDE = 32  # pixels
SIMULATORS = {"nuclei": nuclei, "brightfield": brightfield, "fibres": fibres, "varied": varied}
VOXEL = (5.0, 1.0, 1.0)  # micrometres: planes are farther apart than pixels
STEEPEST = 50
ROOM_OF_VOLUME = 12_000  # least cubic pixels of the field per starting cell
ROOM = {"nuclei": 250, "brightfield": 450, "fibres": 80, "varied": 600}  # least pixels of the field per starting cell


def simulate(
    out: Path,
    kind: Kind = "nuclei",
    sequences: int = 2,
    frames: int = 24,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
    cells: int | None = None,
    depth: int | None = None,
    voxel: Voxel | None = None,
) -> Path:
    """Writes a data set of simulated videos.

    ``OUT/01/tNNN.tif`` are the frames (uint16), ``OUT/01_GT/SEG/man_segNNN.tif`` and
    ``OUT/01_GT/TRA/man_trackNNN.tif`` the instance labels of all cells (the same pixels in both),
    ``OUT/01_GT/TRA/man_track.txt`` the lineage, and for bright-field ``OUT/01_GT/SEM/man_semNNN.tif`` the classes
    0 background, 1 nucleus, 2 cytoplasm. With a `depth` each of these files is a volume, and the frames say how large
    a voxel is.

    Sequence k depends on the seed, the kind, k, the size, the voxels and the number of cells, and on nothing else:
    asking for more sequences or more frames changes none of those that were there before.

    Args:
        out: folder to make; it may exist if it is empty.
        kind: ``"nuclei"``, fluorescent nuclei that divide and touch; ``"varied"``, fluorescent cells of another look
            in each video; ``"brightfield"``, unstained adherent cells with nucleus and cytoplasm; ``"fibres"``,
            sections of muscle, where the frames are unrelated images.
        sequences: number of videos, 1..999.
        frames: frames per video, >= 1.
        size: (H, W) in pixels, each >= 32.
        seed: >= 0.
        cells: cells in the field at the start; None for a number that grows with its area (14 nuclei, 17
            bright-field cells or 45 fibres in 128 x 128 pixels; 14 nuclei in 16 planes of these, 5 pixels apart).
        depth: planes of each frame, >= 2, for volumes of nuclei; None for 2-D videos.
        voxel: (z, y, x) of a voxel of a volume in micrometres; None for (5, 1, 1). Cells are drawn in units of x.

    Returns:
        `out`.

    Raises:
        InputError: if an argument is out of range, or `out` exists and is not empty, or cannot be made. Nothing is
            left in `out` then, nor after an interruption.
    """
    out = Path(out)
    _check(kind, sequences, frames, size, seed)
    voxel = _voxel(kind, depth, voxel)
    _check_room(kind, size, depth, voxel, cells)
    progress = Progress(f"simulating {kind}", sequences * frames, leave=False)
    with progress, _whole(out) as partial:
        for number in range(1, sequences + 1):
            # the kind's letters are part of the seed, so kinds do not share their random numbers
            rng = np.random.default_rng([seed, *kind.encode(), number])
            if depth is None:
                video = SIMULATORS[kind](rng, frames, size, cells)
            else:
                video = volumes(rng, frames, depth, size, voxel, cells)
            lineage: Lineage = {}
            for frame, simulated in enumerate(video):
                name = f"{frame:0{max(3, len(str(frames - 1)))}d}.tif"
                truth = partial / f"{number:02d}_GT"
                labels = simulated.labels.astype(np.uint16)
                write_image(partial / f"{number:02d}" / f"t{name}", simulated.image, voxel if depth else None)
                write_image(truth / "SEG" / f"man_seg{name}", labels)
                write_image(truth / "TRA" / f"man_track{name}", labels)
                if simulated.classes is not None:
                    write_image(truth / "SEM" / f"man_sem{name}", simulated.classes)
                _extend(lineage, frame, labels, simulated.parents)
                progress.update()
            write_tracks(truth / "TRA" / "man_track.txt", lineage)
    return out


def _extend(lineage: Lineage, frame: int, labels: np.ndarray, parents: dict[int, int]) -> None:
    """Adds what one frame shows to the lineage: tracks are read off the labels, so they cannot disagree."""
    for label in np.unique(labels[labels > 0]).tolist():
        known = lineage.get(label)
        if known is None:
            lineage[label] = Track(label, frame, frame, parents.get(label, 0))
        else:
            lineage[label] = known._replace(end=frame)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Gives a hidden folder that becomes `out` at the end, or is removed on an error.

    What a killed process left of the same is removed; a process that makes it now is waited for.
    """
    with ExitStack() as held:
        try:
            exists = out.exists()
            # an empty folder that exists may be somebody's working directory or a mount: it is filled, not replaced
            hidden = out / ".simulating" if exists else out.with_name(f".{out.name}.simulating")
            _check_free(out, exists, hidden)
            partial = held.enter_context(reserved(hidden))
            _check_free(out, exists, hidden)
            partial.mkdir()
        except (NotADirectoryError, FileExistsError):
            raise InputError(f"{out}: is not a folder: choose another name") from None
        except OSError as error:
            raise InputError(f"{out}: cannot be made ({error.strerror}): choose another folder") from None
        yield partial
        _check_free(out, exists, hidden)
        if not exists:
            partial.rename(out)
        else:
            for folder in sorted(partial.iterdir(), reverse=True):  # truth before its frames
                folder.rename(out / folder.name)


def _check_free(out: Path, existed: bool, hidden: Path) -> None:
    """Raises InputError if there is something in the way of a data set but what simulations hide there."""
    if not existed and out.exists():
        raise InputError(f"{out}: was made by somebody else meanwhile: choose another folder")
    if existed and not {hidden, lock_of(hidden)}.issuperset(out.iterdir()):
        raise InputError(f"{out}: is not empty: choose another folder, or remove this one first")


def _check(kind: str, sequences: int, frames: int, size: tuple[int, int], seed: int) -> None:
    """Raises InputError for what cannot be simulated."""
    if kind not in SIMULATORS:
        raise InputError(f"simulate: kind is '{kind}': choose one of {', '.join(get_args(Kind))}")
    if not 1 <= sequences <= 999:
        raise InputError(f"simulate: sequences is {sequences}: give 1 to 999")
    if frames < 1:
        raise InputError(f"simulate: frames is {frames}: give 1 or more")
    if len(size) != 2 or min(size) < SMALLEST_SIDE:
        raise InputError(
            f"simulate: size is {' x '.join(map(str, size))}: give height and width of {SMALLEST_SIDE} or more"
        )
    if seed < 0:
        raise InputError(f"simulate: seed is {seed}: give 0 or more")


def _voxel(kind: str, depth: int | None, voxel: Voxel | None) -> Voxel:
    """Returns how large a voxel is; raises InputError for what is no voxel of a volume."""
    if depth is None:
        if voxel is not None:
            raise InputError("simulate: a voxel without a depth: give the planes of a volume (--depth 16), too")
        return VOXEL
    if kind != "nuclei":
        raise InputError(f"simulate: depth is {depth} and kind '{kind}': volumes show nuclei, leave the kind out")
    if depth < 2:
        raise InputError(f"simulate: depth is {depth}: give 2 or more planes, or none for a 2-D video")
    voxel = check_voxel(voxel) or VOXEL
    if max(voxel) > STEEPEST * min(voxel):
        given = " ".join(f"{side:g}" for side in voxel)
        raise InputError(f"--voxel {given}: give sides of which none is more than {STEEPEST} times another")
    return voxel


def _check_room(kind: str, size: tuple[int, int], depth: int | None, voxel: Voxel, cells: int | None) -> None:
    """Raises InputError for more cells than there is room for."""
    most, field = size[0] * size[1] // ROOM[kind], f"{size[0]} x {size[1]} pixels"
    if depth is not None:
        step, tall = voxel[0] / voxel[2], voxel[1] / voxel[2]
        most = max(1, int(depth * step * size[0] * tall * size[1] / ROOM_OF_VOLUME))
        field = f"{depth} x {size[0]} x {size[1]} voxels"
    if cells is not None and not 1 <= cells <= most:
        raise InputError(f"simulate: cells is {cells}: {field} have room for 1 to {most}")
