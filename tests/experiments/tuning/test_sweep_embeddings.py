"""Embeddings on disk: what is read is what the clustering would have seen, and room is kept."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_cells.experiments.tuning.embeddings import EmbeddingCache, StoredEmbeddings, StudyMistake, Writer
from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask

FRAMES = [[(1, 5, 7, 9), (1, 5, 7, 8)], [(2, 5, 7, 9), (2, 5, 7, 8)], [(2, 5, 7, 9), (2, 5, 7, 8)]]


def tiles(seed: int = 0) -> list[list[torch.Tensor]]:
    """Embeddings of three frames in two tiles, with background, zeros and a pixel that is not finite."""
    generator = torch.Generator().manual_seed(seed)
    made = [[torch.randn(shape, generator=generator) for shape in frame] for frame in FRAMES]
    for frame in made:
        for tile in frame:
            tile[:, 0] += 1.5
            tile[:, :, 0, 0] = 0
            tile[0, 1, 1, 1] = float("nan")
    return made


def write(made: list[list[torch.Tensor]]):
    def compute(writer: Writer) -> None:
        for index, frame in enumerate(made):
            for tile in frame:
                writer.add(index, tile)

    return compute


def test_foreground_comes_back_exactly(tmp_path: Path) -> None:
    made = tiles()
    stored = EmbeddingCache(tmp_path, 10**9).entry("one", write(made))
    for index, frame in enumerate(made):
        for tile, read in zip(frame, stored.frame(index, torch.device("cpu")), strict=True):
            inside = foreground_mask(tile)
            assert 0 < inside.float().mean() < 1
            assert torch.equal(foreground_mask(read), inside)
            assert torch.equal(read.transpose(0, 1)[:, inside], tile.transpose(0, 1)[:, inside])
            decoder = EmbeddingDecoder(min_size=1)
            assert np.array_equal(decoder(read), decoder(tile))


def test_computed_once(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, 10**9)
    first = cache.entry("one", write(tiles()))

    def again(writer: Writer) -> None:
        raise AssertionError("computed again")

    assert cache.entry("one", again).folder == first.folder
    assert EmbeddingCache(tmp_path, 10**9).entry("one", again).folder == first.folder


def test_broken_computation_leaves_nothing(tmp_path: Path) -> None:
    def broken(writer: Writer) -> None:
        writer.add(0, tiles()[0][0])
        raise RuntimeError("the lamp went out")

    with pytest.raises(RuntimeError):
        EmbeddingCache(tmp_path, 10**9).entry("one", broken)
    assert list(tmp_path.iterdir()) == []


def test_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, 10**9)
    stored = cache.entry("one", write(tiles()))
    values = stored.folder / "values.bin"
    values.write_bytes(values.read_bytes()[:-4])
    read = cache.entry("one", write(tiles()))
    assert len(list(read.frame(2, torch.device("cpu")))) == 2


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, 10**9)
    entries: dict[str, StoredEmbeddings] = {}
    for age, name in enumerate("abcd"):
        entries[name] = cache.entry(name, write(tiles(age)))
        os.utime(entries[name].folder, (time.time() - 100 + age,) * 2)
    cache.use(entries["a"])
    size = {name: sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in "abcd"}
    cache.limit = size["a"] + size["d"] + 10
    cache.make_room(keep={entries["d"].folder})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"], "in use, and kept"
    assert len(list(entries["b"].frame(0, torch.device("cpu")))) == 2, "who has it open can read on"
    cache.limit = size["d"] - 1
    with pytest.raises(StudyMistake, match=r"cache_gigabytes: .* need .* GB on disk: raise it"):
        cache.make_room(keep={entries["d"].folder})


def test_video_that_has_no_room(tmp_path: Path) -> None:
    with pytest.raises(StudyMistake, match="cache_gigabytes"):
        EmbeddingCache(tmp_path, 1000).entry("one", write(tiles()))
    assert list(tmp_path.iterdir()) == []
