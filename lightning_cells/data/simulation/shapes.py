"""From a population to pixels: which cell owns which pixel, and exact labels with their parents."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from skimage.measure import label as connected

from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.data.simulation.population import Population
from lightning_cells.errors import InputError

SMALLEST = 10  # pixels; a cell of which less is in view is not labelled
RIM = 8  # pixels around the field that are drawn and cut off: blur brings light from there into view


class SimulatedFrame(NamedTuple):
    """One frame with its truth, a plane (H, W) or a volume (Z, H, W).

    Attributes:
        image: uint16.
        labels: int32 instance labels, 0 background.
        parents: labels that appear in this frame as daughters -> label of the mother.
        classes: uint8 semantic classes, or None.
    """

    image: np.ndarray
    labels: np.ndarray
    parents: dict[int, int]
    classes: np.ndarray | None = None


class Pixels(NamedTuple):
    """The pixels that cells cover, each owned by one cell; all arrays are (M,).

    Attributes:
        place: flat index into the canvas.
        cell: row of the population's array.
        rho: distance from the cell's centre relative to its outline, 0..1.
        u: coordinate along the cell's own first axis, -1..1.
        v: coordinate along its second axis, -1..1. (u, v) move, turn and deform with the cell.
        distance: distance from the cell's centre in pixels.
    """

    place: np.ndarray
    cell: np.ndarray
    rho: np.ndarray
    u: np.ndarray
    v: np.ndarray
    distance: np.ndarray


class Voxels(NamedTuple):
    """The voxels that cells cover, each owned by one cell; all arrays are (M,).

    Attributes:
        place: flat index into the canvas.
        cell: row of the population's array.
        u: coordinate along the cell's own first axis, -1..1.
        v: coordinate along its second axis, -1..1.
        w: coordinate along its third axis, -1..1. (u, v, w) move, turn and deform with the cell.
    """

    place: np.ndarray
    cell: np.ndarray
    u: np.ndarray
    v: np.ndarray
    w: np.ndarray


Covered = TypeVar("Covered", Pixels, Voxels)


def canvas_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size of the canvas on which a field of `size` pixels is drawn: the field and its `RIM`."""
    return size[0] + 2 * RIM, size[1] + 2 * RIM


def field_of(canvas: np.ndarray) -> np.ndarray:
    """Returns the field of view, (..., H, W), of a canvas."""
    return canvas[..., RIM:-RIM, RIM:-RIM]


def rasterise(population: Population, canvas: tuple[int, int]) -> Pixels:
    """Gives each covered pixel of the canvas to the cell in which it lies deepest.

    Args:
        population: the cells, at positions in the field.
        canvas: size of the canvas in pixels.
    """
    cells = population.cells
    half = int(np.ceil(population.extent())) + 1
    offsets = np.arange(-half, half + 1)
    position = cells["position"] + RIM
    centre = np.rint(position).astype(int)
    seen = np.flatnonzero(((centre >= -half) & (centre < np.asarray(canvas) + half)).all(axis=1))
    rows, cols = (centre[seen, axis, None] + offsets for axis in (0, 1))
    dy = (rows - position[seen, 0, None])[:, :, None]
    dx = (cols - position[seen, 1, None])[:, None, :]
    angle = np.arctan2(dy, dx) - cells["angle"][seen, None, None]
    distance = np.hypot(dy, dx)
    rho = distance / population.reach(seen, angle)
    inside = (rho < 1) & ((rows >= 0) & (rows < canvas[0]))[:, :, None] & ((cols >= 0) & (cols < canvas[1]))[:, None, :]
    which, i, j = np.nonzero(inside)
    place = rows[which, i] * canvas[1] + cols[which, j]
    rho, angle, distance = rho[inside], angle[inside], distance[inside]
    # later assignments win, so the deepest comes last
    order = np.argsort(-rho, kind="stable")
    owner = np.full(canvas[0] * canvas[1], -1)
    owner[place[order]] = order
    kept = owner[owner >= 0]
    rho, angle = rho[kept], angle[kept]
    u, v = rho * np.cos(angle), rho * np.sin(angle)
    return Pixels(place[kept], seen[which[kept]], rho, u, v, distance[kept])


def spread(pixels: Pixels | Voxels, values: np.ndarray, canvas: tuple[int, ...]) -> np.ndarray:
    """Puts one value per pixel, (M,), onto a canvas of zeros."""
    image = np.zeros(math.prod(canvas), values.dtype)
    image[pixels.place] = values
    return image.reshape(canvas)


def labelled_frames(
    population: Population, frames: int, canvas: tuple[int, int]
) -> Iterator[tuple[Pixels, np.ndarray, dict[int, int]]]:
    """`lives` in a plane: the cells are drawn by `rasterise`."""
    return lives(population, frames, canvas, partial(rasterise, population, canvas))


def lives(
    population: Population,
    frames: int,
    canvas: tuple[int, ...],
    covered: Callable[[], Covered],
    smallest: int = SMALLEST,
) -> Iterator[tuple[Covered, np.ndarray, dict[int, int]]]:
    """Lets a population live, and labels its cells frame by frame; a label never returns once it has gone.

    Cells with less than `smallest` pixels in view get no label; one that comes back gets a new label.

    Args:
        population: the cells; their ``label`` is updated.
        frames: number of frames.
        canvas: size of the canvas in pixels.
        covered: says which pixels the cells cover as they are now.
        smallest: pixels.

    Yields:
        Which cell owns which pixel, (..., H, W) int32 labels of the field, and the parents of the labels born in this
        frame.

    Raises:
        InputError: if the labels no longer fit 16 bits.
    """
    used = 0
    for frame in range(frames):
        if frame:
            population.step()
        cells = population.cells
        pixels = covered()
        owner = largest_parts(field_of(spread(pixels, pixels.cell + 1, canvas).astype(np.int32)))
        visible = np.bincount(owner.ravel(), minlength=len(cells) + 1)[1:] >= smallest
        parents: dict[int, int] = {}
        cells["label"][~visible] = 0
        for row in np.flatnonzero(visible & (cells["label"] == 0)):
            used += 1
            cells["label"][row] = used
            if cells["mother"][row]:
                parents[used] = int(cells["mother"][row])
        check_labels(used)
        yield pixels, np.concatenate([[0], cells["label"]]).astype(np.int32)[owner], parents


def largest_parts(labels: np.ndarray) -> np.ndarray:
    """Keeps of each label its largest part, of pixels that share a side.

    Args:
        labels: (..., H, W) int32 labels, 0 background.

    Returns:
        (..., H, W) int32.
    """
    parts, count = connected(labels, connectivity=1, return_num=True)
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    value = np.zeros(count + 1, labels.dtype)
    value[parts.ravel()] = labels.ravel()
    order = np.lexsort((areas, value))
    last = np.append(value[order][1:] != value[order][:-1], True)
    keep = np.zeros(count + 1, bool)
    keep[order[last]] = True
    return np.where(keep[parts], labels, 0).astype(np.int32)


def check_labels(highest: int) -> None:
    """Raises InputError if `highest` does not fit the 16 bits of a mask."""
    if highest > MAX_LABEL:
        raise InputError(
            f"simulate: more than {MAX_LABEL} labels in one sequence, which 16-bit masks cannot hold: "
            "ask for fewer frames, fewer cells or a smaller size"
        )


class TextureBank:
    """Random textures that cells carry along.

    Args:
        textures: (K, M, M) values over (v, u) in [-1, 1].
    """

    def __init__(self, textures: np.ndarray) -> None:
        self.textures = textures.astype(np.float32)

    def sample(self, texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Looks textures up with bilinear interpolation.

        Args:
            texture: (M,) any non-negative integers, the same for all pixels of a cell.
            u: (M,) first own coordinate, -1..1.
            v: (M,) second own coordinate, -1..1.

        Returns:
            (M,) float64.
        """
        count, side, _ = self.textures.shape
        scale = (side - 1) / 2
        x, y = (np.clip((w + 1) * scale, 0, side - 1.001) for w in (u, v))
        i, j = y.astype(int), x.astype(int)
        fy, fx = y - i, x - j
        layer = texture % count
        top = self.textures[layer, i, j] * (1 - fx) + self.textures[layer, i, j + 1] * fx
        bottom = self.textures[layer, i + 1, j] * (1 - fx) + self.textures[layer, i + 1, j + 1] * fx
        return top * (1 - fy) + bottom * fy


def speckle(rng: np.random.Generator, count: int, side: int, sigma: float) -> np.ndarray:
    """Random textures with structure of one size.

    Args:
        rng: source of randomness.
        count: number of textures.
        side: pixels of a side.
        sigma: blur of white noise, in pixels of the texture.

    Returns:
        (count, side, side) float64, each of zero mean and unit variance.
    """
    noise = rng.standard_normal((count, side, side))
    noise = np.stack([cv2.GaussianBlur(layer, (0, 0), sigma) for layer in noise])
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    return noise / noise.std(axis=(1, 2), keepdims=True)
