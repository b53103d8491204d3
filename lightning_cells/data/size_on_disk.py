"""How large the segmented cells of a data set are, before any of its videos is opened."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_cells.data.ctc import Truth, find_sequence, sequence_names
from lightning_cells.data.image_files import STILLS, read_mask
from lightning_cells.data.sequence import cell_areas, diameter_of

_MOST = 20  # masks of a video that are read


def diameter_on_disk(root: Path, layout: str, truth: Truth = "gold") -> float | None:
    """The median diameter of segmented cells, as of discs of their areas, in pixels of the masks.

    Args:
        root: folder of the data set.
        layout: ``ctc`` or ``images``, as the data module takes it.
        truth: which one, as `find_sequence` takes it.

    Returns:
        None without any segmented cell.

    Raises:
        InputError: for a mask that cannot be read.
    """
    if layout == "images":
        folder = root / "labels"
        videos = [sorted(path for path in folder.glob("*") if path.suffix.lower() in STILLS)]
    else:
        videos = [list(find_sequence(root, name, truth).seg.values()) for name in sequence_names(root)]
    areas = [np.empty(0, np.int64)]
    for masks in videos:
        for path in _spread(masks):
            mask = read_mask(path)
            areas += [cell_areas(plane) for plane in mask.reshape(-1, *mask.shape[-2:])]
    counts = np.concatenate(areas)
    return diameter_of(float(np.median(counts))) if len(counts) else None


def _spread(masks: Sequence[Path]) -> Sequence[Path]:
    return masks[:: max(1, -(-len(masks) // _MOST))]
