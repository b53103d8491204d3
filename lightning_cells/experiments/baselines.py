"""Classical pipelines, to be shown beside what a network reaches."""

from pathlib import Path
from typing import get_args

from lightning_cells.data.ctc import ResultWriter, find_sequence, read_frame
from lightning_cells.instances.classical import Split, otsu
from lightning_cells.instances.linking import OverlapLinker

SPLITS: tuple[Split, ...] = get_args(Split)


def classical_results(
    root: Path,
    name: str,
    out: Path,
    split: Split,
    frames: tuple[int, int] | None = None,
) -> Path:
    """Segments a video by Otsu's threshold on the log image, links by overlap, and writes a result folder.

    Args:
        root: data set folder.
        name: video.
        out: folder in which ``NN_RES`` is written.
        split: how touching cells are parted.
        frames: only frames ``start <= number < stop``.

    Returns:
        The result folder.
    """
    files = find_sequence(root, name)
    numbers = [number for number in files.frames if frames is None or frames[0] <= number < frames[1]]
    linker = OverlapLinker(first_frame=numbers[0])
    target = out / f"{name}_RES"
    with ResultWriter(target, digits=files.digits) as writer:
        for number in numbers:
            (tracks,) = linker.push(otsu(read_frame(files.frames[number]), split))
            writer.write(number, tracks)
        writer.finish(linker.lineage)
    return target
