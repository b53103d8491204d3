import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter, map_coordinates

from lightning_cells.data import deformation


def bspline(points: np.ndarray, length: int) -> np.ndarray:
    """A cubic B-spline over uniform knots, with (control, n) coefficients, by scipy."""
    segments = len(points) - 3
    return BSpline(np.arange(-3, len(points) + 1), points, 3)(np.linspace(0, segments, length))


@pytest.mark.parametrize(("length", "control"), [(256, 6), (33, 5), (7, 4), (5, 12)])
def test_spline_basis_is_scipys(length, control):
    basis = deformation.spline_basis(length, control)
    assert basis.shape == (length, control)
    np.testing.assert_allclose(basis, bspline(np.eye(control), length), atol=1e-6)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_spline_field_is_the_tensor_product_of_its_control_points(distribution):
    field = deformation.spline_field((40, 70), 6, np.random.default_rng(3), 10.0, distribution)
    rng = np.random.default_rng(3)
    points = rng.uniform(-10, 10, (2, 6, 6)) if distribution == "uniform" else rng.normal(0, 10, (2, 6, 6))
    for component, control in zip(field, points, strict=True):
        expected = bspline(bspline(control, 40).T, 70).T
        np.testing.assert_allclose(component, expected, atol=1e-5)
    assert field.dtype == np.float32


def test_control_points_have_the_amplitude_asked_for():
    rng = np.random.default_rng(0)
    uniform = np.array([deformation.spline_field((9, 9), 4, rng, 10.0) for _ in range(300)])
    normal = np.array([deformation.spline_field((9, 9), 4, rng, 15.0, "normal") for _ in range(300)])
    # at a knot the weights are 1/6, 4/6 and 1/6 in each direction
    corner = np.sum(np.square([1 / 6, 4 / 6, 1 / 6]))
    assert np.abs(uniform).max() <= 10
    assert uniform[:, :, 0, 0].std() == pytest.approx(10 / 3**0.5 * corner, rel=0.1)
    assert normal[:, :, 0, 0].std() == pytest.approx(15 * corner, rel=0.1)


def test_a_cubic_spline_needs_four_control_points():
    with pytest.raises(ValueError, match="4 control points"):
        deformation.spline_basis(10, 3)


def test_nothing_deformed_maps_to_exact_pixels():
    grid = deformation.sampling_map((5, 8), (1999, -3))
    rows, columns = np.mgrid[1999:2004, -3:5]
    assert np.array_equal(grid, np.stack([rows, columns]))


def test_sampling_map_is_its_formula_at_every_pixel():
    rng = np.random.default_rng(1)
    field = rng.normal(size=(2, 6, 9)).astype(np.float32)
    matrix = deformation.linear_part(33, (0.7, 1.3))
    grid = deformation.sampling_map((6, 9), (20, 30), matrix, field)
    for row in range(6):
        for column in range(9):
            offset = np.array([row - 2.5, column - 4]) + field[:, row, column]
            np.testing.assert_allclose(grid[:, row, column], np.array([22.5, 34]) + matrix @ offset, atol=1e-4)


def resample(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    where = deformation.sampling(grid, (image.shape[0], image.shape[1]))
    return deformation.resample_frames(image[None], [0], [where])[0]


def test_rotation_turns_the_content_clockwise():
    image = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    grid = deformation.sampling_map((7, 7), (0, 0), deformation.linear_part(90, (1, 1)))
    np.testing.assert_allclose(resample(image, grid), np.rot90(image, -1), atol=1e-4)


def test_scale_enlarges_the_content_along_the_crops_axes():
    image = np.zeros((21, 21), np.float32)
    image[10, 8:13] = 1
    image[8:13, 10] = 1
    tall = resample(image, deformation.sampling_map((21, 21), (0, 0), deformation.linear_part(0, (2, 1))))
    assert (tall[:, 10] == 1).sum() == 9
    assert (tall[10] == 1).sum() == 5


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_mirror_is_numpys_reflection_however_far(length):
    far = 3 * length + 2
    expected = np.pad(np.arange(length), far, mode="reflect") if length > 1 else np.zeros(2 * far + 1)
    folded = deformation.mirror(np.arange(-far, length + far, dtype=np.float32), length)
    assert np.array_equal(folded, expected)


def test_frames_are_interpolated_as_by_scipy_and_mirrored_beyond_the_image():
    rng = np.random.default_rng(2)
    video = gaussian_filter(rng.normal(size=(3, 90, 110)), (0, 3, 3)).astype(np.float32)
    field = deformation.spline_field((64, 64), 6, rng, 8.0)
    grid = deformation.sampling_map((64, 64), (40, -20), deformation.linear_part(25, (0.8, 1.2)), field)
    assert grid[1].min() < 0
    assert grid[0].max() > 90
    where = deformation.sampling(grid, (90, 110))
    found = deformation.resample_frames(video, [2, 0], [where])
    expected = [map_coordinates(video[index], grid, order=1, mode="mirror") for index in (2, 0)]
    np.testing.assert_allclose(found, expected, atol=5e-3)  # older OpenCV interpolates in steps of 1/32 pixel
    half = deformation.resample_frames(video.astype(np.float16), [2, 0], [where])
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, found, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.int8])
def test_labels_are_those_of_a_plain_loop_over_pixels(dtype):
    rng = np.random.default_rng(4)
    limits = np.iinfo(dtype)
    video = rng.integers(limits.min, limits.max, (2, 40, 50), dtype, endpoint=True)
    video[:, 10:20] = rng.choice([-7, -2, -1, 0, 1, limits.max], (2, 10, 50))
    # away from ties, where rounding is a matter of taste; partly outside
    nearest = np.stack([rng.integers(-15, 60, (30, 30)), rng.integers(-15, 70, (30, 30))])
    grid = (nearest + rng.uniform(-0.45, 0.45, nearest.shape)).astype(np.float32)
    found = deformation.resample_labels(video, [1, 0], [deformation.sampling(grid, (40, 50))])
    assert found.dtype == dtype
    for position, index in enumerate((1, 0)):
        for row in range(30):
            for column in range(30):
                y, x = nearest[:, row, column]
                expected = video[index, y, x] if 0 <= y < 40 and 0 <= x < 50 else -1
                assert found[position, row, column] == expected


def test_the_window_is_the_bounding_box_of_what_is_read():
    grid = deformation.sampling_map((16, 16), (100, 200))
    where = deformation.sampling(grid, (1000, 1000))
    assert (where.rows, where.columns) == (slice(100, 117), slice(200, 217))  # one more to interpolate with
    where = deformation.sampling(deformation.sampling_map((16, 16), (-4, 990)), (1000, 1000))
    assert (where.rows, where.columns) == (slice(0, 13), slice(990, 1000))


class Counting(np.ndarray):
    """Counts the elements taken out of a video."""

    taken = 0

    def __getitem__(self, key):
        result = np.asarray(self)[key]
        Counting.taken += result.size
        return result


@pytest.mark.parametrize("read", [deformation.resample_frames, deformation.resample_labels])
def test_only_the_window_is_read(read):
    video = np.zeros((3, 500, 500), np.float32 if read is deformation.resample_frames else np.int32)
    grid = deformation.sampling_map((32, 32), (100, 470), deformation.linear_part(45, (1, 1)))
    where = deformation.sampling(grid, (500, 500))
    Counting.taken = 0
    read(video.view(Counting), [0, 2], [where])
    height, width = where.rows.stop - where.rows.start, where.columns.stop - where.columns.start
    assert Counting.taken == 2 * height * width
    assert max(height, width) <= 32 * 2**0.5 + 2


def test_a_field_over_time_is_the_tensor_product_of_its_control_points():
    fields = deformation.spline_fields(7, (40, 30), 4, 6, np.random.default_rng(3), 10.0)
    points = np.random.default_rng(3).uniform(-10, 10, (4, 2, 6, 6))
    over_time = bspline(points.reshape(4, -1), 7).reshape(7, 2, 6, 6)
    for field, control in zip(fields, over_time, strict=True):
        for component, at_frame in zip(field, control, strict=True):
            np.testing.assert_allclose(component, bspline(bspline(at_frame, 40).T, 30).T, atol=1e-4)
    assert fields.dtype == np.float32
