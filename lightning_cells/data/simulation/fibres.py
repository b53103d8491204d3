"""Simulated sections through muscle: polygonal fibres packed wall to wall, one unrelated image per frame.

Most frames look like haematoxylin and eosin (grey fibres, light walls, dark nuclei at the rim), some like a
fluorescent stain of the walls.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from lightning_cells.data.simulation.optics import blur, camera, haze, illumination, smooth_field
from lightning_cells.data.simulation.shapes import SMALLEST, SimulatedFrame, check_labels, largest_parts

AREA_PER_FIBRE = 128 * 128 / 45  # pixels
STAINED_WALLS = 0.3  # part of the frames with a bright stain of the walls
RIVALS = 6  # neighbours that can shape a fibre's outline at one pixel
CORNER = 0.7  # pixels; rounds the corners of the polygons


class Section(NamedTuple):
    """Geometry of one section.

    Attributes:
        fibre: (H, W) number of the fibre whose territory a pixel is in.
        depth: (H, W) distance to the fibre's outline in pixels, positive inside.
        lumen: (H, W) bool, territory of a vessel instead of a fibre.
        tone: (H, W) standard normal number of the territory.
    """

    fibre: np.ndarray
    depth: np.ndarray
    lumen: np.ndarray
    tone: np.ndarray


def fibres(rng: np.random.Generator, frames: int, size: tuple[int, int], cells: int | None) -> Iterator[SimulatedFrame]:
    """Simulates sections through muscle.

    Args:
        rng: source of randomness.
        frames: number of images.
        size: (H, W) in pixels.
        cells: about how many fibres an image shows; None for one per `AREA_PER_FIBRE` pixels.

    Yields:
        Images; no label occurs in two of them, for they show different fibres. Walls are background.

    Raises:
        InputError: if the labels do not fit 16 bits.
    """
    area = size[0] * size[1] / cells if cells else AREA_PER_FIBRE
    used = 0
    for _ in range(frames):
        section = _section(rng, size, np.sqrt(area))
        image = _wall_stain(rng, section) if rng.random() < STAINED_WALLS else _eosin(rng, section)
        labels = np.where((section.depth > 0) & ~section.lumen, section.fibre + 1, 0)
        labels = largest_parts(labels.astype(np.int32))
        kept = np.bincount(labels.ravel()) >= SMALLEST
        kept[0] = False
        number = np.where(kept, used + np.cumsum(kept), 0)
        used += int(kept.sum())
        check_labels(used)
        yield SimulatedFrame(image, number[labels].astype(np.int32), {})


def _section(rng: np.random.Generator, size: tuple[int, int], spacing: float) -> Section:
    """Power diagram of a jittered hexagonal lattice, with walls between its polygons."""
    # lattice in a disc that holds the image however it is turned and stretched
    reach = int(np.ceil(0.75 * np.hypot(*size) / spacing)) + 3
    row, column = (index.ravel() for index in np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float))
    seeds = np.stack([row * 0.93, (column + 0.5 * (row % 2)) * 1.075], 1)
    seeds = spacing * (seeds + rng.uniform(-0.3, 0.3, seeds.shape))
    n = len(seeds)
    weight = spacing**2 * 0.12 * rng.standard_normal(n).clip(-2, 2)
    bundle = cKDTree(rng.uniform(-1, 1, (max(2, n // 40), 2)) * reach * spacing).query(seeds)[1]

    # the image's pixels in the lattice: turned, stretched (an oblique cut), slightly bent
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.25)
    bend = 0.09 * spacing
    rows = np.arange(size[0])[:, None] - size[0] / 2 + bend * smooth_field(rng, size, 0.7 * spacing)
    columns = np.arange(size[1])[None, :] - size[1] / 2 + bend * smooth_field(rng, size, 0.7 * spacing)
    along = (np.cos(turn) * rows + np.sin(turn) * columns) * stretch
    across = (np.cos(turn) * columns - np.sin(turn) * rows) / stretch
    points = np.stack([along.ravel(), across.ravel()], 1)

    distance, near = cKDTree(seeds).query(points, k=RIVALS)
    power = distance**2 - weight[near]
    order = power.argsort(axis=1)
    near, power = np.take_along_axis(near, order, 1), np.take_along_axis(power, order, 1)
    own, others = near[:, :1], near[:, 1:]
    between = np.linalg.norm(seeds[others] - seeds[own], axis=2)
    border = (power[:, 1:] - power[:, :1]) / (2 * between)
    # walls inside a bundle are thin, those between bundles thick
    thin = 0.3 + 0.3 * (rng.random(n)[own] + rng.random(n)[others])
    border -= np.where(bundle[own] == bundle[others], thin, 1.2 + thin + 0.06 * spacing)
    closest = border.min(axis=1, keepdims=True)
    soft = closest[:, 0] - CORNER * np.log(np.exp((closest - border) / CORNER).sum(axis=1))
    fibre = own[:, 0]
    lumen = rng.random(n) < 0.02
    tone = rng.standard_normal(n).clip(-2, 2)
    _, compact = np.unique(fibre, return_inverse=True)
    return Section(compact.reshape(size), soft.reshape(size), lumen[fibre].reshape(size), tone[fibre].reshape(size))


def _eosin(rng: np.random.Generator, section: Section) -> np.ndarray:
    """Bright-field image (H, W) uint16: grey fibres, lighter walls of varying contrast, dark nuclei."""
    size = section.depth.shape
    mottle = blur(rng.standard_normal(size), 1.0) * 3.5
    streaks = smooth_field(rng, size, 6.0)
    meat = 0.5 + 0.045 * section.tone + 0.015 * mottle + 0.012 * streaks
    contrast = np.clip(0.65 + 0.25 * smooth_field(rng, size, 30.0), 0.3, 1)
    wall = meat + contrast * (0.86 - meat) + 0.01 * mottle
    share = np.clip(0.5 - section.depth / 1.2, 0, 1)
    light = np.where(section.lumen, 0.93, meat * (1 - share) + wall * share)
    light -= 0.42 * _nuclei(rng, section) * np.clip(light - 0.15, 0, 1)
    light = blur(light, rng.uniform(0.6, 0.9)) * illumination(rng, size, rng.uniform(0.05, 0.2))
    return camera(rng, 3500 * light, gain=14.0, offset=200.0, read_noise=60.0)


def _wall_stain(rng: np.random.Generator, section: Section) -> np.ndarray:
    """Fluorescence image (H, W) uint16: walls bright and uneven, fibres dark."""
    size = section.depth.shape
    strength = np.exp(0.35 * smooth_field(rng, size, 12.0)).clip(0.45, 2)
    ridge = np.exp(-((np.minimum(section.depth, 0) + 0.3) ** 2) / 3) * (section.depth <= 0)
    ridge += np.exp(-((section.depth / 0.8) ** 2)) * (section.depth > 0)
    light = strength * (0.3 * (section.depth < 0) + ridge) * np.where(section.lumen, 0.35, 1)
    inside = (section.depth > 0) & ~section.lumen
    light += np.where(inside, 0.1 + 0.03 * section.tone, 0.03)
    light = haze(blur(light, rng.uniform(0.8, 1.1)), 0.25, 6.0)
    return camera(rng, 90 * light * illumination(rng, size, 0.35), gain=8.0, offset=400.0, read_noise=12.0)


def _nuclei(rng: np.random.Generator, section: Section) -> np.ndarray:
    """Small dark nuclei pressed against the outlines: (H, W) in 0..1."""
    size = section.depth.shape
    rim = np.flatnonzero((np.abs(section.depth - 0.5) < 1) & ~section.lumen)
    dots = np.zeros(size)
    if len(rim):
        dots.flat[rng.choice(rim, rng.poisson(0.012 * len(rim)))] = 1
    return np.clip(blur(dots, 1.1) * 9, 0, 1)
