"""Semantic classes from two fluorescence channels, so that a bright-field network has something to learn from."""

import cv2
import numpy as np
from skimage.filters import threshold_otsu

from lightning_cells.data.targets import CYTOPLASM, NUCLEUS
from lightning_cells.errors import InputError


def class_map(nuclei: np.ndarray, cytoplasm: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """Classifies the pixels of a frame without supervision, by Otsu's threshold of each channel.

    A pixel that is bright in the nuclear channel is nucleus; of the others, one that is bright in the channel of the
    cytoplasm is cytoplasm. The bright-field paper says no more than that its ground truth comes from "unsupervised
    classification of pixels into the three classes" by a product; the two thresholds are this project's reading.

    Args:
        nuclei: (H, W) of any integer or floating type: a nuclear stain, such as DAPI.
        cytoplasm: (H, W): a stain of the cytoplasm or of the whole cell.
        smoothing: standard deviation in pixels of a Gaussian before the thresholds; 0 for none.

    Returns:
        (H, W) uint8: 0 background, 1 nucleus, 2 cytoplasm; a channel of one value marks nothing.

    Raises:
        InputError: if the channels are not of one size, or the smoothing is negative.

    Source:
        Bright-field submission to MIDL 2019, section 3; N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979).
    """
    if nuclei.ndim != 2 or nuclei.shape != cytoplasm.shape:
        raise InputError(f"channels of shape {nuclei.shape} and {cytoplasm.shape}: give two grey frames of one size")
    if not 0 <= smoothing < float("inf"):
        raise InputError(f"--smoothing {smoothing}: must be 0 or a positive number of pixels")
    classes = np.zeros(nuclei.shape, np.uint8)
    for channel, value in ((cytoplasm, CYTOPLASM), (nuclei, NUCLEUS)):
        image: np.ndarray = channel.astype(np.float32)
        if smoothing:
            image = cv2.GaussianBlur(image, (0, 0), smoothing)
        if image.min() < image.max():
            classes[image > threshold_otsu(image)] = value
    return classes
