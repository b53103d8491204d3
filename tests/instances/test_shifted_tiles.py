"""Mean shift of many tiles at once does to each what `MeanShift` does to one, and hardly ever asks the device."""

import numpy as np
import pytest
import tifffile
import torch
from truth_embeddings import colour, embed
from waits import Waits

from lightning_cells.data.simulate import simulate
from lightning_cells.errors import InputError
from lightning_cells.instances import shifted_tiles
from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask
from lightning_cells.instances.mean_shift import MeanShift
from lightning_cells.instances.shifted_tiles import cluster_tiles

SIDE, DEPTH = 128, 16


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def tiles(noise, count=5):
    """Cells as squares of several sizes, a tile of background and one of few pixels: (B, 2, DEPTH, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        y, x = np.mgrid[:SIDE, :SIDE] // (12 + 7 * number)
        frame = torch.from_numpy(1 + (3 * y + x) % 7)
        labels = torch.stack([frame, frame.roll((1, 1), (0, 1))])
        labels[:, number * 20 : number * 20 + 30] = 0
        made.append(torch.nn.functional.one_hot(labels, DEPTH).movedim(-1, 1).float())
    made[-1][:] = made[-1].new_tensor([1.0] + [0] * (DEPTH - 1)).view(-1, 1, 1)  # the background's embedding
    made[-2][:, :, 8:] = made[-1][:, :, 8:]
    stacked = torch.stack(made)
    return stacked + noise * torch.randn(stacked.shape, generator=generator)


@pytest.mark.parametrize("algorithm", ["exact", "fast"])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.25])
def test_tiles_are_clustered_as_one_by_one(algorithm, noise, monkeypatch):
    settings, embeddings = MeanShift(algorithm=algorithm, seeds=48), tiles(noise)
    mask = foreground_mask(embeddings)
    expected = settings.of_tiles(embeddings, mask)
    assert len(expected.unique()) > 4
    assert not expected[-1][~mask[-1]].any()
    assert torch.equal(cluster_tiles(embeddings, mask, settings), expected)
    monkeypatch.setattr(shifted_tiles, "_BLOCK", 1)  # what does not fit into memory at once
    assert torch.equal(cluster_tiles(embeddings, mask, settings), expected)


def test_seeds_still_moving_at_the_last_iteration_stay_where_they_are():
    settings, embeddings = MeanShift(max_iterations=3, seeds=24), tiles(0.25)
    mask = foreground_mask(embeddings)
    assert torch.equal(cluster_tiles(embeddings, mask, settings), settings.of_tiles(embeddings, mask))


def test_of_centres_in_a_chain_every_other_one_stays():
    angles = torch.arange(6) * 0.3
    centres = torch.stack([angles.cos(), angles.sin()], 1)[None]
    crowds = torch.tensor([[9.0, 8, 7, 6, 5, 4]])
    alive = torch.tensor([[True, True, True, True, True, False]])
    _, kept = shifted_tiles._suppress(centres, crowds, alive, 1 - float(torch.tensor(0.4).cos()))
    assert kept.tolist() == [[True, False, True, False, True, False]]


def test_embeddings_that_are_not_finite_are_refused():
    embeddings = tiles(0.02)
    mask = foreground_mask(embeddings)
    embeddings[1, 0, 3][mask[1, 0]] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        cluster_tiles(embeddings, mask, MeanShift())


class Asked(Waits):
    """Counts copies to the host, too."""

    def __init__(self, monkeypatch):
        super().__init__()
        for name in ("cpu", "tolist", "numpy"):
            plain = getattr(torch.Tensor, name)

            def counted(tensor, *args, name=name, plain=plain):
                self.found.append(name)
                return plain(tensor, *args)

            monkeypatch.setattr(torch.Tensor, name, counted)


def test_decoding_asks_the_device_as_often_for_many_tiles_as_for_one(monkeypatch):
    embeddings, decoder = tiles(0.05, 8), EmbeddingDecoder()

    def asked(given):
        with monkeypatch.context() as patch, Asked(patch) as waits:
            decoder.of_tiles(given)
        # what the host asks of what it has: once for each tile of the result
        return [wait for wait in waits.found if wait not in ("cpu", "numpy")]

    one_by_one = asked(embeddings)
    monkeypatch.setattr(MeanShift, "of_tiles", lambda settings, *given: cluster_tiles(*given, settings))
    together, alone = asked(embeddings), asked(embeddings[:1])
    assert len(one_by_one) > 15 * len(embeddings)
    assert len(together) <= len(alone) + 2 <= 8


def test_a_video_has_the_same_cells(tmp_path, monkeypatch):
    root = simulate(tmp_path, sequences=1, frames=2, size=(SIDE, SIDE), cells=12)
    truth = np.stack([tifffile.imread(path) for path in sorted((root / "01_GT/TRA").glob("man_track*.tif"))]).astype(
        np.int32
    )
    embeddings = embed(truth, colour(truth))[None]
    decoder = EmbeddingDecoder(min_size=1)
    (expected,) = decoder.of_tiles(embeddings)
    monkeypatch.setattr(MeanShift, "of_tiles", lambda settings, *given: cluster_tiles(*given, settings))
    (found,) = decoder.of_tiles(embeddings)
    assert found.max() > 8
    assert np.array_equal(found, expected)
