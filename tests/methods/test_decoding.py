"""Settings of decoders that are changed from outside, and pieces of cells that are dropped."""

from pathlib import Path

import numpy as np
import pytest
import seeing
import torch

import lightning_cells as lc
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder, SeedDecoder
from lightning_cells.instances.nuclei import NucleusDecoder
from lightning_cells.instances.volumes import Volumes
from lightning_cells.methods import RSHN, ULSTM
from lightning_cells.methods.decoding import decode_by, drop_smaller, resized
from lightning_cells.methods.loading import SETTINGS
from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.networks.ulstm import ULSTM as ULSTMNetwork

DIAMETER = 20.0  # of the cells that the checkpoints know


def small(method: type = ULSTM, **options):
    sizes = {"channels": (4, 6), "lstm_kernel": 3} if method is ULSTM else {"features": 4, "levels": 2}
    return method(**sizes, **options)


def test_settings_by_name():
    method = small()
    decode_by(method, {"seed_threshold": "0.7", "seed_size": 9, "max_size": "500"})
    assert method.decoder == SeedDecoder(seed_threshold=0.7, seed_size=9, max_size=500)
    decode_by(method, {"max_size": None, "seed_threshold": 1})
    assert method.decoder == SeedDecoder(seed_threshold=1, seed_size=9)
    method = small(RSHN)
    before = method.decoder
    decode_by(method, {"clustering.bandwidth": "0.2", "clustering.algorithm": "exact"})
    assert (method.decoder.clustering.bandwidth, method.decoder.clustering.algorithm) == (0.2, "exact")
    assert method.decoder.min_size == before.min_size


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed_threshhold", 0.7, "--decoder.seed_threshhold: there is no such setting: did you mean 'seed_threshold'"),
        ("colour", 1, "--decoder.colour: there is no such setting: there are min_size, max_size"),
        ("seed_size", "2.5", "--decoder.seed_size 2.5: must be of the kind of 5"),
        ("seed_size", "many", "must be of the kind of 5"),
        ("seed_size.x", 3, "--decoder.seed_size.x: there is no such setting"),
        ("seed_threshold", 1.5, "seed_threshold: 1.5 is no probability"),
    ],
)
def test_settings_that_are_none(name, value, said):
    with pytest.raises(InputError) as told:
        decode_by(small(), {name: value})
    assert said in str(told.value)


def test_sizes_go_with_the_cells():
    decoder = SeedDecoder(min_size=10, max_size=100, seed_size=5, border=25, seed_threshold=0.9)
    larger = SeedDecoder(
        min_size=90,
        max_size=900,
        seed_size=45,
        border=25,
        seed_threshold=0.9,
        faint_size=450,
        faint_distance=9.0,
        volumes=Volumes(depth=1.5, blur=6.0),
    )
    assert decoder.resized(3) == larger
    assert ArgmaxDecoder(edge_distance=3).resized(0.5).edge_distance == 1.5
    assert NucleusDecoder(nucleus_size=8).resized(0.5).nucleus_size == 2
    method = small(decoder=decoder)
    other = resized(method, 3)
    assert (method.decoder, other.decoder) == (decoder, larger)
    assert other.network is method.network
    embedding = small(RSHN)
    assert resized(embedding, 3).decoder == embedding.decoder  # at the network's resolution


def test_a_share_of_a_cell():
    """A disc of 20 pixels has 314 of them, and 1257 in frames of twice the size."""
    for method, scale, expected in ((ULSTM, 1.0, 79), (ULSTM, 0.5, 314), (RSHN, 0.5, 157)):
        chosen = small(method)
        drop_smaller(chosen, 0.25, DIAMETER, scale)
        assert chosen.decoder.min_size == expected


@pytest.mark.parametrize("name", ["ulstm", "rshn"])
def test_pieces_are_dropped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, part in ((ULSTMNetwork, "forward"), (StackedHourglass, "contract"), (StackedHourglass, "embed")):
        monkeypatch.setattr(kind, part, getattr(kind, part))  # to be put back
    seeing.install()
    path = seeing.save(seeing.methods()[name], tmp_path / "a.ckpt")
    content = torch.load(path, weights_only=True)
    content[SETTINGS]["diameter"] = DIAMETER
    torch.save(content, path)
    frames = np.random.default_rng(0).integers(0, 30, (3, 90, 90)).astype(np.uint8)
    for top, side in ((5, 18), (40, 9), (70, 4)):  # a cell, a quarter of one, and a piece
        frames[:, top : top + side, top : top + side] += 200

    def kept(**options) -> int:
        return len(lc.load(path, "cpu", diameter="training", **options).track(frames).lineage)

    assert [kept(), kept(min_size=0), kept(min_size=0.1), kept(min_size=0.3)] == [3, 3, 2, 1]
    assert kept(decoder={"min_size": 50 if name == "ulstm" else 100}) == 2
    del content[SETTINGS]["diameter"]
    torch.save(content, path)
    with pytest.raises(InputError, match="does not remember the size of its cells"):
        kept(min_size=0.1)
