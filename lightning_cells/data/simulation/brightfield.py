"""Simulated bright-field video of adherent cells with nucleus and cytoplasm.

Unstained cells absorb next to nothing; what is seen slightly out of focus is the curvature of their optical thickness
(transport-of-intensity equation, M. R. Teague, J. Opt. Soc. Am. 73 (1983), eq. 5): bright where they focus light,
dark where they spread it. Hence rims and halos at borders and a granular cytoplasm around a smoother nucleus.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from lightning_cells.data.simulation.optics import blur, camera, illumination, smooth_field
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
from lightning_cells.data.targets import CYTOPLASM, NUCLEUS

HELA = Biology(
    radius=13.5,
    spread=0.1,
    roughness=0.13,
    speed=0.5,
    period=40.0,
    death=0.001,
    squeeze=0.18,
    adhesion=0.2,
    clump=3.0,
    crowding=0.85,
)
AREA_PER_CELL = 128 * 128 / 17  # pixels of the field per starting cell


def brightfield(
    rng: np.random.Generator, frames: int, size: tuple[int, int], cells: int | None
) -> Iterator[SimulatedFrame]:
    """Simulates one bright-field video of adherent cells.

    Args:
        rng: source of randomness.
        frames: number of frames.
        size: (H, W) in pixels.
        cells: cells that start in the field; None for one per `AREA_PER_CELL` pixels.

    Yields:
        Frames in order of time, with classes 0 background, 1 nucleus, 2 cytoplasm; a longer video starts with the
        same frames.
    """
    cells = cells or max(1, round(size[0] * size[1] / AREA_PER_CELL))
    population = Population(rng, size, cells, HELA)
    canvas = canvas_size(size)
    granules = TextureBank(speckle(rng, 48, 41, 1.1))
    nucleoli = TextureBank(_nucleoli(rng))
    light = illumination(rng, size, depth=0.15) * (1 + 0.01 * smooth_field(rng, size, 30.0)) * _dust(rng, size)
    defocus = rng.uniform(0.8, 1.2)
    for pixels, truth, parents in labelled_frames(population, frames, canvas):
        thickness, nucleus = _thickness(population, pixels, granules, nucleoli, canvas)
        classes = np.where(truth > 0, np.where(field_of(nucleus), NUCLEUS, CYTOPLASM), 0).astype(np.uint8)
        lamp = 1 + 0.005 * rng.standard_normal()
        photons = 5000 * lamp * light * field_of(_transmitted(thickness, defocus))
        yield SimulatedFrame(camera(rng, photons, 6.0, 300.0, 40.0), truth, parents, classes)


def _thickness(
    population: Population,
    pixels: Pixels,
    granules: TextureBank,
    nucleoli: TextureBank,
    canvas: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Optical thickness on the canvas, about 0.7 in the middle of a cell, and a mask of the nuclei."""
    cells = population.cells
    who, rho = pixels.cell, pixels.rho
    mitosis = np.maximum(population.mitosis(), 0.6 * population.newborn())
    dead = np.clip(cells["dying"], 0, None) / DEATH
    rounded = np.maximum(mitosis, dead)[who]

    # the nucleus is an ellipse a bit beside the middle: it turns with the cell, but keeps its shape
    character = cells["character"]
    shift = np.clip(0.09 * character[who, :2], -0.16, 0.16)
    extent = (1 - 0.3 * rounded)[:, None] * (0.5 + np.clip(0.035 * character[who, 2:], -0.07, 0.07))
    stretch = pixels.distance / (population.radius()[who] * np.maximum(rho, 1e-9))
    own = (np.stack([pixels.u, pixels.v], 1) * stretch[:, None] - shift) / extent
    depth = np.hypot(own[:, 0], own[:, 1])
    inside = (depth < 1) & (rho < 0.9)

    # spread cells are flat with a thick middle, dividing and dying ones are balls
    flat = 0.3 * (1 - rho**6) + 0.35 * np.exp(-((rho / 0.6) ** 2))
    thick = flat * (1 - rounded) + 1.5 * rounded * np.sqrt(np.maximum(1 - rho**2, 0))
    grain = granules.sample(cells["texture"][who], pixels.u, pixels.v)
    spots = nucleoli.sample(cells["texture"][who] // 64, *np.clip(own, -1, 1).T)
    bump = 0.28 * np.sqrt(np.maximum(1 - depth**2, 0)) * (1 - rounded) + (0.22 + 0.3 * rounded) * spots * inside
    rough = np.where(inside, 0.012, 0.07 * (1 - rho**4)) * (1 + rounded)
    value = thick + bump + rough * grain

    return spread(pixels, value, canvas), spread(pixels, inside, canvas)


def _transmitted(thickness: np.ndarray, defocus: float) -> np.ndarray:
    """Light that passes, 1 where there is nothing."""
    near, far = blur(thickness, 0.9), blur(thickness, 2.2)
    fine, coarse = (cv2.Laplacian(t, cv2.CV_64F, borderType=cv2.BORDER_REFLECT) for t in (near, far))
    curved = -defocus * (0.9 * fine + 2.2 * coarse)
    # light cannot fall below none, and strong lenses saturate
    return np.exp(np.tanh(curved) * 0.8 - 0.05 * near)


def _nucleoli(rng: np.random.Generator, count: int = 48, side: int = 21) -> np.ndarray:
    """Textures (count, side, side) with one to three round bumps of height 1 on 0."""
    spots = np.zeros((count, side, side))
    rows, cols = np.mgrid[:side, :side]
    for layer in spots:
        for _ in range(rng.integers(1, 4)):
            y, x = side / 2 + rng.uniform(-0.25, 0.25, 2) * side
            width = rng.uniform(1.3, 2.0)
            np.maximum(layer, np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * width**2)), out=layer)
    return spots


def _dust(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Faint shadows (H, W) of dust that lies far out of focus and does not move."""
    shadow = np.zeros(size)
    for _ in range(rng.poisson(size[0] * size[1] / 9000)):
        centre = (int(rng.integers(0, size[1])), int(rng.integers(0, size[0])))
        radius = int(rng.integers(3, 9))
        cv2.circle(shadow, centre, radius, float(rng.uniform(0.02, 0.06)), 1 if rng.random() < 0.5 else -1)
    return 1 - blur(shadow, 1.5)
