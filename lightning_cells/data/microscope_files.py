"""Videos in the formats of microscopes, by way of bioio, an optional extra."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cells.data.tiff_axes import which_channel
from lightning_cells.data.voxels import Voxel, check_voxel
from lightning_cells.errors import InputError, one_line

_READERS = {".zarr": "OME-Zarr", ".nd2": "ND2", ".czi": "CZI", ".lif": "LIF"}


def is_microscope_file(path: Path) -> bool:
    """Whether a file, or the folder of an OME-Zarr, is of a format that is read by bioio."""
    return path.suffix.lower() in _READERS and path.exists()


class MicroscopeVideo:
    """One grey video in a file of a microscope.

    Args:
        path: OME-Zarr, ND2, CZI or LIF.
        channel: which of several to take, from 0.

    Raises:
        InputError: if bioio is not installed or cannot read the file, or it holds several scenes, several channels of
            which none is chosen, colours, or other numbers than 8 or 16 bits.

    Attributes:
        count: number of frames.
        shape: height and width; of volumes first the number of planes.
        voxel: what the file says of it; None where it does not, and of images.
    """

    def __init__(self, path: Path, channel: int | None = None) -> None:
        self._path = path
        self._image = _opened(path)
        try:
            scenes, sizes = list(self._image.scenes), dict(self._image.dims.items())
            dtype = np.dtype(self._image.dtype)
        except Exception as error:  # each reader has errors of its own
            raise self._unreadable(error) from None
        if len(scenes) > 1:
            named = ", ".join(map(str, scenes[:3])) + (", ..." if scenes[3:] else "")
            raise InputError(
                f"{path}: holds {len(scenes)} scenes ({named}): save the one to track as a file of its own"
            )
        if sizes.get("S", 1) > 1:
            raise InputError(f"{path}: is in colour: save it as one grey channel")
        self._channel, _ = which_channel(path, {"C": sizes.get("C", 1)}, channel)
        if dtype not in (np.uint8, np.uint16):
            raise InputError(f"{path}: has {dtype} pixels: save frames as 8- or 16-bit unsigned integers")
        self.count: int = sizes.get("T", 1)
        depth = (sizes["Z"],) if sizes.get("Z", 1) > 1 else ()
        self.shape: tuple[int, ...] = (*depth, sizes["Y"], sizes["X"])
        self.voxel = self._voxel() if depth else None

    def read(self, index: int) -> np.ndarray:
        """Reads frame `index`, (H, W) or (Z, H, W), uint8 or uint16; the others stay on disk."""
        try:
            axes = {} if len(self.shape) > 2 else {"Z": 0}
            chosen = self._image.get_image_dask_data("YX" if axes else "ZYX", T=index, C=self._channel, **axes)
            frame = np.asarray(chosen.compute(scheduler="synchronous"))
        except Exception as error:  # as above
            raise self._unreadable(error) from None
        return frame.astype(frame.dtype.newbyteorder("="), copy=False)

    def _voxel(self) -> Voxel | None:
        try:
            sides = self._image.physical_pixel_sizes
            return check_voxel((sides.Z, sides.Y, sides.X))
        except Exception:  # not told, or not in a way that can be used
            return None

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self._path}: is damaged or not readable ({one_line(error)[:80]}): copy it again")


def _opened(path: Path) -> Any:
    """What bioio makes of a file."""
    kind = _READERS[path.suffix.lower()]
    install = "pip install 'lightning-cells[bioio]'"
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError:
        raise InputError(f"{path}: is {kind}, which bioio reads, and that is not installed: {install}") from None
    logger = logging.getLogger("bioio")
    before = logger.level
    logger.setLevel(logging.CRITICAL)  # ours names a broken file in one line
    try:
        return BioImage(path)
    except UnsupportedFileFormatError:
        raise InputError(
            f"{path}: is damaged, or bioio's reader of {kind} is not installed: copy it again, or {install}"
        ) from None
    except Exception as error:  # each reader has errors of its own
        raise InputError(f"{path}: is damaged or not readable ({one_line(error)[:80]}): copy it again") from None
    finally:
        logger.setLevel(before)
