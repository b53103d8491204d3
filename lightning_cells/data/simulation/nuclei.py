"""Simulated fluorescent nuclei: dense, dividing, of unequal brightness, under uneven light and haze."""

from collections.abc import Iterator

import cv2
import numpy as np

from lightning_cells.data.simulation.optics import blur, camera, haze, illumination, smooth_field
from lightning_cells.data.simulation.population import DEATH, Biology, Population
from lightning_cells.data.simulation.shapes import (
    Pixels,
    SimulatedFrame,
    TextureBank,
    canvas_size,
    field_of,
    labelled_frames,
    speckle,
    spread,
)

NUCLEI = Biology(
    radius=8.0,
    spread=0.1,
    roughness=0.09,
    speed=0.9,
    period=32.0,
    death=0.003,
    squeeze=0.03,
    adhesion=0.1,
    clump=1.3,
    crowding=0.6,
)
AREA_PER_CELL = 128 * 128 / 14  # pixels of the field per starting nucleus


def nuclei(rng: np.random.Generator, frames: int, size: tuple[int, int], cells: int | None) -> Iterator[SimulatedFrame]:
    """Simulates one video of nuclei with a fluorescent DNA stain.

    Args:
        rng: source of randomness.
        frames: number of frames.
        size: (H, W) in pixels.
        cells: nuclei that start in the field; None for one per `AREA_PER_CELL` pixels.

    Yields:
        Frames in order of time; a longer video starts with the same frames.
    """
    cells = cells or max(1, round(size[0] * size[1] / AREA_PER_CELL))
    population = Population(rng, size, cells, NUCLEI)
    canvas = canvas_size(size)
    bank = TextureBank(chromatin(rng))
    light = illumination(rng, size, depth=rng.uniform(0.35, 0.5))
    clouds = np.exp(0.5 * smooth_field(rng, size, 40.0))  # light from cells and medium far below the focus
    photons = rng.uniform(80, 130)
    sharp = rng.uniform(0.8, 1.0)
    for pixels, truth, parents in labelled_frames(population, frames, canvas):
        specimen = _specimen(population, pixels, bank, canvas, sharp)
        glow = field_of(haze(specimen, strength=0.12, sigma=10.0)) + 0.06 * clouds
        lamp = 1 + 0.03 * rng.standard_normal()
        image = camera(rng, photons * lamp * light * glow + 2, gain=4.0, offset=300.0, read_noise=8.0)
        yield SimulatedFrame(image, truth, parents)


def _specimen(
    population: Population, pixels: Pixels, bank: TextureBank, canvas: tuple[int, int], sharp: float
) -> np.ndarray:
    """Light of the nuclei through the objective on the canvas; a nucleus of middling brightness has about 1."""
    cells = population.cells
    character = cells["character"]
    brightness = brightness_of(population)
    contrast = 0.22 + 0.05 * character[:, 1] + 0.2 * population.mitosis()

    who = pixels.cell
    mottle = bank.sample(cells["texture"][who], pixels.u, pixels.v)
    dome = 0.4 + 0.6 * np.sqrt(np.maximum(1 - pixels.rho**2, 0))  # a flattened ellipsoid is thinner at its rim
    value = brightness[who] * dome * np.exp(contrast[who] * mottle)
    # nuclei do not lie at one height: some are a little out of focus
    defocus = np.clip(0.8 * np.abs(character[who, 2]) - 0.5, 0, 0.7)
    focal, blurred = (spread(pixels, value * part, canvas) for part in (1 - defocus, defocus))
    return blur(focal, sharp) + blur(blurred, 2.2 * sharp)


def brightness_of(population: Population) -> np.ndarray:
    """Returns (N,) light of nuclei, about 1: they differ, and are brighter when they divide and when they die."""
    cells = population.cells
    brightness = np.exp(np.clip(0.4 * cells["character"][:, 0], -0.7, 0.8))
    brightness *= (1 + 0.8 * population.mitosis()) * (1 + 0.6 * population.newborn())
    dead = np.clip(cells["dying"], 0, None) / DEATH
    brightness *= np.minimum(1 + 2 * dead, 3.4 - 3.3 * dead).clip(0.4)  # condenses, then fades
    return brightness


def chromatin(rng: np.random.Generator, count: int = 64, side: int = 25) -> np.ndarray:
    """Textures (count, side, side): fine mottle, bright spots and dark nucleoli."""
    mottle = 0.7 * speckle(rng, count, side, 1.3) + 0.5 * speckle(rng, count, side, 3.0)
    for layer in mottle:
        for strength, many, width in ((2.2, rng.integers(0, 5), 1.2), (-2.5, rng.integers(1, 4), 1.9)):
            dots = np.zeros((side, side))
            where = rng.uniform(0.25, 0.75, (many, 2)) * side
            dots[where[:, 0].astype(int), where[:, 1].astype(int)] = 1
            layer += strength * cv2.GaussianBlur(dots, (0, 0), width) * 2 * np.pi * width**2
    return mottle
