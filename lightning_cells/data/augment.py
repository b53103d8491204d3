"""Random changes of a clip: one geometry for all its frames, and a pure function of a seed.

The only module that knows albumentations, which it imports where a user adds transforms of its.
"""

import copy
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from lightning_cells.data import deformation
from lightning_cells.data.crop import Place, read_clip
from lightning_cells.data.intensity import GROUND, smooth_labels
from lightning_cells.data.sampling import Point
from lightning_cells.errors import InputError

if TYPE_CHECKING:  # a second of imports that most trainings, and all of `track`, do without
    from albumentations import BasicTransform

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it must not ask the network for a newer version

STREAM = 1  # keeps our draws apart from those of a caller who seeds a generator with the same number


@dataclass(frozen=True)
class Augmentation:
    """What may change, and by how much; the defaults crop, flip and turn (Arbelle & Riklin Raviv 2019).

    Numbers are drawn uniformly in their range, once per clip unless said otherwise.

    Payer et al. 2019, section 3.1: ``rotation=180, scale=(.75, 1.25), stretch=(.75, 1.25), elastic=10,
    intensity_scale=(.35, 1.65), intensity_shift=.65``. "B-splines with 2 control points and standard deviation
    equal to 15" (bright-field nuclei, MIDL 2019) are ``elastic=15, elastic_grid=5, elastic_distribution=normal``
    if the 2 counts segments, as it does in V-Net's code, whose defaults are the same two numbers.

    Attributes:
        crop: side of the square crop in pixels; None takes whole frames.
        translation: largest shift, in pixels along each axis, of a crop that is centred on a pixel (`crop_centre`);
            it stays within the frame.
        flip: mirror either axis with probability 1/2.
        rot90: turn by a multiple of 90 degrees; whole frames that are not square turn by 180.
        rotation: largest angle in degrees, either way.
        scale: range of the factor by which cells grow.
        stretch: range of a further factor, drawn for each axis.
        elastic: displacement of the control points in pixels of the crop: half-width ("uniform") or standard
            deviation ("normal"); 0 for none.
        elastic_grid: control points per axis of the cubic B-spline: segments plus 3, so at least 4.
        elastic_distribution: of the displacements.
        elastic_times: control points over a clip, at least 4: the displacement changes from frame to frame; 1 keeps it.
        overhang: how far a crop may reach beyond the frame, as a part of the frame's sides: frames are mirrored there,
            and labels unknown.
        unknown_border: width of the frame's margin, in pixels, whose background counts as unknown: truth of the Cell
            Tracking Challenge leaves out cells there (its field of interest, see `Decoder.border`).
        label_smoothing: standard deviation by which outlines of cells are smoothed, in pixels of the crop
            (`data.intensity.smooth_labels`).
        intensity_scale: range of the factor on normalised intensities.
        intensity_shift: largest amount added before scaling, either way.
        gamma: range of the exponent on intensities, with the clip's minimum and maximum as 0 and 1.
        frame_jitter: largest further shift, and relative change of scale, of each frame by itself.
        noise: largest standard deviation of Gaussian noise.
        blur: largest standard deviation of a Gaussian blur, in pixels.
        shading: largest standard deviation of the logarithm of a smooth factor on what lies above the background, the
            same in all frames: cells that are all alike come out dim beside bright.
        shading_grid: points per axis that the factor is drawn at; in between it is smooth.

    Raises:
        InputError: if a value is out of range.
    """

    crop: int | None = 128
    translation: int = 0
    flip: bool = True
    rot90: bool = True
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: tuple[float, float] = (1.0, 1.0)
    elastic: float = 0.0
    elastic_grid: int = 6
    elastic_distribution: deformation.Distribution = "uniform"
    elastic_times: int = 1
    overhang: float = 0.0
    unknown_border: int = 0
    label_smoothing: float = 0.0
    intensity_scale: tuple[float, float] = (1.0, 1.0)
    intensity_shift: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    frame_jitter: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    shading: float = 0.0
    shading_grid: int = 5

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 1:
            raise InputError(f"data.augmentation.crop={self.crop}: must be at least 1 pixel, or null for whole frames")
        for name in ("scale", "stretch", "intensity_scale", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"data.augmentation.{name}=[{low}, {high}]: must be [low, high], 0 < low <= high")
        for name in (
            "translation",
            "rotation",
            "elastic",
            "overhang",
            "unknown_border",
            "label_smoothing",
            "intensity_shift",
            "frame_jitter",
            "noise",
            "blur",
            "shading",
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"data.augmentation.{name}={getattr(self, name)}: must be 0 or more")
        if self.elastic_grid < 4:
            raise InputError(f"data.augmentation.elastic_grid={self.elastic_grid}: must be 4 or more (cubic spline)")
        if self.elastic_times != 1 and self.elastic_times < 4:
            raise InputError(f"data.augmentation.elastic_times={self.elastic_times}: must be 1, or 4 or more")
        if self.shading_grid < 2:
            raise InputError(f"data.augmentation.shading_grid={self.shading_grid}: must be 2 or more")


class ClipAugmentation:
    """Cuts a clip out of a sequence and changes it at random, the same way in all its frames.

    Crop, flips, turns, rotation, scale and spline are composed into one map; only the part of the frames that
    this map needs is read, and each frame is interpolated once.

    Args:
        settings: what to change.
        transforms: further albumentations transforms, copied, then applied to the crop as ``images``, ``masks``
            (instance labels) and ``classes``, before intensities change. The clip's minimum and maximum are 0 and 1
            to them; geometry should have ``fill_mask=-1``.
    """

    def __init__(self, settings: Augmentation, transforms: Sequence["BasicTransform"] = ()) -> None:
        self.settings = settings
        self._transforms = _composed(transforms) if transforms else None

    def __call__(
        self,
        frames: np.ndarray,
        labels: np.ndarray | None,
        classes: np.ndarray | None,
        indices: Sequence[int],
        centre: Point | None,
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Returns one clip, a pure function of the arguments.

        Args:
            frames: (T, H, W) float16 or float32, normalised; may be memory-mapped.
            labels: (T, H, W) int32 in the label convention, or None.
            classes: (T, H, W) int8 semantic classes, or None.
            indices: the frames to take, in this order.
            centre: row and column at the middle of the crop before it is deformed; the crop moves inwards as far
                as it must to lie within the frame. None draws its place uniformly. A frame smaller than the crop
                lies somewhere within it.
            seed: decides every draw; not negative.

        Returns:
            (t, h, w) float32 frames, int32 labels and int8 classes, contiguous; what was None is None. Beyond
            the image, frames are mirrored, labels and classes are -1.
        """
        rng = np.random.default_rng((seed, STREAM))
        python_rng = random.Random(seed)
        size = (int(frames.shape[1]), int(frames.shape[2]))
        place = self._draw_place(size, len(indices), centre, rng, python_rng)
        clip, labels, classes = read_clip(place, indices, frames, labels, classes, self.settings.unknown_border)
        if self._transforms is not None:
            # One generator for all: `set_random_seed` would give each transform its own copy of the same stream.
            self._transforms.set_random_state(rng, python_rng)
            clip, labels, classes = _transformed(self._transforms, clip, labels, classes)
        if labels is not None:
            labels = smooth_labels(labels, self.settings.label_smoothing)
        return _vary_intensity(clip, self.settings, rng), labels, classes

    def _draw_place(
        self,
        size: tuple[int, int],
        frames: int,
        centre: Point | None,
        rng: np.random.Generator,
        python_rng: random.Random,
    ) -> Place:
        """Draws crop, flips, turns, rotation, scale and spline."""
        settings = self.settings
        shape = size if settings.crop is None else (settings.crop, settings.crop)
        if centre is not None and settings.translation:
            shift = rng.integers(-settings.translation, settings.translation, size=2, endpoint=True)
            centre = (centre[0] + shift[0], centre[1] + shift[1])
        origin = []
        for axis in range(2):
            room, over = size[axis] - shape[axis], round(settings.overhang * size[axis])
            low, high = min(room, 0) - over, max(room, 0) + over
            if centre is None:
                origin.append(int(rng.integers(low, high + 1)))
            else:
                origin.append(min(max(round(centre[axis]) - shape[axis] // 2, low), high))
        angle = rng.uniform(-settings.rotation, settings.rotation)
        factors = rng.uniform(*settings.scale) * rng.uniform(*settings.stretch, size=2)
        matrix = deformation.linear_part(angle, (factors[0], factors[1])) @ self._draw_symmetry(shape, python_rng)
        fields: list[np.ndarray | None] = [None]
        spline = (settings.elastic_grid, rng, settings.elastic, settings.elastic_distribution)
        if settings.elastic > 0 and settings.elastic_times > 1:
            fields = [*deformation.spline_fields(frames, shape, settings.elastic_times, *spline)]
        elif settings.elastic > 0:
            fields = [deformation.spline_field(shape, *spline)]
        return Place(shape, (origin[0], origin[1]), matrix, fields)

    def _draw_symmetry(self, shape: tuple[int, int], rng: random.Random) -> np.ndarray:
        """Draws flips and turns as a (2, 2) signed permutation of rows and columns.

        The draws are those of albumentations' `Compose` of `HorizontalFlip`, `VerticalFlip` and `RandomRotate90`, which
        made them in earlier versions: a seed still gives the same clip.
        """
        rng.random()  # whether to compose at all
        across = -1 if self.settings.flip and rng.random() < 0.5 else 1
        down = -1 if self.settings.flip and rng.random() < 0.5 else 1
        rows = [[down, 0], [0, across]]
        if self.settings.rot90:
            turns = rng.randint(0, 3)
            if shape[0] != shape[1]:
                turns = turns // 2 * 2  # a half turn keeps the shape
            for _ in range(turns):
                (a, b), (c, d) = rows
                rows = [[-b, a], [-d, c]]
        return np.array(rows)


def _composed(transforms: Sequence["BasicTransform"]) -> Any:
    """Albumentations' transforms as one."""
    import albumentations as A

    return A.Compose(
        copy.deepcopy(list(transforms)), additional_targets={"classes": "masks"}, mask_interpolation=cv2.INTER_NEAREST
    )


def _transformed(
    transforms: Any, clip: np.ndarray, labels: np.ndarray | None, classes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Applies what albumentations shall do besides; what it does to intensities ends in [0, 1]."""
    low = clip.min()
    span = (clip.max() - low) or np.float32(1)
    changed = transforms(images=(clip - low) / span, masks=labels, classes=classes)
    return changed["images"] * span + low, changed["masks"], changed["classes"]


def _vary_intensity(clip: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Changes intensities of a (T, H, W) float32 clip in place; albumentations would clip them to [0, 1]."""
    gamma = rng.uniform(*settings.gamma)
    if gamma != 1 and (span := clip.max() - (low := clip.min())) > 0:
        clip -= low
        clip *= 1 / span
        np.power(clip, np.float32(gamma), out=clip)
        clip *= span
        clip += low
    if settings.shading > 0:
        ground = np.quantile(clip, GROUND)
        clip -= ground
        clip *= _shade(clip.shape[1:], settings, rng)
        clip += ground
    sigma = rng.uniform(0, settings.blur)
    if sigma > 0:
        for frame in clip:
            cv2.GaussianBlur(frame, (0, 0), sigma, dst=frame, borderType=cv2.BORDER_REFLECT_101)
    shift = rng.uniform(-settings.intensity_shift, settings.intensity_shift)
    scale = rng.uniform(*settings.intensity_scale)
    shifts, scales = rng.uniform(-settings.frame_jitter, settings.frame_jitter, size=(2, len(clip), 1, 1))
    factor = scale * (1 + scales)
    offset = (shift * scale + shifts) * (1 + scales)
    if (factor != 1).any() or (offset != 0).any():
        clip *= factor.astype(np.float32)
        clip += offset.astype(np.float32)
    if settings.noise > 0:
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))  # torch's normals cost a third of numpy's
        torch.from_numpy(clip).add_(torch.randn(clip.shape, generator=generator), alpha=rng.uniform(0, settings.noise))
    return clip


def _shade(shape: tuple[int, ...], settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """A smooth factor, float32 (H, W), whose logarithm varies about 0."""
    points = rng.normal(0, rng.uniform(0, settings.shading), (settings.shading_grid,) * 2)
    return np.exp(cv2.resize(points.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC))
