"""Volumes go through a 2-D network plane by plane, each plane as a video of its own, or each volume as one."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.linkers import Lap, Overlap
from lightning_cells.instances.volumes import Volumes
from lightning_cells.methods import RSHN, ULSTM, GRUUNet
from lightning_cells.methods import segmented as module
from lightning_cells.networks.architectures import UNet

SIZE = (5, 40, 48)


class Recorded:
    """Stands in for a decoder: keeps what it is given, and counts how many planes came before one was asked for."""

    def __init__(self) -> None:
        self.said: list[np.ndarray] = []

    def volume(self, planes, voxel) -> np.ndarray:
        self.said.append(np.stack(list(planes)))
        return np.zeros(SIZE, np.int32)

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        self.said.append(probabilities)
        return np.zeros(SIZE[1:], np.int32)


def methods():
    torch.manual_seed(0)
    yield ULSTM(channels=(4, 6), warm_up_frames=3)
    yield ULSTM(channels=(4, 6), warm_up_frames=0)
    yield ULSTM(channels=(4, 6), temporal="single-frame")
    yield GRUUNet(network=UNet(width=0.1))


def blobs(frames: int) -> Tensor:
    """Volumes in which each plane shows something, (T, Z, H, W) as they come from the cache."""
    noise = torch.randn(frames, *SIZE, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.avg_pool2d(noise, 9, 1, 4).mul(9).half()


def said_of_volumes(method, volumes: Tensor, sequence: str, flips: bool, parts: list[int]) -> np.ndarray:
    method.decoder = Recorded()
    video = method.open_volumes(SIZE, sequence=sequence)
    video.flips = flips
    for part in volumes.split(parts):
        video.instances(part)
    return np.stack(method.decoder.said)  # T, Z, C, H, W


def said_of_videos(method, videos: Tensor, flips: bool) -> np.ndarray:
    """The same of 2-D videos, (N, T, h, w), one after another."""
    found = []
    for frames in videos:
        video = method.open_video(SIZE[1:])
        video.flips = flips
        found.append(video.segment(frames[:, None].float()).numpy())
    return np.stack(found)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("pixels", [None, 2 * 40 * 48, 1])
@pytest.mark.parametrize("method", list(methods()), ids=["warm", "cold", "single-frame", "gruunet"])
def test_each_plane_is_a_video(method, pixels, flips, monkeypatch) -> None:
    method.eval()
    volumes = blobs(6)
    expected = said_of_videos(method, volumes.transpose(0, 1), flips).swapaxes(0, 1)
    if pixels is not None:
        monkeypatch.setattr(module, "_PIXELS", pixels)
    found = said_of_volumes(method, volumes, "time", flips, [4, 1, 1])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("method", list(methods()), ids=["warm", "cold", "single-frame", "gruunet"])
def test_each_volume_is_a_video_of_its_planes(method) -> None:
    method.eval()
    volumes = blobs(3)
    found = said_of_volumes(method, volumes, "z", False, [1, 2])
    np.testing.assert_allclose(found, said_of_videos(method, volumes, False), atol=1e-5)
    if isinstance(method, ULSTM) and method.hparams["temporal"] == "recurrent":
        assert np.abs(found - said_of_volumes(method, volumes, "time", False, [3])).max() > 1e-3


def test_goes_on_from_a_state() -> None:
    method = next(methods()).eval()
    volumes = blobs(6)
    whole = said_of_volumes(method, volumes, "time", False, [4, 1, 1])
    method.decoder = Recorded()
    first, second = method.open_volumes(SIZE), method.open_volumes(SIZE)
    first.instances(volumes[:4])
    second.state = first.state
    second.instances(volumes[4:])
    np.testing.assert_array_equal(np.stack(method.decoder.said), whole)


def test_few_planes_go_through_the_network_at_once(monkeypatch) -> None:
    method = GRUUNet(network=UNet(width=0.1)).eval()
    monkeypatch.setattr(module, "_PIXELS", 2 * 40 * 48)
    given, held = [], []
    method.network.register_forward_pre_hook(lambda network, inputs: given.append(len(inputs[0])))

    class Streaming(Recorded):
        def volume(self, planes, voxel):
            held.extend(len(given) for _ in planes)
            return np.zeros(SIZE, np.int32)

    method.decoder = Streaming()
    method.open_volumes(SIZE).instances(blobs(1))
    assert held == sorted(held)
    assert held[0] < held[-1]  # the first planes were decoded before the last went through the network


@pytest.mark.parametrize("flips", [False, True])
def test_memory_of_all_planes_is_told_before_it_is_taken(flips, monkeypatch) -> None:
    monkeypatch.setattr(module, "_PIXELS", 1)
    method, volumes = next(methods()).eval(), blobs(2)

    def parts(state) -> int:
        return state.numel() * 4 if isinstance(state, Tensor) else sum(map(parts, state))

    def begin(free: float, sequence: str = "time"):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
        method.decoder = Recorded()
        video = method.open_volumes(SIZE, sequence=sequence)
        video.flips = flips
        video.instances(volumes)
        return video

    taken = parts(begin(1e9).state)
    begin(1.01 * taken)
    begin(0, "z")
    warmed = []
    method.network.register_forward_hook(lambda *_: warmed.append(1))
    with pytest.raises(InputError, match=r"what the network remembers: a volume of 5 x 40 x 48 takes .*\(sequence z\)"):
        begin(0.99 * taken)
    assert len(warmed) == (4 if flips else 1)  # of one plane: the second frame, played backwards


def test_an_empty_plane_has_no_cells() -> None:
    method = GRUUNet(network=UNet(width=0.1)).eval()
    volumes = blobs(1)
    volumes[0, 2] = 0.5
    (said,) = said_of_volumes(method, volumes, "time", False, [1])
    assert (said[2, 0] == 1).all()
    assert not said[2, 1:].any()
    assert said[1, 1:].any()


def test_cells_get_the_size_on_disk() -> None:
    method = GRUUNet(network=UNet(width=0.1)).eval()
    (cells,) = method.open_volumes((5, 80, 96)).instances(blobs(1))
    assert cells.shape == (5, 80, 96)


def test_embeddings_are_of_images() -> None:
    with pytest.raises(InputError, match="RSHN: takes 2-D videos, and these frames are volumes of 5 planes") as told:
        RSHN(features=2, levels=1).open_volumes(SIZE)
    assert "\n" not in str(told.value)


class TestLinkers:
    @staticmethod
    def cubes(places) -> np.ndarray:
        labels = np.zeros((8, 40, 40), np.int32)
        for label, (z, y, x) in enumerate(places, 1):
            labels[z : z + 2, y : y + 6, x : x + 6] = label
        return labels

    def test_overlap_is_that_of_the_same_voxels_in_an_image(self) -> None:
        rng = np.random.default_rng(0)
        volumes, images = Overlap().start(), Overlap().start()
        frame = rng.integers(0, 9, (4, 5, 5)).repeat(4, 1).repeat(4, 2)
        for _ in range(6):
            frame = np.where(rng.random(frame.shape) < 0.2, np.roll(frame, 2, 2), frame).astype(np.int32)
            (found,) = volumes.push(frame)
            (expected,) = images.push(frame.reshape(-1, frame.shape[2]))
            np.testing.assert_array_equal(found.reshape(expected.shape), expected)
        assert volumes.lineage == images.lineage

    def test_a_division_in_depth(self) -> None:
        linker = Overlap().start()
        mother = np.zeros((8, 20, 20), np.int32)
        mother[1:7, 5:12, 5:12] = 3
        daughters = mother.copy()
        daughters[4:] *= 2
        linker.push(mother)
        (labels,) = linker.push(daughters)
        assert {row.parent for row in linker.lineage.values() if row.begin == 1} == {1}
        assert labels[2, 8, 8] != labels[6, 8, 8]

    def test_laptrack_measures_in_units_of_the_voxel(self) -> None:
        """The cell above is one plane away, the one beside it 6 pixels: which is nearer depends on the voxel."""
        pytest.importorskip("laptrack")
        first, second = self.cubes([(2, 10, 10)]), self.cubes([(3, 10, 10), (2, 10, 16)])
        for depth, expected in ((1.0, (3, 12, 12)), (20.0, (2, 12, 18))):
            linker = Lap(max_distance=1.5, division_distance=0.0).start(0, (depth, 1.0, 1.0))
            linker.push(first)
            linker.push(second)
            frames = list(linker.finish())
            assert frames[1][expected] == frames[0][2, 12, 12] == 1

    def test_laptrack_bridges_a_gap(self) -> None:
        pytest.importorskip("laptrack")
        linker = Lap().start(0, (3.0, 1.0, 1.0))
        for places in ([(2, 10, 10)], [], [(2, 12, 10)]):
            linker.push(self.cubes(places))
        frames = list(linker.finish())
        assert len(linker.lineage) == 1
        np.testing.assert_array_equal(frames[1], self.cubes([(2, 11, 10)]))


def test_the_options_are_kept_in_a_checkpoint() -> None:
    method = GRUUNet(network=UNet(width=0.1))
    assert method.hparams["decoder"]["init_args"]["volumes"]["init_args"] == vars(Volumes())
