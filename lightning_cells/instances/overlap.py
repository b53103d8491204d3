"""Common pixels of two label images."""

import numpy as np
from scipy.sparse import coo_array


def overlaps(
    first: np.ndarray, second: np.ndarray, numbers: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the common pixels of all pairs of labels that have any.

    Args:
        first: (...) integer labels 0..K, 0 background.
        second: integer labels 0..L of the same shape, 0 background.
        numbers: K + 1, L + 1.

    Returns:
        Labels of the first, labels of the second, pixels: 1-D integer arrays, sorted by the labels.
    """
    both = (first > 0) & (second > 0)
    pairs = first[both], second[both]
    counts = coo_array((np.ones(len(pairs[0]), np.int32), pairs), numbers).tocsr()  # linear, unlike a sort
    counts.sort_indices()
    rows, columns = counts.nonzero()
    return rows, columns, counts.data
