"""What tells one specimen, and one microscope, from others: the ranges that simulated looks are drawn from.

Wide enough that a real video is one more of them, rather than like any (domain randomisation: J. Tobin et al., IROS
2017).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from lightning_cells.data.simulation.optics import FULL_WELL, blur, camera
from lightning_cells.data.simulation.population import Biology

RADIUS = (9.0, 18.0)  # pixels, of a video's typical grown cell
_SPINDLY = 0.33  # part of the videos whose cells have arms
_DIM = 0.3  # that in which some cells are dim
_IN_BODIES = 0.8  # of the rest, if it is sparse, that in which nuclei are seen in faint bodies


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two, uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass(frozen=True)
class Bodies:
    """Faint bodies around nuclei, whose light is no cell's.

    Attributes:
        light: how bright they are; 0 for none.
        size: relative to that of the nucleus.
        arms: length of their arms in radii of the nucleus.
        taper: how narrow these are.
        dome: how much thinner they are at the rim, 0 flat to 1 ball.
        blur: how far they are off the focal plane: standard deviation of their blur, in radii.
    """

    light: float
    size: float
    arms: float
    taper: float
    dome: float
    blur: float

    @classmethod
    def draw(cls, rng: np.random.Generator, seen: bool) -> Self:
        """Draws what they are like, where they can be seen."""
        return cls(
            light=between(rng, 0.04, 0.35) if seen else 0.0,
            size=rng.uniform(1.2, 2.6),
            arms=rng.uniform(0.5, 6),
            taper=between(rng, 10, 80),
            dome=rng.uniform(0.2, 1),
            blur=between(rng, 0.06, 0.3),
        )


@dataclass(frozen=True)
class Specimen:
    """What the cells of a video are like; light is in units of that of a middling cell.

    Attributes:
        biology: how they live.
        coverage: part of the field that they cover.
        elongation: standard deviation of the logarithm of the ratio of their axes.
        arms: length of their arms in radii, 0 for none.
        taper: how narrow these are.
        variety: standard deviation of the logarithm of their brightness.
        dim: part of them that have little of the dye.
        dim_light: how bright these are.
        dome: how much thinner they are at the rim, 0 flat to 1 ball.
        flat_light: of what lies far from their middle, relative to that; 1 where they are as thick everywhere.
        middle: how wide that is, in radii.
        mottle: contrast of their texture.
        grain: size of its structures, in texture pixels.
        spots: number of bright spots.
        spot_light: how bright these are.
        holes: number of dark nucleoli.
        hole_depth: part of the light that is missing there.
        bodies: what is seen around the nuclei.
        defocus: how far cells are off the focal plane, in standard deviations that are blurred.
        ghosts: number of blurred cells far off the focal plane per cell's area times 20.
        ghost_light: how bright these are at most.
        debris: specks per cell's area times 20.
    """

    biology: Biology
    coverage: float
    elongation: float
    arms: float
    taper: float
    variety: float
    dim: float
    dim_light: float
    dome: float
    flat_light: float
    middle: float
    mottle: float
    grain: float
    spots: int
    spot_light: float
    holes: int
    hole_depth: float
    bodies: Bodies
    defocus: float
    ghosts: float
    ghost_light: float
    debris: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draws one."""
        radius = between(rng, *RADIUS)
        spindly = rng.random() < _SPINDLY
        coverage = between(rng, 0.02, 0.2 if spindly else 0.6)
        dim = rng.uniform(0.1, 0.6) if rng.random() < _DIM else 0.0
        in_bodies = not spindly and not dim and coverage < 0.25 and rng.random() < _IN_BODIES
        biology = Biology(
            radius=radius,
            spread=rng.uniform(0.05, 0.3),
            roughness=rng.uniform(0.02, 0.12),
            speed=radius * between(rng, 0.02, 0.25),
            period=between(rng, 12, 80),
            death=0.003,
            squeeze=rng.uniform(0, 0.12),
            adhesion=rng.uniform(0, 0.2),
            clump=1.0 if spindly else between(rng, 1, 6),
            crowding=rng.uniform(0.4, 0.85),
        )
        return cls(
            biology=biology,
            coverage=coverage,
            elongation=rng.uniform(0.4, 1.3) if spindly else rng.uniform(0, 0.5),
            arms=between(rng, 0.4, 4) if spindly else 0.0,
            taper=between(rng, 10, 60),
            variety=rng.uniform(0.1, 0.8),
            dim=dim,
            dim_light=between(rng, 0.04, 0.4),
            dome=rng.uniform(0, 1),
            flat_light=between(rng, 0.06, 1) if spindly else 1.0,
            middle=between(rng, 0.4, 1.6),
            mottle=rng.uniform(0.02, 0.4),
            grain=between(rng, 0.7, 3),
            spots=int(rng.integers(0, 10)) if rng.random() < 0.6 else 0,
            spot_light=between(rng, 0.3, 3),
            holes=int(rng.integers(1, 5)) if rng.random() < 0.5 else 0,
            hole_depth=rng.uniform(0.3, 0.95),
            bodies=Bodies.draw(rng, in_bodies),
            defocus=rng.uniform(0, 1),
            ghosts=rng.uniform(0, 2) if rng.random() < 0.5 else 0.0,
            ghost_light=between(rng, 0.1, 0.6),
            debris=rng.uniform(0, 2) if rng.random() < 0.5 else 0.0,
        )


@dataclass(frozen=True)
class Microscope:
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
        levels = between(rng, 15, 4000)
        return cls(
            sharp=between(rng, 0.4, 2.5),
            haze=rng.uniform(0, 0.35) * (rng.random() < 0.7),
            haze_width=between(rng, 0.4, 3),
            ground=between(rng, 0.01, 1.5),
            clouds=rng.uniform(0, 0.5),
            vignette=rng.uniform(0, 0.5),
            flicker=rng.uniform(0, 0.05),
            photons=between(rng, 10, 2000),
            levels=levels,
            read_noise=between(rng, 0.3, 6),
            offset=rng.uniform(-0.1, 0.5) * levels,
            full=between(rng, 1, 20) if rng.random() < 0.3 else np.inf,
            gamma=between(rng, 0.6, 1.5) if rng.random() < 0.4 else 1.0,
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
