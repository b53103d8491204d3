import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy import ndimage

from lightning_cells.errors import InputError
from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask
from lightning_cells.instances.hdbscan import HDBSCAN
from lightning_cells.instances.mean_shift import MeanShift

EDGES = ndimage.generate_binary_structure(3, 2)  # 18 neighbours


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def discs(size, centres, radius, moves=(0, 0)):
    """(2, size, size) labels of discs, the second frame moved."""
    labels = np.zeros((2, size, size), np.int32)
    y, x = np.mgrid[:size, :size]
    for frame in range(2):
        for label, (a, b) in enumerate(centres, 1):
            inside = (y - a - frame * moves[0]) ** 2 + (x - b - frame * moves[1]) ** 2 <= radius**2
            labels[frame][inside] = label
    return labels


def embed(labels, axis, noise=0.03):
    """Axis 0 for the background, axis[label] for cells: (2, 8, H, W) float32."""
    maps = np.eye(8)[np.array([0, *axis])[labels]] + noise * np.random.default_rng(0).normal(size=(*labels.shape, 8))
    return torch.from_numpy(np.moveaxis(maps, -1, 1).astype(np.float32).copy())


def same_partition(first, second):
    pairs = set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    return (0, 0) in pairs and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_foreground_is_what_points_away_from_the_background():
    vectors = [(1, 0), (-3, 0), (2, 1), (1.001, 1), (1, 1), (-1, 1.001), (0, 5), (0, 0), (0, np.nan), (1, np.inf)]
    embeddings = torch.tensor(vectors, dtype=torch.float32).T.reshape(1, 2, 1, -1)
    expected = [False, False, False, False, True, True, True, False, False, False]
    assert foreground_mask(embeddings).flatten().tolist() == expected
    assert foreground_mask(torch.full((1, 4, 1, 1), 300.0, dtype=torch.float16)).all(), "squares above float16's range"


@pytest.mark.parametrize("clustering", [MeanShift(), MeanShift(algorithm="exact"), HDBSCAN(min_cluster_size=100)])
def test_far_cells_with_one_embedding_and_near_cells_with_two_are_parted(clustering):
    truth = discs(64, [(14, 14), (14, 29), (45, 40), (50, 12)], 7, moves=(2, 1))
    embeddings = embed(truth, [1, 2, 1, 2])
    labels = EmbeddingDecoder(clustering=clustering)(embeddings)
    assert labels.dtype == np.int32
    # density-based clustering may leave single pixels out
    found = labels > 0
    assert (found <= (truth > 0)).all()
    assert found.sum() > 0.97 * (truth > 0).sum()
    assert same_partition(labels, np.where(found, truth, 0))


def test_touching_cells_with_two_embeddings_are_parted():
    truth = np.zeros((2, 40, 40), np.int32)
    truth[:, 5:35, 5:20], truth[:, 5:35, 20:35] = 1, 2
    assert same_partition(EmbeddingDecoder()(embed(truth, [1, 2])), truth)


def test_frames_without_cells_or_all_cell():
    background = torch.zeros(2, 8, 32, 32)
    background[:, 0] = 1
    assert not EmbeddingDecoder()(background).any()
    assert not EmbeddingDecoder()(torch.zeros(2, 8, 32, 32)).any()
    assert not EmbeddingDecoder()(torch.full((2, 8, 32, 32), torch.nan)).any()
    cell = torch.zeros(2, 8, 32, 32)
    cell[:, 5] = -3
    assert (EmbeddingDecoder()(cell) == 1).all()
    one = discs(64, [(30, 30)], 9)
    assert (EmbeddingDecoder()(embed(one, [4])) == one).all()


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_every_cluster_alone(seed):
    rng = np.random.default_rng(seed)
    clusters = ndimage.zoom(rng.integers(0, 4, (2, 14, 14)), (1, 2, 2), order=0).astype(np.int32)
    clusters[rng.random(clusters.shape) < 0.3] = 0
    for min_size in (1, 9):
        expected, count = np.zeros(clusters.shape, int), 0
        for cluster in range(1, 4):
            parts, found = ndimage.label(clusters == cluster, EDGES)
            for part in range(1, found + 1):
                if (parts == part).sum() >= min_size:
                    count += 1
                    expected[parts == part] = count
        labels = EmbeddingDecoder(min_size=min_size).split(torch.from_numpy(clusters))
        assert count > 5
        assert same_partition(labels, expected)
        assert np.unique(labels).tolist() == list(range(count + 1))
        assert labels.dtype == np.int32


def test_a_cluster_may_have_many_components():
    clusters = torch.zeros(2, 64, 64, dtype=torch.int32)
    clusters[0, ::2, ::2] = 1
    assert EmbeddingDecoder(min_size=1).split(clusters).max() == 1024


def test_connection_over_time_needs_a_shared_face_or_edge():
    clusters = torch.zeros(2, 5, 5, dtype=torch.int32)
    clusters[0, 2, 2] = clusters[1, 2, 3] = 1
    assert EmbeddingDecoder(min_size=2).split(clusters).max() == 1
    clusters[1] = 0
    clusters[1, 3, 3] = 1  # only a corner
    assert EmbeddingDecoder(min_size=1).split(clusters).max() == 2
    assert EmbeddingDecoder(min_size=2).split(clusters).max() == 0


def test_sizes_are_those_of_both_frames_together():
    truth = discs(64, [(15, 15), (45, 45)], 5)
    truth[1][truth[1] == 2] = 0
    voxels = int((truth == 1).sum())
    labels = EmbeddingDecoder(min_size=voxels)(embed(truth, [1, 2]))
    assert (labels == (truth == 1)).all()
    assert not EmbeddingDecoder(min_size=voxels + 1)(embed(truth, [1, 2])).any()


def test_gradients_and_input_are_left_alone():
    embeddings = embed(discs(32, [(15, 15)], 9), [1])
    before = embeddings.clone()
    EmbeddingDecoder()(embeddings.requires_grad_())
    assert torch.equal(embeddings, before)
    assert embeddings.grad is None


def test_command_line():
    parser = ArgumentParser()
    parser.add_argument("--decoder", type=EmbeddingDecoder, default=EmbeddingDecoder())
    options = ["--decoder.clustering=HDBSCAN", "--decoder.clustering.min_cluster_size=50", "--decoder.min_size=500"]
    chosen = parser.instantiate(parser.parse_args(options)).decoder
    assert chosen == EmbeddingDecoder(clustering=HDBSCAN(min_cluster_size=50), min_size=500)
    changed = parser.instantiate(parser.parse_args(["--decoder.clustering.bandwidth=.2"])).decoder
    assert changed == EmbeddingDecoder(clustering=MeanShift(bandwidth=0.2))


def test_wrong_options_and_inputs_are_refused():
    with pytest.raises(InputError, match="min_size: -1 is negative"):
        EmbeddingDecoder(min_size=-1)
    with pytest.raises(InputError, match="decoder: embeddings of shape"):
        EmbeddingDecoder()(torch.zeros(8, 32, 32))
    with pytest.raises(InputError, match="tiles of at most 256 pixels"):
        EmbeddingDecoder()(torch.zeros(2, 8, 300, 32))
