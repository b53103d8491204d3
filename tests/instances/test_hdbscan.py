import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN as ScikitHDBSCAN
from sklearn.metrics import adjusted_rand_score

from lightning_cells.errors import InputError
from lightning_cells.instances.hdbscan import HDBSCAN


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def two_cells(noise=0.05):
    """(2, 6, 24, 24) embeddings of a left and a right cell and their (2, 24, 24) labels, 0 between them."""
    labels = np.zeros((2, 24, 24), int)
    labels[:, 4:20, 2:10], labels[:, 4:20, 14:22] = 1, 2
    maps = np.eye(6)[labels] + noise * np.random.default_rng(0).normal(size=(2, 24, 24, 6))
    return torch.from_numpy(np.moveaxis(maps, -1, 1).astype(np.float32).copy()), labels


def test_labels_are_those_of_scikit_learn_on_the_codes():
    embeddings, truth = two_cells(noise=0.2)
    foreground = torch.from_numpy(truth > 0)
    labels = HDBSCAN(min_cluster_size=30, coordinate_weight=0.02)(embeddings, foreground)
    codes = []
    for t, y, x in foreground.nonzero().tolist():
        vector = embeddings[t, :, y, x].numpy()
        codes.append([*(vector / np.linalg.norm(vector)), 0.02 * y, 0.02 * x])
    search = ScikitHDBSCAN(min_cluster_size=30, min_samples=30, metric="euclidean", copy=True)
    expected = search.fit_predict(np.array(codes, np.float32)) + 1
    assert set(expected) == {0, 1, 2}, "two clusters and noise"
    np.testing.assert_array_equal(labels[foreground].numpy(), expected)
    assert labels.dtype == torch.int32
    assert not labels[~foreground].any()


def test_cells_are_found_and_outliers_become_background():
    embeddings, truth = two_cells()
    foreground = torch.from_numpy(truth > 0)
    embeddings[0, :, 5, 5] = torch.tensor([0.0, 0, 0, -1, 0, 0])
    labels = HDBSCAN(min_cluster_size=100)(embeddings, foreground)
    assert labels[0, 5, 5] == 0
    found = labels > 0
    assert found.sum() > 0.95 * foreground.sum()
    assert adjusted_rand_score(truth[found.numpy()], labels[found]) == 1


def test_equal_embeddings_are_parted_by_position():
    embeddings, truth = two_cells(noise=0)
    embeddings[:] = 1
    labels = HDBSCAN(min_cluster_size=50, coordinate_weight=0.05)(embeddings, torch.from_numpy(truth > 0))
    found = labels > 0  # corners have fewer neighbours and may count as noise
    assert found.sum() > 0.9 * (truth > 0).sum()
    assert labels.unique().tolist() == [0, 1, 2]
    assert adjusted_rand_score(truth[found.numpy()], labels[found]) == 1


def test_any_tile_size_and_few_pixels():
    embeddings = torch.ones(2, 4, 8, 400)
    foreground = torch.zeros(2, 8, 400, dtype=torch.bool)
    assert not HDBSCAN()(embeddings, foreground).any()
    foreground[0, 0, :99] = True
    assert not HDBSCAN(min_cluster_size=100)(embeddings, foreground).any()


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="min_cluster_size: 1 is too small"):
        HDBSCAN(min_cluster_size=1)
    with pytest.raises(InputError, match="coordinate_weight: -1 is negative"):
        HDBSCAN(coordinate_weight=-1)


def test_a_lone_cell_is_lost_as_the_documentation_says():
    embeddings, truth = two_cells()
    assert not HDBSCAN(min_cluster_size=100)(embeddings, torch.from_numpy(truth == 1)).any()
