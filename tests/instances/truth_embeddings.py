"""The embeddings a perfect network would give: one axis per colour, and no two cells near each other of one colour."""

import numpy as np
import torch
from scipy.ndimage import find_objects


def colour(frames, reach=3, colours=8):
    """Colours the cells of a video greedily, so that those near each other in a frame or the next one differ.

    Args:
        frames: (T, H, W) int labels, 0 background, one id per cell throughout.
        reach: cells whose dilated boxes share pixels are neighbours, in pixels.
        colours: how many there are.

    Returns:
        {id: colour 1..colours}.
    """
    ids = np.unique(frames)
    neighbours = {int(label): set() for label in ids if label}
    for now, then in zip(frames, [*frames[1:], None], strict=True):
        both = [now] if then is None else [now, then]
        for label, box in enumerate(find_objects(now), 1):
            if box is None:
                continue
            around = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
            for other in np.unique([np.unique(frame[around])[:, None] for frame in both][0]).tolist() + (
                np.unique(then[around]).tolist() if then is not None else []
            ):
                if other and other != label:
                    neighbours[label].add(other)
                    neighbours[other].add(label)
    chosen = {}
    for label in sorted(neighbours, key=lambda label: -len(neighbours[label])):
        taken = {chosen.get(other) for other in neighbours[label]}
        chosen[label] = next(c for c in range(1, colours + 1) if c not in taken)
    return chosen


def embed(frames, colours, features=16):
    """(T, H, W) labels -> (T, features, H, W) float32 one-hot embeddings; axis 0 is the background's."""
    table = np.zeros(int(frames.max()) + 1, np.int64)
    for label, number in colours.items():
        if label < len(table):
            table[label] = number
    axes = torch.from_numpy(table[frames])
    return torch.nn.functional.one_hot(axes, features).movedim(-1, 1).float()
