"""Living cells as points with an outline: they move, push, stick, grow, divide and die.

Shared by the kinds of simulated data that show living cells. Positions and radii are in pixels, time is in frames. They
live in a plane; `ellipsoids` are what lives in a volume.
All cells are rows of one structured array, so that a step costs a few array operations whatever their number.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

LOWEST_ORDER, ORDERS = 2, 3  # Fourier orders 2, 3 and 4 of an outline: ellipse, triangle, square
DEATH = 6  # frames from the first sign of death until nothing is left
MITOSIS = 4  # frames over which a cell rounds up before it divides


def cell_type(axes: int) -> np.dtype:
    """What is known of one cell, in a space of so many axes."""
    return np.dtype(
        [
            ("position", "f8", axes),  # row, column; before them the depth
            ("velocity", "f8", axes),
            ("angle", "f8"),  # in the plane of rows and columns
            ("spin", "f8"),
            ("shape", "f8", (ORDERS, 2)),  # cosine and sine coefficients relative to the radius
            ("adult", "f8"),  # radius of the grown cell
            ("age", "f8"),
            ("period", "f8"),  # age at division
            ("dying", "f8"),  # frames since death began, -1 while alive
            ("character", "f8", 4),  # fixed standard normal numbers: what tells a cell from others is drawn from them
            ("texture", "i8"),  # fixed random number that chooses a texture
            ("label", "i8"),  # label in the latest frame, 0 where not visible
            ("mother", "i8"),  # label of the mother, in the frame of birth only
        ]
    )


@dataclass(frozen=True)
class Biology:
    """What one kind of cell is like.

    Attributes:
        radius: mean radius of a grown cell in pixels.
        spread: relative standard deviation of the radius.
        roughness: standard deviation of the outline's Fourier coefficients, relative to the radius.
        speed: typical displacement per frame in pixels.
        period: mean frames between divisions.
        death: probability per cell and frame.
        squeeze: part of the distance of contact by which neighbours flatten each other, 0..1.
        adhesion: part of a small gap that closes per frame, 0..1: cells in contact stay so.
        clump: mean number of cells that start together.
        crowding: covered part of the field at which growth stops.
    """

    radius: float
    spread: float
    roughness: float
    speed: float
    period: float
    death: float
    squeeze: float
    adhesion: float
    clump: float
    crowding: float


class Population:
    """Cells in and around the field of view.

    Cells live in the field and in a margin of two radii around it, so that they enter and leave over the border.

    Args:
        rng: source of randomness.
        size: (H, W) of the field in pixels, or (Z, H, W) of a volume.
        cells: number of cells that start in the field.
        biology: what they are like.

    Attributes:
        cells: structured array of `cell_type`, one row per cell.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[float, ...], cells: int, biology: Biology) -> None:
        self.rng = rng
        self.biology = biology
        margin = self._margin(size)
        self.low = -margin
        self.high = np.asarray(size, float) + margin
        self.room = float(np.prod(self.high - self.low))
        total = max(cells, round(cells * self.room / math.prod(size)))
        self.cells = self._start(total, cells, np.asarray(size, float))
        for _ in range(40):
            self._relax()

    def step(self) -> None:
        """Lets one frame pass."""
        cells, rng, biology = self.cells, self.rng, self.biology
        alive = cells["dying"] < 0
        room = np.clip((biology.crowding - self._coverage()) / 0.15, 0, 1)
        # mitosis does not wait for room, and the dying no longer grow
        cells["age"] += alive * np.where(cells["age"] > cells["period"] - MITOSIS, 1, room)
        cells["dying"][~alive] += 1
        strikes = rng.random(len(cells)) < biology.death
        calm = (cells["age"] > 4) & (cells["age"] < cells["period"] - MITOSIS)
        cells["dying"][alive & strikes & calm] = 0
        cells["mother"] = 0
        cells = self._divide(cells[cells["dying"] < DEATH])

        n = len(cells)
        cells["velocity"] = 0.8 * cells["velocity"] + 0.6 * biology.speed * rng.standard_normal((n, len(self.low)))
        cells["position"] += cells["velocity"]
        cells["spin"] = 0.9 * cells["spin"] + 0.02 * rng.standard_normal(n)
        cells["angle"] += cells["spin"]
        noise = rng.standard_normal((n, ORDERS, 2))
        cells["shape"] = 0.95 * cells["shape"] + np.sqrt(1 - 0.95**2) * self._coefficients(noise)
        self.cells = cells
        for _ in range(8):
            self._relax()

    def radius(self) -> np.ndarray:
        """Returns (N,) mean radii in pixels: growth, rounding up before division, shrinking in death."""
        cells = self.cells
        grown = np.clip(cells["age"] / (0.4 * cells["period"]), 0, 1)
        grown = grown * grown * (3 - 2 * grown)
        shrunk = 1 - 0.5 * np.clip(cells["dying"], 0, None) / DEATH
        return cells["adult"] * (0.62 + 0.38 * grown) * (1 - 0.15 * self.mitosis()) * shrunk

    def mitosis(self) -> np.ndarray:
        """Returns (N,) in [0, 1]: how far a cell has condensed before division (1 in its last frame)."""
        return np.clip(1 - (self.cells["period"] - 1 - self.cells["age"]) / MITOSIS, 0, 1)

    def newborn(self) -> np.ndarray:
        """Returns (N,) in [0, 1]: 1 in the first frame after division, 0 some frames later."""
        return np.clip(1 - self.cells["age"] / 4, 0, 1)

    def reach(self, index: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Distance from a cell's centre to its outline.

        Args:
            index: (M,) rows of `cells`.
            direction: (M, ...) angles in radians in the cell's own frame.

        Returns:
            Distances in pixels, of the shape of `direction`.
        """
        shape = self.deformation()[index]
        shape = shape.reshape(*shape.shape[:1], *(1,) * (direction.ndim - 1), ORDERS, 2)
        outline = np.ones_like(direction)
        for k in range(ORDERS):
            turn = (LOWEST_ORDER + k) * direction
            outline += shape[..., k, 0] * np.cos(turn) + shape[..., k, 1] * np.sin(turn)
        radius = self.radius()[index].reshape(-1, *(1,) * (direction.ndim - 1))
        return radius * np.maximum(outline, 0.3)

    def deformation(self) -> np.ndarray:
        """Returns (N, ORDERS, 2): ``shape``, weaker in cells that are about to divide or just born."""
        rough = 1 - 0.8 * np.maximum(self.mitosis(), self.newborn())
        return self.cells["shape"] * rough[:, None, None]

    def extent(self) -> float:
        """A distance in pixels from a cell's centre within which all of its outline lies."""
        return float(self.radius().max(initial=1)) * 1.6

    def _margin(self, size: tuple[float, ...]) -> np.ndarray:
        """How far cells live beyond each border of the field, in pixels; below 0 where they keep away from it."""
        return np.full(len(size), 2.0 * self.biology.radius)

    def _coefficients(self, noise: np.ndarray) -> np.ndarray:
        """Scales (..., ORDERS, 2) noise so that higher orders are weaker."""
        orders = LOWEST_ORDER + np.arange(ORDERS)
        return self.biology.roughness * noise * (LOWEST_ORDER / orders[:, None]) ** 1.5

    def _fresh(self, n: int) -> np.ndarray:
        """Returns n cells with everything drawn but positions and ages."""
        rng, biology = self.rng, self.biology
        axes = len(self.low)
        cells = np.zeros(n, cell_type(axes))
        cells["velocity"] = biology.speed * rng.standard_normal((n, axes))
        cells["angle"] = rng.uniform(-np.pi, np.pi, n)
        cells["spin"] = 0.04 * rng.standard_normal(n)
        cells["shape"] = self._coefficients(rng.standard_normal((n, ORDERS, 2)))
        cells["adult"] = biology.radius * (1 + biology.spread * np.clip(rng.standard_normal(n), -2, 2))
        cells["period"] = biology.period * (1 + 0.15 * np.clip(rng.standard_normal(n), -2, 2))
        cells["dying"] = -1
        cells["character"] = rng.standard_normal((n, 4))
        cells["texture"] = rng.integers(0, 2**31, n)
        return cells

    def _start(self, total: int, inside: int, size: np.ndarray) -> np.ndarray:
        """Places clumps of cells: `inside` of them in the field, the others in the margin."""
        rng, biology = self.rng, self.biology
        cells = self._fresh(total)
        cells["age"] = rng.uniform(0.1, 0.98, total) * cells["period"]
        clumps = max(1, round(inside / biology.clump))
        centres = rng.uniform(0, 1, (clumps, len(size))) * (size - 2 * biology.radius) + biology.radius
        member = rng.integers(0, clumps, inside)
        spread = 0.9 * biology.radius * np.sqrt(biology.clump)
        near = centres[member] + spread * rng.standard_normal((inside, len(size)))
        cells["position"][:inside] = np.clip(near, biology.radius / 2, size - biology.radius / 2)
        outer = rng.uniform(self.low, self.high, (total - inside, len(size)))
        # throw those that fell into the field out over the nearest border that is open
        (free,) = np.nonzero(self.low < 0)
        gap = np.concatenate([outer[:, free], size[free] - outer[:, free]], axis=1)
        inner = gap.min(axis=1) > 0
        side = gap.argmin(axis=1)
        depth = rng.uniform(0.5, 2, len(outer)) * biology.radius
        axis = free[side % len(free)]
        place = np.where(side < len(free), -depth, size[axis] + depth)
        outer[inner, axis[inner]] = place[inner]
        cells["position"][inside:] = outer
        return cells

    def _divide(self, cells: np.ndarray) -> np.ndarray:
        """Replaces each cell that is due by two daughters side by side."""
        due = (cells["age"] >= cells["period"]) & (cells["dying"] < 0)
        mothers = cells[due]
        # over the field's border one daughter would not be seen: there cells divide along it
        size = self.high + self.low
        near = np.minimum(np.abs(mothers["position"]), np.abs(mothers["position"] - size))
        border = np.where(near.min(axis=1) < self.biology.radius, near.argmin(axis=1), -1)
        step = self._spindles(border) * 0.62 * mothers["adult"][:, None]
        daughters = []
        for sign in (-1, 1):
            born = self._fresh(len(mothers))
            born["position"] = mothers["position"] + sign * step
            born["velocity"] = mothers["velocity"] + sign * step * 0.2
            born["character"] = 0.95 * mothers["character"] + 0.3 * born["character"]
            born["mother"] = mothers["label"]
            daughters.append(born)
        return np.concatenate([cells[~due], *daughters])

    def _spindles(self, border: np.ndarray) -> np.ndarray:
        """Directions in which cells divide.

        Args:
            border: (M,) the axis across whose border a cell would divide, -1 far from all.

        Returns:
            (M, axes) of length 1.
        """
        axis = self.rng.uniform(0, np.pi, len(border))
        axis = np.where(border >= 0, np.pi / 2 * border, axis)
        return np.stack([np.sin(axis), np.cos(axis)], 1)

    def _coverage(self) -> float:
        """The part of the world that cells fill."""
        return float(np.pi * (self.radius() ** 2).sum()) / self.room

    def _contact(self, first: np.ndarray, second: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances of pairs of cells, and those at which their outlines touch.

        Args:
            first: (P,) rows of `cells`.
            second: (P,) those of their partners.
            gap: (P, axes) from the first to the second.

        Returns:
            Two (P,) arrays, in pixels.
        """
        angle = self.cells["angle"]
        direction = np.arctan2(gap[:, 0], gap[:, 1])
        contact = self.reach(first, direction - angle[first])
        contact += self.reach(second, direction + np.pi - angle[second])
        return np.maximum(np.hypot(gap[:, 0], gap[:, 1]), 1e-6), contact

    def _relax(self) -> None:
        """Pushes overlapping neighbours apart, pulls close ones together, keeps all in the world."""
        cells, biology = self.cells, self.biology
        where = cells["position"]
        pairs = cKDTree(where).query_pairs(4 * biology.radius, output_type="ndarray")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]  # sums in a fixed order: same bytes for a seed
        first, second = pairs[:, 0], pairs[:, 1]
        gap = where[second] - where[first]
        distance, contact = self._contact(first, second, gap)
        excess = distance - contact * (1 - biology.squeeze)
        close = 0.2 * contact
        pull = np.where(excess < close, biology.adhesion / 8 * excess, 0)
        force = np.where(excess < 0, 0.5 * excess, pull) / 2
        push = gap / distance[:, None] * force[:, None]
        np.add.at(where, first, push)
        np.add.at(where, second, -push)
        outside = (where < self.low) | (where > self.high)
        cells["velocity"][outside] *= -1
        np.clip(where, self.low, self.high, out=where)
