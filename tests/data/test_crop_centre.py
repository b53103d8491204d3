import numpy as np
import pytest

from lightning_cells.data.sampling import crop_centre


def draws(frame: np.ndarray, balance: str, count: int = 400) -> list:
    rng = np.random.default_rng(0)
    return [crop_centre(frame, balance, rng) for _ in range(count)]


def test_uniform_centres_are_anywhere():
    assert set(draws(np.ones((4, 4), np.int32), "uniform")) == {None}


@pytest.mark.parametrize("size", [(6, 9), (400, 500)])  # a hit by chance, or only by searching all
def test_foreground_centres_are_on_cells_and_markers_half_the_time(size):
    labels = np.full(size, -1, np.int32)
    labels[:3] = 0
    cells = {(4, 1): 12, (4, 2): 12, (5, 0): 3, (5, 8): -40}
    for place, label in cells.items():
        labels[place] = label
    found = draws(labels, "foreground")
    assert 150 < found.count(None) < 250
    counts = [found.count(place) for place in cells]
    assert sum(counts) + found.count(None) == len(found)
    assert min(counts) > 25


@pytest.mark.parametrize("dtype", [np.int8, np.int32])
def test_centres_are_even_over_classes_present(dtype):
    frame = np.zeros((60, 60), dtype)
    frame[0] = -1
    frame[30, 30] = 1 if dtype == np.int8 else 900
    frame[40:50, 40:50] = 2
    found = draws(frame, "classes", 600)
    values = [int(frame[int(row), int(column)]) for row, column in found]
    assert -1 not in values
    if dtype == np.int8:  # background, one pixel of class 1, some of class 2
        assert all(150 < values.count(number) < 250 for number in (0, 1, 2))
    else:  # instances are one class
        assert 250 < values.count(0) < 350
        assert len({place for place, value in zip(found, values, strict=True) if value == 2}) > 50


@pytest.mark.parametrize("balance", ["foreground", "classes"])
def test_a_frame_without_anything_is_centred_anywhere(balance):
    assert set(draws(np.full((5, 5), -1, np.int8), balance, 10)) == {None}
    assert set(draws(np.full((5, 5), -1, np.int32), balance, 10)) == {None}
