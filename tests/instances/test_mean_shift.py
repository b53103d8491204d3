import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cells.errors import InputError
from lightning_cells.instances import mean_shift
from lightning_cells.instances.mean_shift import MeanShift, shuffle

DEPTH = 16


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def checkerboard(size, cell):
    """(2, H, W) labels 1..4 of square cells, the second frame moved by one pixel."""
    y, x = np.mgrid[:size, :size] // cell
    frame = 1 + 2 * (y % 2) + x % 2
    return np.stack([frame, np.roll(frame, (1, 1), (0, 1))])


def embed(labels, noise, seed=0):
    """Axis 1 + label for every cell, borders blurred, with noise: (T, DEPTH, H, W) float32."""
    clean = ndimage.gaussian_filter(np.eye(DEPTH)[labels], (0, 0.5, 0.5, 0))
    correlated = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=clean.shape), (0, 1, 1, 0))
    maps = clean + noise * correlated / correlated.std()
    return torch.from_numpy(np.moveaxis(maps, -1, 1).astype(np.float32).copy())


def everywhere(embeddings):
    return torch.ones(embeddings.shape[:1] + embeddings.shape[2:], dtype=torch.bool)


def plain_codes(embeddings, foreground, weight=0.005):
    unit = embeddings.double() / embeddings.double().norm(dim=1, keepdim=True)
    return np.stack([[*unit[t, :, y, x].tolist(), weight * y, weight * x] for t, y, x in foreground.nonzero().tolist()])


def scikit_loop(codes, seeds, bandwidth, iterations=300):
    """One seed after the other, as in the published code."""
    search = NearestNeighbors(radius=bandwidth, metric="cosine").fit(codes)
    modes = {}
    for mean in seeds:
        for _ in range(iterations):
            inside = search.radius_neighbors(mean[None], return_distance=False)[0]
            before, mean = mean, codes[inside].mean(0)
            if np.linalg.norm(mean - before) < 1e-3 * bandwidth:
                break
        modes[tuple(mean)] = len(inside)
    kept = []
    for mode in map(np.array, sorted(modes, key=lambda mode: (modes[mode], mode), reverse=True)):
        if all(1 - mode @ k / np.linalg.norm(mode) / np.linalg.norm(k) > bandwidth for k in kept):
            kept.append(mode)
    return NearestNeighbors(n_neighbors=1, metric="cosine").fit(np.array(kept)).kneighbors(codes)[1][:, 0]


@pytest.mark.parametrize("noise", [0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_exact_finds_the_clusters_of_a_loop_over_scikit_learn(noise):
    embeddings = embed(checkerboard(40, 10), noise)
    foreground = torch.from_numpy(np.random.default_rng(1).random((2, 40, 40)) < 0.7)
    labels = MeanShift(algorithm="exact", seeds=48, seed=3)(embeddings, foreground)
    codes = plain_codes(embeddings, foreground)
    expected = scikit_loop(codes, codes[shuffle(len(codes), 3)[:48]], 0.1)
    assert len(np.unique(expected)) >= 4
    assert adjusted_rand_score(expected, labels[foreground]) == 1
    assert (labels[~foreground] == 0).all()
    assert labels.dtype == torch.int32
    assert labels[foreground].unique().tolist() == list(range(1, expected.max() + 2))


@pytest.mark.parametrize("algorithm", ["exact", "fast"])
def test_cells_with_different_embeddings_are_parted(algorithm):
    truth = checkerboard(136, 34)
    embeddings = embed(truth, 0.05)
    labels = MeanShift(algorithm=algorithm)(embeddings, everywhere(embeddings))
    inner = ndimage.maximum_filter(truth, (1, 5, 5)) == ndimage.minimum_filter(truth, (1, 5, 5))
    assert adjusted_rand_score(truth[inner], labels.numpy()[inner]) == 1


def count_products(monkeypatch, call):
    """The result of a call and how many seeds times points it compared."""
    products, original = [], mean_shift._window_means

    def counted(points, seeds, bandwidth):
        products.append(points.shape[1] * len(seeds))
        return original(points, seeds, bandwidth)

    with monkeypatch.context() as patch:
        patch.setattr(mean_shift, "_window_means", counted)
        return call(), sum(products)


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_fast_finds_the_clusters_of_exact_with_a_fraction_of_the_work(monkeypatch, noise):
    embeddings = embed(checkerboard(136, 17), noise)
    mask = everywhere(embeddings)
    exact, all_work = count_products(monkeypatch, lambda: MeanShift(algorithm="exact")(embeddings, mask))
    fast, work = count_products(monkeypatch, lambda: MeanShift()(embeddings, mask))
    assert adjusted_rand_score(exact.ravel(), fast.ravel()) > 0.99
    assert work < all_work / 3


@pytest.mark.parametrize(("size", "noise"), [(136, 0.4), (40, 0.05)], ids=["noisy", "small"])
def test_fast_is_exact_where_embeddings_are_noisy_or_few(size, noise):
    embeddings = embed(checkerboard(size, 17), noise)
    exact, fast = (
        MeanShift(algorithm=name, seeds=48)(embeddings, everywhere(embeddings)) for name in ("exact", "fast")
    )
    assert torch.equal(exact, fast)


def test_runs_are_reproducible_and_leave_the_global_generator_alone():
    embeddings = embed(checkerboard(40, 10), 0.2)
    torch.manual_seed(1)
    first = MeanShift()(embeddings, everywhere(embeddings))
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    assert torch.equal(first, MeanShift()(embeddings, everywhere(embeddings)))
    assert not torch.equal(first, MeanShift(seed=1)(embeddings, everywhere(embeddings)))


def test_lengths_and_types_of_embeddings_do_not_matter():
    embeddings = embed(checkerboard(40, 10), 0.05)
    expected = MeanShift()(embeddings, everywhere(embeddings))
    lengths = 2.0 ** torch.randint(-8, 8, (2, 1, 40, 40), generator=torch.Generator().manual_seed(0))
    assert torch.equal(MeanShift()(embeddings * lengths, everywhere(embeddings)), expected)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        labels = MeanShift()(embeddings.to(dtype), everywhere(embeddings))
        assert adjusted_rand_score(labels.ravel(), expected.ravel()) > 0.99


def test_mixed_precision_around_does_not_change_the_clusters():
    embeddings = embed(checkerboard(40, 10), 0.2)
    expected = MeanShift()(embeddings, everywhere(embeddings))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            labels = MeanShift()(embeddings, everywhere(embeddings))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(labels, expected)


@pytest.mark.parametrize("algorithm", ["exact", "fast"])
def test_degenerate_foregrounds(algorithm):
    clustering = MeanShift(algorithm=algorithm)
    embeddings = torch.zeros(2, DEPTH, 136, 136)
    assert not clustering(embeddings, torch.zeros(2, 136, 136, dtype=torch.bool)).any()
    assert (clustering(embeddings, everywhere(embeddings)) > 0).all(), "embeddings without direction"
    embeddings[:, 3] = 2.0
    assert (clustering(embeddings, everywhere(embeddings)) == 1).all(), "constant embeddings"
    one_pixel = torch.zeros(2, 136, 136, dtype=torch.bool)
    one_pixel[1, 135, 7] = True
    assert torch.equal(clustering(embeddings, one_pixel), one_pixel.int())
    one_cell = torch.zeros(2, 136, 136, dtype=torch.bool)
    one_cell[:, 30:60, 40:80] = True
    assert torch.equal(clustering(embeddings, one_cell), one_cell.int())


def test_orthogonal_cells_are_parted_anywhere_in_the_largest_tile():
    cells = embed(checkerboard(40, 20), 0.02)
    for corner in (0, 256 - 40):
        embeddings = torch.zeros(2, DEPTH, 256, 256)
        foreground = torch.zeros(2, 256, 256, dtype=torch.bool)
        place = (..., slice(corner, corner + 40), slice(corner, corner + 40))
        embeddings[place], foreground[place] = cells, True
        assert MeanShift()(embeddings, foreground).max() == 4


def test_coordinates_from_far_away_merge_everything_so_large_tiles_are_refused():
    cells = embed(checkerboard(40, 20), 0.02)
    near = torch.from_numpy(plain_codes(cells, everywhere(cells)).T).float()
    far = near.clone()
    far[-2:] += 0.005 * 768
    assert MeanShift().cluster(near, everywhere(cells)).max() == 4
    assert MeanShift().cluster(far, everywhere(cells)).max() == 1

    large = torch.zeros(2, DEPTH, 16, 257)
    with pytest.raises(InputError, match=r"weight: 0\.005 .* 16x257 tile; use tiles of at most 256 pixels"):
        MeanShift()(large, everywhere(large))
    MeanShift(coordinate_weight=0.0049)(large, everywhere(large))
    with pytest.raises(InputError, match="at most 128 pixels"):
        MeanShift(coordinate_weight=0.01)(large, everywhere(large))


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("algorithm", ["exact", "fast"])
def test_no_tensor_is_larger_than_the_points_themselves(algorithm):
    embeddings = embed(checkerboard(104, 13), 0.05)
    with Largest() as largest:
        MeanShift(algorithm=algorithm)(embeddings, everywhere(embeddings))
    assert largest.elements <= (DEPTH + 4) * 2 * 104 * 104  # a column is a code, its length and a one


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_seeds_still_moving_at_the_last_iteration_stay_where_they_are(iterations):
    embeddings = embed(checkerboard(40, 10), 0.2)
    mask = everywhere(embeddings)
    labels = MeanShift(max_iterations=iterations, seeds=24)(embeddings, mask)
    codes = plain_codes(embeddings, mask)
    expected = scikit_loop(codes, codes[shuffle(len(codes), 0)[:24]], 0.1, iterations)
    assert adjusted_rand_score(expected, labels[mask]) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("algorithm", ["exact", "fast"])
def test_a_gpu_finds_the_same_clusters(algorithm):
    embeddings = embed(checkerboard(136, 17), 0.05)
    mask = everywhere(embeddings)
    expected = MeanShift(algorithm=algorithm)(embeddings, mask)
    labels = MeanShift(algorithm=algorithm)(embeddings.cuda(), mask.cuda())
    assert labels.is_cuda
    assert adjusted_rand_score(expected.ravel(), labels.cpu().ravel()) > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": 0}, "bandwidth: 0 is"),
        ({"bandwidth": 1.5}, "bandwidth: 1.5 is"),
        ({"coordinate_weight": -0.1}, "coordinate_weight: -0.1 is negative"),
        ({"algorithm": "quick"}, "algorithm: 'quick' is unknown; choose 'fast' or 'exact'"),
        ({"seeds": 0}, "seeds: 0"),
        ({"max_iterations": 0}, "max_iterations: 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        MeanShift(**options)


def test_wrong_inputs_are_refused():
    embeddings = torch.ones(2, DEPTH, 8, 8)
    with pytest.raises(InputError, match="do not belong together"):
        MeanShift()(embeddings, torch.ones(2, 8, 9, dtype=torch.bool))
    with pytest.raises(InputError, match="do not belong together"):
        MeanShift()(embeddings[0], torch.ones(2, 8, 8, dtype=torch.bool))
    embeddings[0, 2, 3, 4] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        MeanShift()(embeddings, everywhere(embeddings))
    mask = everywhere(embeddings)
    mask[0, 3, 4] = False
    assert (MeanShift()(embeddings, mask) == mask).all()
