"""Cells of a volume: ellipsoids that move, push, grow, divide and die as those of a plane do."""

import numpy as np

from lightning_cells.data.simulation.population import Population
from lightning_cells.data.simulation.shapes import RIM, Voxels
from lightning_cells.data.voxels import Voxel


class Ellipsoids(Population):
    """Cells between two slides: over the sides of the field they come and go, above and below it there are none.

    The six numbers of a cell's ``shape`` are those of a symmetric matrix S without a trace: the cell is what
    ``exp(S)`` makes of a ball, so that it stretches and turns and keeps its volume. Arguments are those of
    `Population`, with a size of (Z, H, W) in pixels.
    """

    def inward(self) -> np.ndarray:
        """Returns (N, 3, 3) matrices from places relative to a cell's centre to the ball of radius 1."""
        diagonal, other = np.moveaxis(self.deformation(), 2, 0)
        shape = np.zeros((len(self.cells), 3, 3))
        shape[:, range(3), range(3)] = diagonal - diagonal.mean(axis=1, keepdims=True)
        for k, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
            shape[:, i, j] = shape[:, j, i] = other[:, k]
        # the series of exp(-S), which is positive definite after any even number of terms
        back = np.eye(3) - shape + shape @ shape / 2
        angle = self.cells["angle"]
        turn = np.zeros_like(back)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
        turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
        return back @ turn / self.radius()[:, None, None]

    def covered(self, canvas: tuple[int, int, int], voxel: Voxel) -> Voxels:
        """Gives each covered voxel of the canvas to the cell in which it lies deepest.

        Args:
            canvas: (Z, H, W) in voxels, with a rim of `RIM` around rows and columns.
            voxel: depth, height and width of a voxel in pixels.
        """
        side = np.asarray(voxel)
        start = np.array([0.5 * side[0], -RIM * side[1], -RIM * side[2]])  # the middle of the first voxel
        reach = self.extent()
        inward = self.inward()
        depth = np.full(canvas, np.inf, np.float32)
        owner = np.full(canvas, -1, np.int32)
        for row, position in enumerate(self.cells["position"]):
            low = np.maximum(np.ceil((position - reach - start) / side).astype(int), 0)
            high = np.minimum(np.floor((position + reach - start) / side).astype(int) + 1, canvas)
            if (low >= high).any():
                continue
            box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
            rho = np.linalg.norm(self._own(inward[row], position, start, side, box), axis=0)
            deeper = (rho < 1) & (rho < depth[box])
            depth[box][deeper], owner[box][deeper] = rho[deeper], row
        place = np.flatnonzero(owner >= 0)
        cell = owner.ravel()[place]
        where = np.stack(np.unravel_index(place, canvas), 1) * side + start - self.cells["position"][cell]
        u, v, w = np.einsum("mij,mj->im", inward[cell], where).clip(-1, 1)
        return Voxels(place, cell, u, v, w)

    @staticmethod
    def _own(
        inward: np.ndarray, position: np.ndarray, start: np.ndarray, side: np.ndarray, box: tuple[slice, ...]
    ) -> np.ndarray:
        """The cell's own coordinates of the voxels of a box, (3, z, y, x)."""
        axes = [np.arange(ends.start, ends.stop) for ends in box]
        z, y, x = (at * side[k] + start[k] - position[k] for k, at in enumerate(axes))
        first, second, third = inward.T[:, :, None, None, None]
        return first * z[:, None, None] + second * y[:, None] + third * x

    def _margin(self, size: tuple[float, ...]) -> np.ndarray:
        margin = super()._margin(size)
        margin[0] = -min(0.6 * self.biology.radius, size[0] / 4)
        return margin

    def _coefficients(self, noise: np.ndarray) -> np.ndarray:
        return self.biology.roughness * noise

    def _spindles(self, border: np.ndarray) -> np.ndarray:
        direction = self.rng.standard_normal((len(border), 3))
        (near,) = np.nonzero(border >= 0)
        direction[near, border[near]] = 0
        return direction / np.linalg.norm(direction, axis=1, keepdims=True)

    def _coverage(self) -> float:
        return float(4 / 3 * np.pi * (self.radius() ** 3).sum()) / self.room

    def _contact(self, first: np.ndarray, second: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance = np.maximum(np.linalg.norm(gap, axis=1), 1e-6)
        inward, direction = self.inward(), gap / distance[:, None]
        reached = [
            1 / np.linalg.norm(np.einsum("pij,pj->pi", inward[who], direction), axis=1) for who in (first, second)
        ]
        return distance, reached[0] + reached[1]
