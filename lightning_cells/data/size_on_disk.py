"""How large the segmented cells of a data set are, before any of its videos is opened."""

from pathlib import Path

from lightning_cells.data.ctc import Truth, find_sequence, sequence_names
from lightning_cells.data.image_files import STILLS, read_mask
from lightning_cells.data.sequence import median_diameter, spread

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
    masks = (read_mask(path) for paths in videos for path in spread(paths, _MOST))
    return median_diameter(plane for mask in masks for plane in mask.reshape(-1, *mask.shape[-2:]))
