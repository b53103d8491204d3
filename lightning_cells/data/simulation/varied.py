"""Simulated fluorescent cells of any look, for models that shall know cells they never saw.

Each video draws its own specimen and its own microscope from wide ranges, see `looks`: size, crowding, outline,
brightness, texture, focus, haze, debris, light, noise and camera.
"""

from collections.abc import Iterator
from copy import copy
from typing import Self

import cv2
import numpy as np
from scipy.special import ndtri

from lightning_cells.data.simulation.looks import Bodies, Microscope, Specimen
from lightning_cells.data.simulation.optics import blur, haze, illumination, smooth_field
from lightning_cells.data.simulation.population import DEATH, Population
from lightning_cells.data.simulation.shapes import (
    Pixels,
    SimulatedFrame,
    TextureBank,
    canvas_size,
    field_of,
    labelled_frames,
    rasterise,
    speckle,
    spread,
)
from lightning_cells.data.targets import BACKGROUND, CYTOPLASM, NUCLEUS

_EMPTY = 0.04  # part of the videos that show no cell
_ARMS = 4  # that a cell has at most


def varied(rng: np.random.Generator, frames: int, size: tuple[int, int], cells: int | None) -> Iterator[SimulatedFrame]:
    """Simulates one video of fluorescent cells, of a look of its own.

    Args:
        rng: source of randomness.
        frames: number of frames.
        size: (H, W) in pixels.
        cells: cells that start in the field; None draws the part of the field that they cover, and leaves some videos
            empty.

    Yields:
        Frames in order of time; a longer video starts with the same frames. Where cells are nuclei in faint bodies,
        frames have the classes 0 background, 1 nucleus, 2 cytoplasm.
    """
    specimen = Specimen.draw(rng)
    microscope = Microscope.draw(rng)
    biology = specimen.biology
    if cells is None:
        cells = max(1, round(specimen.coverage * size[0] * size[1] / (np.pi * (0.85 * biology.radius) ** 2)))
        if rng.random() < _EMPTY:
            cells = 0
    population = _Shaped(rng, size, cells, specimen)
    canvas = canvas_size(size)
    bank, holes = TextureBank(_mottle(rng, specimen)), TextureBank(_holes(rng, specimen))
    ghosts = _Ghosts(rng, canvas, specimen)
    light = illumination(rng, size, microscope.vignette)
    clouds = np.exp(0.5 * smooth_field(rng, size, 5 * biology.radius))
    ground = microscope.ground * (1 - microscope.clouds + microscope.clouds * clouds)
    sharp = microscope.sharp * biology.radius / 10
    for pixels, truth, parents in labelled_frames(population, frames, canvas):
        seen = _light_of(population, pixels, bank, holes, canvas, specimen, sharp)
        classes = None
        if specimen.bodies.light:
            around = _light_of_bodies(population, canvas, specimen.bodies)
            seen += around
            body = field_of(around) > 0.5 * specimen.bodies.light
            classes = np.where(truth > 0, NUCLEUS, np.where(body, CYTOPLASM, BACKGROUND)).astype(np.uint8)
        seen = haze(seen, microscope.haze, microscope.haze_width * biology.radius)
        seen = field_of(seen + ghosts.step(rng, sharp)) + ground
        lamp = 1 + microscope.flicker * rng.standard_normal()
        yield SimulatedFrame(microscope.take(rng, seen * light * lamp), truth, parents, classes)


class _Shaped(Population):
    """Cells that are longer than wide, or have arms; those about to divide and just born are round.

    Args:
        rng: as the others, see `Population`.
        size: of the field.
        cells: in it.
        specimen: how long they are, and their arms.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], cells: int, specimen: Specimen) -> None:
        self._elongation, self._size = specimen.elongation, 1.0
        self._arms, self._taper = specimen.arms, specimen.taper
        super().__init__(rng, size, cells, specimen.biology)

    def reach(self, index: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """See `Population.reach`."""
        cells = self.cells[index]
        calm = 1 - np.maximum(self.mitosis(), self.newborn())[index]
        more = (-1, *(1,) * (direction.ndim - 1))
        ratio = np.exp(self._elongation * calm * np.clip(cells["character"][:, 3], -2, 2)).reshape(more)
        outline = self._size / np.sqrt(np.cos(direction) ** 2 / ratio + np.sin(direction) ** 2 * ratio)
        if self._arms:
            for arm in range(_ARMS):
                bits = cells["texture"] >> (7 * arm)
                length = self._arms * calm * np.maximum((bits % 8) / 4 - 0.5, 0)
                where = 2 * np.pi * (bits // 8 % 16) / 16
                near = np.cos(direction - where.reshape(more)) - 1
                outline += length.reshape(more) * np.exp(self._taper * near)
        return super().reach(index, direction) * outline

    def bodies(self, bodies: Bodies) -> Self:
        """The larger outlines, with arms, of the cells whose nuclei these are."""
        around = copy(self)
        around._elongation, around._size, around._arms, around._taper = 0.6, bodies.size, bodies.arms, bodies.taper
        return around

    def extent(self) -> float:
        """See `Population.extent`."""
        directions = np.linspace(-np.pi, np.pi, 48, endpoint=False)
        every = np.broadcast_to(directions, (len(self.cells), 48))
        return float(self.reach(np.arange(len(self.cells)), every).max(initial=1)) * 1.05


class _Ghosts:
    """Light that is no cell: cells far off the focal plane, which drift, and specks of debris.

    Args:
        rng: source of randomness.
        canvas: (H, W) in pixels.
        specimen: how many there are.
    """

    def __init__(self, rng: np.random.Generator, canvas: tuple[int, int], specimen: Specimen) -> None:
        radius = specimen.biology.radius
        room = canvas[0] * canvas[1] / (20 * np.pi * radius**2)
        self._canvas, self._drift = canvas, 0.2 * specimen.biology.speed
        ghosts, specks = rng.poisson(specimen.ghosts * room), rng.poisson(specimen.debris * room)
        self._place = rng.uniform(0, 1, (ghosts + specks, 2)) * canvas
        self._radius = np.where(
            np.arange(ghosts + specks) < ghosts,
            radius * rng.uniform(0.7, 1.8, ghosts + specks),
            radius * rng.uniform(0.05, 0.28, ghosts + specks),
        )
        self._light = np.where(
            np.arange(ghosts + specks) < ghosts,
            specimen.ghost_light * rng.uniform(0.3, 1, ghosts + specks),
            np.exp(rng.uniform(np.log(0.2), np.log(3), ghosts + specks)),
        )
        self._ghosts = ghosts
        self._blur = radius * rng.uniform(0.45, 1.0)

    def step(self, rng: np.random.Generator, sharp: float) -> np.ndarray:
        """Light on the canvas in the next frame."""
        self._place += self._drift * rng.standard_normal(self._place.shape)
        far, near = np.zeros(self._canvas), np.zeros(self._canvas)
        for index, (place, radius, light) in enumerate(zip(self._place, self._radius, self._light, strict=True)):
            layer = far if index < self._ghosts else near
            centre = (round(16 * place[1]), round(16 * place[0]))
            cv2.circle(layer, centre, max(1, round(16 * radius)), float(light), -1, cv2.LINE_8, 4)
        return blur(far, self._blur) + blur(near, max(sharp, 0.3))


def _light_of(
    population: Population,
    pixels: Pixels,
    bank: TextureBank,
    holes: TextureBank,
    canvas: tuple[int, int],
    specimen: Specimen,
    sharp: float,
) -> np.ndarray:
    """Light of the cells through the objective on the canvas; a middling one has about 1."""
    cells = population.cells
    character = cells["character"]
    brightness = np.exp(specimen.variety * np.clip(character[:, 0], -2, 2))
    brightness[character[:, 1] < ndtri(specimen.dim)] *= specimen.dim_light
    brightness *= (1 + 0.8 * population.mitosis()) * (1 + 0.4 * population.newborn())
    dead = np.clip(cells["dying"], 0, None) / DEATH
    brightness *= np.minimum(1 + 2 * dead, 3.4 - 3.3 * dead).clip(0.4)  # condenses, then fades

    who = pixels.cell
    dome = 1 - specimen.dome * (1 - np.sqrt(np.maximum(1 - pixels.rho**2, 0))) * 0.8
    middle = 1 / (1 + (pixels.distance / (specimen.middle * specimen.biology.radius)) ** 2)
    thickness = specimen.flat_light + (1 - specimen.flat_light) * middle
    texture = cells["texture"][who]
    value = brightness[who] * thickness * dome * np.exp(bank.sample(texture, pixels.u, pixels.v))
    value *= 1 - holes.sample(texture // 64, pixels.u, pixels.v)
    defocus = np.clip(np.abs(character[who, 2]) * specimen.defocus - 0.4, 0, 0.8)
    focal, blurred = (spread(pixels, value * part, canvas) for part in (1 - defocus, defocus))
    return blur(focal, sharp) + blur(blurred, np.hypot(sharp, 0.18 * specimen.biology.radius))


def _light_of_bodies(nuclei: _Shaped, canvas: tuple[int, int], bodies: Bodies) -> np.ndarray:
    """Faint light of what surrounds the nuclei, on the canvas."""
    pixels = rasterise(nuclei.bodies(bodies), canvas)
    character = nuclei.cells["character"][pixels.cell]
    light = bodies.light * np.exp(0.5 * np.clip(character[:, 1], -2, 2) + 0.3 * character[:, 0])
    light *= 1 - bodies.dome * pixels.rho**2
    return blur(spread(pixels, light, canvas), bodies.blur * nuclei.biology.radius)


def _mottle(rng: np.random.Generator, specimen: Specimen, count: int = 48, side: int = 25) -> np.ndarray:
    """Logarithm of the light's texture, (count, side, side): grain of two sizes, and bright spots."""
    fine, coarse = rng.uniform(0, 1), rng.uniform(0, 1)
    mottle = fine * speckle(rng, count, side, specimen.grain) + coarse * speckle(rng, count, side, 5.0)
    mottle *= specimen.mottle
    for layer in mottle:
        layer += specimen.spot_light * _dots(rng, side, rng.poisson(specimen.spots), rng.uniform(0.9, 2.2))
    return mottle


def _holes(rng: np.random.Generator, specimen: Specimen, count: int = 48, side: int = 25) -> np.ndarray:
    """Part of the light that is missing in nucleoli, (count, side, side)."""
    holes = np.zeros((count, side, side))
    for layer in holes:
        layer += specimen.hole_depth * _dots(rng, side, rng.poisson(specimen.holes), rng.uniform(1.2, 2.8))
    return holes


def _dots(rng: np.random.Generator, side: int, count: int, width: float) -> np.ndarray:
    """Round dots of height 1 and soft rims in the middle of (side, side) pixels."""
    rows, columns = np.mgrid[:side, :side]
    layer = np.zeros((side, side))
    for y, x in rng.uniform(0.22, 0.78, (count, 2)) * (side - 1):
        distance = np.hypot(rows - y, columns - x) / width
        np.maximum(layer, 1 / (1 + distance**6), out=layer)
    return layer
