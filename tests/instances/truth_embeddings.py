"""The embeddings a perfect network would give: one axis per colour, and no two cells near each other of one colour."""

from collections import Counter

import numpy as np
import torch
from scipy.ndimage import find_objects


def colour(frames, reach=3, colours=8):
    """Colours the cells of a video greedily, so that those near each other in a frame or the next one differ.

    Of the colours that are free for a cell it gets the one used least: few colours would leave cells of one colour
    to the coordinates alone, which cut through cells.

    Args:
        frames: (T, H, W) int labels, 0 background, one id per cell throughout.
        reach: a cell with pixels in the box of another, widened by this much, is its neighbour, in pixels.
        colours: how many there are.

    Returns:
        {id: colour 1..colours}.
    """
    neighbours = {label: set() for label in np.unique(frames).tolist() if label}
    for number, now in enumerate(frames):
        for label, box in enumerate(find_objects(now), 1):
            if box is None:
                continue
            around = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
            near = np.unique(frames[number : number + 2, *around]).tolist()
            for other in set(near) - {0, label}:
                neighbours[label].add(other)
                neighbours[other].add(label)
    chosen, used = {}, Counter()
    for label in sorted(neighbours, key=lambda label: -len(neighbours[label])):
        free = set(range(1, colours + 1)) - {chosen.get(other) for other in neighbours[label]}
        chosen[label] = min(free, key=lambda number: (used[number], number))
        used[chosen[label]] += 1
    return chosen


def embed(frames, colours, features=16):
    """(T, H, W) labels -> (T, features, H, W) float32 one-hot embeddings; axis 0 is the background's."""
    table = np.zeros(max(colours) + 1, np.int64)
    table[list(colours)] = list(colours.values())
    axes = torch.from_numpy(table[frames])
    return torch.nn.functional.one_hot(axes, features).movedim(-1, 1).float()
