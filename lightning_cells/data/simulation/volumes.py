"""Simulated volumes of fluorescent nuclei: each frame is a stack of planes, blurred most along the optical axis."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lightning_cells.data.simulation.ellipsoids import Ellipsoids
from lightning_cells.data.simulation.nuclei import brightness_of, chromatin
from lightning_cells.data.simulation.optics import blur, camera, haze, illumination
from lightning_cells.data.simulation.population import Biology
from lightning_cells.data.simulation.shapes import (
    SimulatedFrame,
    TextureBank,
    Voxels,
    canvas_size,
    field_of,
    lives,
    spread,
)
from lightning_cells.data.voxels import Voxel

NUCLEI = Biology(
    radius=11.0,
    spread=0.1,
    roughness=0.08,
    speed=1.2,
    period=24.0,
    death=0.002,
    squeeze=0.03,
    adhesion=0.1,
    clump=1.3,
    crowding=0.35,
)
ROOM_PER_CELL = 80 * 128 * 128 / 14  # cubic pixels of the field per starting nucleus
SMALLEST = 30  # voxels; a nucleus of which less is in view is not labelled
LENGTH = 3.0  # of the point spread function along the optical axis, in units of its width


def volumes(
    rng: np.random.Generator,
    frames: int,
    depth: int,
    size: tuple[int, int],
    voxel: Voxel,
    cells: int | None,
) -> Iterator[SimulatedFrame]:
    """Simulates one video of volumes with dividing nuclei.

    Args:
        rng: source of randomness.
        frames: number of frames.
        depth: planes of each.
        size: (H, W) of a plane in pixels.
        voxel: (z, y, x) of a voxel; what counts is the ratio to x, which is one pixel.
        cells: nuclei that start in the field; None for one per `ROOM_PER_CELL` cubic pixels, of a field as deep as a
            nucleus or deeper.

    Yields:
        Frames in order of time; a longer video starts with the same frames.
    """
    step, tall = voxel[0] / voxel[2], voxel[1] / voxel[2]
    field = (depth * step, size[0] * tall, float(size[1]))
    cells = cells or max(1, round(max(field[0], 2 * NUCLEI.radius) * field[1] * field[2] / ROOM_PER_CELL))
    population = Ellipsoids(rng, field, cells, NUCLEI)
    canvas = (depth, *canvas_size(size))
    bank = TextureBank(chromatin(rng))
    light = illumination(rng, size, depth=rng.uniform(0.3, 0.45))
    light = light * np.linspace(1, rng.uniform(0.65, 0.9), depth)[:, None, None]  # it is scattered on its way
    photons = rng.uniform(80, 130)
    sharp = rng.uniform(0.9, 1.1)
    covered = partial(population.covered, canvas, (step, tall, 1.0))
    for voxels, truth, parents in lives(population, frames, canvas, covered, SMALLEST):
        glow = _seen(spread(voxels, _stain(population, voxels, bank), canvas), step, sharp) + 0.06
        lamp = 1 + 0.03 * rng.standard_normal()
        image = camera(rng, photons * lamp * light * glow + 2, gain=4.0, offset=300.0, read_noise=8.0)
        yield SimulatedFrame(image, truth, parents)


def _stain(population: Ellipsoids, voxels: Voxels, bank: TextureBank) -> np.ndarray:
    """Light of each voxel, (M,): chromatin is mottled along all three axes."""
    who, texture = voxels.cell, population.cells["texture"][voxels.cell]
    contrast = 0.15 + 0.03 * population.cells["character"][:, 1] + 0.15 * population.mitosis()
    mottle = bank.sample(texture, voxels.u, voxels.v) + bank.sample(texture // 64, voxels.v, voxels.w)
    return brightness_of(population)[who] * np.exp(contrast[who] * mottle)


def _seen(specimen: np.ndarray, step: float, sharp: float) -> np.ndarray:
    """What the objective makes of a specimen on the canvas: light of the field, (Z, H, W).

    Args:
        specimen: its light.
        step: distance of planes in pixels.
        sharp: width of the point spread function in pixels.
    """
    along = gaussian_filter1d(specimen, LENGTH * sharp / step, axis=0, mode="constant")
    stray = gaussian_filter1d(specimen, 10.0 / step, axis=0, mode="constant")
    planes = [blur(near, sharp) + haze(far, 0.12, 10.0) - far for near, far in zip(along, stray, strict=True)]
    return field_of(np.stack(planes))
