"""Still images with their labels, as sequences of one frame."""

from pathlib import Path
from typing import Literal

from lightning_cells.data.ctc import SequenceFiles
from lightning_cells.data.image_files import STILLS
from lightning_cells.data.intensity import Normalisation
from lightning_cells.data.sequence import Sequence, open_files
from lightning_cells.errors import InputError

LabelKind = Literal["instances", "classes"]


def open_images(
    root: Path,
    normalisation: Normalisation,
    scale: float = 1.0,
    labels: LabelKind = "instances",
    cache: Path | None = None,
    smoothing: float = 0.0,
    channel: int | None = None,
) -> list[Sequence]:
    """Opens the images of ``ROOT/images`` with the labels of the same stem in ``ROOT/labels``.

    Images may differ in size. All share one cache entry and one file handle.

    Args:
        root: folder of the data set; without a folder ``labels`` the images have no truth.
        normalisation: how each image is normalised, see `normalise`.
        scale: factor by which images and labels are resampled.
        labels: whether the label images hold instances (0 background, else ids, which become
            `Sequence.labels`) or semantic classes (0, 1, 2, ..., which become `Sequence.classes`).
        cache: folder of the cache; None takes `paths.cache_dir`.
        smoothing: standard deviation by which each image is smoothed before, see `prepare`.
        channel: which of several channels or colours of the images to take, from 0.

    Returns:
        One sequence per image, by name; its only frame has number 0.

    Raises:
        InputError: for missing or broken files, an image without labels or labels without an image, and all
            that `open_sequence` refuses.
    """
    if labels not in ("instances", "classes"):
        raise InputError(f"data.label_kind={labels}: is not known: choose instances or classes")
    root = Path(root)
    images = _by_stem(root / "images")
    if not images:
        raise InputError(f"{root / 'images'}: holds no images: add 8- or 16-bit grey .png or .tif files")
    truth = _by_stem(root / "labels") if (root / "labels").is_dir() else None
    if truth is not None:
        for stem in sorted(images.keys() ^ truth.keys()):
            path = images.get(stem) or truth[stem]
            lack = "labels" if stem in images else "images"
            raise InputError(f"{path}: has no counterpart in {root / lack}: add one of that name or remove it")
    return open_files(
        [_files(stem, path, None if truth is None else truth[stem], labels, channel) for stem, path in images.items()],
        normalisation,
        scale,
        cache,
        smoothing,
    )


def _files(stem: str, image: Path, truth: Path | None, labels: LabelKind, channel: int | None) -> SequenceFiles:
    known = {} if truth is None else {0: truth}
    seg, classes = (known, {}) if labels == "instances" else ({}, known)
    return SequenceFiles(stem, {0: image}, seg, tra={}, tracks=None, classes=classes, digits=3, channel=channel)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Image files of a folder by the name without suffix, sorted."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in STILLS and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(f"{path}: has the name of {found[path.stem].name}: remove one of them")
            found[path.stem] = path
    return found
