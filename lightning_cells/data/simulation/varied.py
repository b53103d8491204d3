"""Simulated fluorescent cells of any look, for models that shall know cells they never saw.

Each video draws its own specimen and its own microscope from wide ranges: size, crowding, outline, brightness, texture,
focus, haze, debris, light, noise and camera. What is known of no real set alone is drawn, so none is imitated (domain
randomisation: J. Tobin et al., IROS 2017).
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from lightning_cells.data.simulation.optics import FULL_WELL, blur, camera, haze, illumination, smooth_field
from lightning_cells.data.simulation.population import DEATH, Biology, Population
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

RADIUS = (9.0, 18.0)  # pixels, of a video's typical grown cell
_EMPTY = 0.04  # part of the videos that show no cell
_SPINDLY = 0.25  # part of the videos whose cells have arms
_ARMS = 4  # that a cell has at most
_BODY = 1.8  # size of a cell's faint body relative to its nucleus


def varied(rng: np.random.Generator, frames: int, size: tuple[int, int], cells: int | None) -> Iterator[SimulatedFrame]:
    """Simulates one video of fluorescent cells, of a look of its own.

    Args:
        rng: source of randomness.
        frames: number of frames.
        size: (H, W) in pixels.
        cells: cells that start in the field; None draws the part of the field that they cover, and leaves some videos
            empty.

    Yields:
        Frames in order of time; a longer video starts with the same frames.
    """
    specimen = _Specimen.draw(rng)
    microscope = _Microscope.draw(rng)
    biology = specimen.biology
    if cells is None:
        cells = max(1, round(specimen.coverage * size[0] * size[1] / (np.pi * (0.85 * biology.radius) ** 2)))
        if rng.random() < _EMPTY:
            cells = 0
    population = _Shaped(rng, size, cells, biology, specimen.elongation, specimen.arms)
    canvas = canvas_size(size)
    bank, holes = TextureBank(_mottle(rng, specimen)), TextureBank(_holes(rng, specimen))
    ghosts = _Ghosts(rng, canvas, specimen)
    light = illumination(rng, size, microscope.vignette)
    clouds = np.exp(0.5 * smooth_field(rng, size, 5 * biology.radius))
    ground = microscope.ground * (1 - microscope.clouds + microscope.clouds * clouds)
    for pixels, truth, parents in labelled_frames(population, frames, canvas):
        sharp = microscope.sharp * biology.radius / 10
        seen = _light_of(population, pixels, bank, holes, canvas, specimen, sharp)
        if specimen.body:
            seen += _light_of_bodies(population, canvas, specimen)
        seen = haze(seen, microscope.haze, microscope.haze_width * biology.radius)
        seen = field_of(seen + ghosts.step(rng, sharp)) + ground
        lamp = 1 + microscope.flicker * rng.standard_normal()
        yield SimulatedFrame(microscope.take(rng, seen * light * lamp), truth, parents)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two, uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass(frozen=True)
class _Specimen:
    """What the cells of a video are like; light is in units of that of a middling cell.

    Attributes:
        biology: how they live.
        coverage: part of the field that they cover.
        elongation: standard deviation of the logarithm of the ratio of their axes.
        arms: length of their arms in radii, 0 for none.
        variety: standard deviation of the logarithm of their brightness.
        dome: how much thinner they are at the rim, 0 flat to 1 ball.
        mottle: contrast of their texture.
        grain: size of its structures, in texture pixels.
        spots: number of bright spots.
        spot_light: how bright these are.
        holes: number of dark nucleoli.
        hole_depth: part of the light that is missing there.
        body: light of the faint body around each nucleus, which is no cell's; 0 for none.
        defocus: how far cells are off the focal plane, in standard deviations that are blurred.
        ghosts: number of blurred cells far off the focal plane per cell's area times 20.
        ghost_light: how bright these are at most.
        debris: specks per cell's area times 20.
    """

    biology: Biology
    coverage: float
    elongation: float
    arms: float
    variety: float
    dome: float
    mottle: float
    grain: float
    spots: int
    spot_light: float
    holes: int
    hole_depth: float
    body: float
    defocus: float
    ghosts: float
    ghost_light: float
    debris: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draws one."""
        radius = _between(rng, *RADIUS)
        spindly = rng.random() < _SPINDLY
        coverage = _between(rng, 0.02, 0.2 if spindly else 0.6)
        biology = Biology(
            radius=radius,
            spread=rng.uniform(0.05, 0.3),
            roughness=rng.uniform(0.02, 0.12),
            speed=radius * _between(rng, 0.02, 0.25),
            period=_between(rng, 12, 80),
            death=0.003,
            squeeze=rng.uniform(0, 0.12),
            adhesion=rng.uniform(0, 0.2),
            clump=1.0 if spindly else _between(rng, 1, 6),
            crowding=rng.uniform(0.4, 0.85),
        )
        return cls(
            biology=biology,
            coverage=coverage,
            elongation=rng.uniform(0.4, 1.0) if spindly else rng.uniform(0, 0.5),
            arms=rng.uniform(0.4, 1.8) if spindly else 0.0,
            variety=rng.uniform(0.1, 0.8),
            dome=rng.uniform(0, 1),
            mottle=rng.uniform(0.02, 0.4),
            grain=_between(rng, 0.7, 3),
            spots=int(rng.integers(0, 10)) if rng.random() < 0.6 else 0,
            spot_light=_between(rng, 0.3, 3),
            holes=int(rng.integers(1, 5)) if rng.random() < 0.5 else 0,
            hole_depth=rng.uniform(0.3, 0.95),
            body=_between(rng, 0.02, 0.25) if not spindly and coverage < 0.25 and rng.random() < 0.6 else 0.0,
            defocus=rng.uniform(0, 1),
            ghosts=rng.uniform(0, 2) if rng.random() < 0.5 else 0.0,
            ghost_light=_between(rng, 0.1, 0.6),
            debris=rng.uniform(0, 2) if rng.random() < 0.5 else 0.0,
        )


@dataclass(frozen=True)
class _Microscope:
    """How a video is taken.

    Attributes:
        sharp: standard deviation of the blur, in tenths of a cell's radius.
        haze: part of the light that goes astray.
        haze_width: how far, in radii.
        ground: light where there is no cell.
        clouds: part of it that is uneven.
        vignette: part of the light that is missing at the darkest place.
        flicker: relative standard deviation of the lamp.
        photons: of a middling cell, per pixel.
        levels: grey levels between darkness and a middling cell.
        read_noise: in photons.
        offset: grey level of darkness; below 0 faint light is cut off.
        full: light that saturates the camera, in middling cells.
        gamma: exponent of light, as of files that were made to be looked at.
        smoothed: standard deviation of a blur after the camera, in pixels, as of files that were made smaller.
    """

    sharp: float
    haze: float
    haze_width: float
    ground: float
    clouds: float
    vignette: float
    flicker: float
    photons: float
    levels: float
    read_noise: float
    offset: float
    full: float
    gamma: float
    smoothed: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draws one."""
        levels = _between(rng, 15, 4000)
        return cls(
            sharp=_between(rng, 0.4, 2.5),
            haze=rng.uniform(0, 0.35) * (rng.random() < 0.7),
            haze_width=_between(rng, 0.4, 3),
            ground=_between(rng, 0.01, 1.5),
            clouds=rng.uniform(0, 0.5),
            vignette=rng.uniform(0, 0.5),
            flicker=rng.uniform(0, 0.05),
            photons=_between(rng, 10, 2000),
            levels=levels,
            read_noise=_between(rng, 0.3, 6),
            offset=rng.uniform(-0.1, 0.5) * levels,
            full=_between(rng, 1, 20) if rng.random() < 0.3 else np.inf,
            gamma=_between(rng, 0.6, 1.5) if rng.random() < 0.4 else 1.0,
            smoothed=rng.uniform(0.3, 1) if rng.random() < 0.5 else 0.0,
        )

    def take(self, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
        """Light, (H, W), as a frame of uint16."""
        light = np.minimum(light, self.full) ** self.gamma
        image = camera(rng, self.photons * light, self.levels / self.photons, self.offset, self._noise)
        if self.smoothed:
            image = np.rint(blur(image.astype(np.float64), self.smoothed)).astype(np.uint16)
        return image.clip(0, FULL_WELL)

    @property
    def _noise(self) -> float:
        return self.read_noise * self.levels / self.photons


class _Shaped(Population):
    """Cells that are longer than wide, or have arms; those about to divide and just born are round.

    Args:
        rng: as the others, see `Population`.
        size: of the field.
        cells: in it.
        biology: how they live.
        elongation: see `_Specimen`.
        arms: see `_Specimen`.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        cells: int,
        biology: Biology,
        elongation: float,
        arms: float,
    ) -> None:
        self._elongation, self._arms, self._size = elongation, arms, 1.0
        super().__init__(rng, size, cells, biology)

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
                outline += length.reshape(more) * np.exp(12 * near)
        return super().reach(index, direction) * outline

    def bodies(self) -> Self:
        """The larger outlines, with arms, of the cells whose nuclei these are."""
        bodies = copy(self)
        bodies._elongation, bodies._arms, bodies._size = 0.6, 1.6, _BODY
        return bodies

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

    def __init__(self, rng: np.random.Generator, canvas: tuple[int, int], specimen: _Specimen) -> None:
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
    specimen: _Specimen,
    sharp: float,
) -> np.ndarray:
    """Light of the cells through the objective on the canvas; a middling one has about 1."""
    cells = population.cells
    character = cells["character"]
    brightness = np.exp(specimen.variety * np.clip(character[:, 0], -2, 2))
    brightness *= (1 + 0.8 * population.mitosis()) * (1 + 0.4 * population.newborn())
    dead = np.clip(cells["dying"], 0, None) / DEATH
    brightness *= np.minimum(1 + 2 * dead, 3.4 - 3.3 * dead).clip(0.4)  # condenses, then fades

    who = pixels.cell
    dome = 1 - specimen.dome * (1 - np.sqrt(np.maximum(1 - pixels.rho**2, 0))) * 0.8
    texture = cells["texture"][who]
    value = brightness[who] * dome * np.exp(bank.sample(texture, pixels.u, pixels.v))
    value *= 1 - holes.sample(texture // 64, pixels.u, pixels.v)
    defocus = np.clip(np.abs(character[who, 2]) * specimen.defocus - 0.4, 0, 0.8)
    focal, blurred = (spread(pixels, value * part, canvas) for part in (1 - defocus, defocus))
    return blur(focal, sharp) + blur(blurred, np.hypot(sharp, 0.18 * specimen.biology.radius))


def _light_of_bodies(population: _Shaped, canvas: tuple[int, int], specimen: _Specimen) -> np.ndarray:
    """Faint light of what surrounds the nuclei, on the canvas."""
    pixels = rasterise(population.bodies(), canvas)
    character = population.cells["character"][pixels.cell]
    light = specimen.body * np.exp(0.5 * np.clip(character[:, 1], -2, 2) + 0.3 * character[:, 0])
    return blur(spread(pixels, light * (1 - pixels.rho**2), canvas), 0.2 * specimen.biology.radius)


def _mottle(rng: np.random.Generator, specimen: _Specimen, count: int = 48, side: int = 25) -> np.ndarray:
    """Logarithm of the light's texture, (count, side, side): grain of two sizes, and bright spots."""
    fine, coarse = rng.uniform(0, 1), rng.uniform(0, 1)
    mottle = fine * speckle(rng, count, side, specimen.grain) + coarse * speckle(rng, count, side, 5.0)
    mottle *= specimen.mottle
    for layer in mottle:
        layer += specimen.spot_light * _dots(rng, side, rng.poisson(specimen.spots), rng.uniform(0.9, 2.2))
    return mottle


def _holes(rng: np.random.Generator, specimen: _Specimen, count: int = 48, side: int = 25) -> np.ndarray:
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
