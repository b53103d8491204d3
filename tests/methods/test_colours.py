"""Pictures of what networks say."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_cells.instances.tiling import Tiling
from lightning_cells.methods import RSHN, ULSTM
from lightning_cells.methods.colours import class_colours, embedding_colours


def embedded(labels: np.ndarray, depth: int = 16, noise: float = 0.03, seed: int = 0) -> torch.Tensor:
    """The unit vector e_k for label k, e_0 for background, and noise."""
    rng = np.random.default_rng(seed)
    vectors = np.eye(depth)[labels] + noise * rng.normal(size=(*labels.shape, depth))
    return torch.from_numpy(np.moveaxis(vectors, -1, 0).astype(np.float32))


LABELS = np.kron(np.array([[0, 1, 0, 2], [3, 3, 0, 4], [0, 0, 0, 5]]), np.ones((8, 8), int))


def test_cells_have_colours_of_their_own_on_black():
    picture = embedding_colours(embedded(LABELS)).astype(int)
    assert picture.shape == (*LABELS.shape, 3)
    assert picture[LABELS == 0].max() <= 8
    colours = np.array([picture[k == LABELS].mean(0) for k in range(1, 6)])
    assert colours.max(1).min() > 60, "no cell is taken for background"
    between = np.linalg.norm(colours[:, None] - colours, axis=-1)[~np.eye(5, dtype=bool)]
    within = max(picture[k == LABELS].std(0).max() for k in range(1, 6))
    assert between.min() > 40 > 2 * within


def test_components_are_the_principal_ones_of_the_foreground():
    """Against the singular value decomposition of the foreground's unit vectors."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(6, 9, 11, generator=generator) * torch.tensor([0.2, 3, 2, 1.5, 0.5, 0.3])[:, None, None]
    units = normalize(embeddings, dim=0).numpy().reshape(6, -1).T.astype(float)
    foreground = units[:, 0] ** 2 <= 0.5
    centred = units - units[foreground].mean(0)
    _, singular, axes = np.linalg.svd(centred[foreground], full_matrices=False)
    for axis in axes:
        axis *= np.sign(axis[np.abs(axis).argmax()])
    deviations = singular / np.sqrt(foreground.sum())
    expected = np.clip(0.5 + (centred @ axes[:3].T) / deviations[:3] / 4, 0, 1)
    expected = (0.12 + 0.88 * expected) * (1 - units[:, :1] ** 2)
    np.testing.assert_allclose(embedding_colours(embeddings).reshape(-1, 3) / 255, expected, atol=0.003)


def test_lengths_do_not_matter():
    embeddings = embedded(LABELS)
    stretched = embeddings * torch.linspace(0.1, 50, LABELS.size).reshape(LABELS.shape)
    np.testing.assert_allclose(embedding_colours(stretched).astype(int), embedding_colours(embeddings), atol=1)


@pytest.mark.parametrize("depth", [1, 2, 3, 16])
def test_whatever_the_network_says_can_be_drawn(depth):
    assert not embedding_colours(torch.zeros(depth, 4, 5)).any()
    background = torch.zeros(depth, 4, 5)
    background[0] = 2
    assert not embedding_colours(background).any()
    same = torch.zeros(depth, 4, 5)
    same[-1] = -1
    assert len(np.unique(embedding_colours(same).reshape(-1, 3), axis=0)) == 1
    wild = torch.randn(depth, 4, 5)
    wild[:, 0, 0], wild[:, 1, 1], wild[:, 2, 2] = torch.nan, torch.inf, 1e30
    picture = embedding_colours(wild)
    assert (picture.dtype, picture.shape) == (np.uint8, (4, 5, 3))
    assert not picture[0, 0].any()


def test_classes_mix_by_their_shares():
    one_hot = torch.eye(4).reshape(4, 2, 2)
    pure = class_colours(one_hot).astype(float).reshape(4, 3)
    assert not pure[0].any()
    assert np.linalg.norm(pure[:, None] - pure, axis=-1)[~np.eye(4, dtype=bool)].min() > 100
    shares = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).softmax(0)
    mixed = np.einsum("chw,ck->hwk", shares.numpy(), pure)
    np.testing.assert_allclose(class_colours(shares), mixed, atol=1)
    np.testing.assert_allclose(class_colours(shares[:2]), np.einsum("chw,ck->hwk", shares[:2], pure[:2]), atol=1)


def rshn(**options) -> RSHN:
    torch.manual_seed(0)
    return RSHN(features=4, levels=2, embedding=5, window=3, **options).eval()


@torch.no_grad()
def test_embeddings_are_those_of_the_window_that_ends_with_the_frame():
    method, frames = rshn(), torch.randn(6, 1, 24, 20)
    expected = method.network(frames[None, 3:])[0][-1][0, -1]
    np.testing.assert_allclose(method.picture(frames).astype(int), embedding_colours(expected), atol=1)
    assert method.picture(frames[:1]).shape == (24, 20, 3)


@torch.no_grad()
def test_tiles_of_a_picture_fit_together(monkeypatch):
    """A network that sees single pixels embeds them alike in all tiles."""
    method = rshn(tiling=Tiling(tile=16, overlap=6, margin=2))
    seen = []

    def embed(frames, contracted, last):
        seen.append(frames.shape[-2:])
        return torch.cat([torch.cos(k * frames[:, -last:]) for k in range(1, 6)], 2)

    monkeypatch.setattr(method.network, "embed", embed)
    frames = torch.randn(2, 1, 37, 61)
    expected = embedding_colours(embed(frames[None], (), 1)[0, 0])
    seen.clear()
    np.testing.assert_array_equal(method.picture(frames), expected)
    assert set(seen) == {(16, 16)}


@torch.no_grad()
def test_ulstm_draws_its_classes():
    torch.manual_seed(0)
    method, frames = ULSTM(channels=(4, 6), lstm_kernel=3, warm_up_frames=2).eval(), torch.randn(4, 1, 17, 30)
    kept = []
    method.decoder = lambda probabilities: kept.append(probabilities) or np.zeros((17, 30), np.int32)
    method.open_video((17, 30)).instances(frames)
    np.testing.assert_array_equal(method.picture(frames), class_colours(torch.from_numpy(kept[-1])))
