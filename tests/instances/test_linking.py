from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cells.errors import InputError
from lightning_cells.instances.linking import OverlapLinker


def row(text):
    """One-row frame: a digit per pixel, "." is background."""
    return np.array([[0 if c == "." else int(c) for c in text]], np.int32)


def link(*frames, **options):
    linker = OverlapLinker(**{"min_overlap": 0.5} | options)
    linked = [one for frame in frames for one in linker.push(row(frame) if isinstance(frame, str) else frame)]
    assert linker.finish() == []
    return linked, {tuple(track) for track in linker.lineage.values()}


def text(labels):
    return "".join("." if v == 0 else str(v) for v in labels.ravel().tolist())


def check_result(frames, lineage, first=0):
    """The challenge's rules for a result, written plainly and apart from the package."""
    seen = {}
    for number, frame in enumerate(frames, first):
        for label in set(frame.ravel().tolist()) - {0}:
            seen.setdefault(label, []).append(number)
    assert set(seen) == set(lineage)
    for label, (own, begin, end, parent) in lineage.items():
        assert label == own
        assert 1 <= label <= 65535
        assert seen[label] == list(range(begin, end + 1))
        if parent:
            assert lineage[parent].end < begin


def plain_link(frames, min_overlap, ratio):
    """The rules by sets and loops: per frame {pixels of a cell: its track}, and {track: (begin, end, parent)}."""
    result, tracks, before = [], {}, {}
    for number, frame in enumerate(frames):
        cells = [
            frozenset(map(tuple, np.argwhere(frame == v).tolist())) for v in sorted(set(frame.ravel().tolist()) - {0})
        ]
        heirs = {}
        for cell in cells:
            covers = [(len(cell & old), old) for old in before]
            most = max((n for n, _ in covers), default=0)
            if most > min_overlap * len(cell):
                heirs.setdefault(next(old for n, old in covers if n == most), []).append((most, cell))
        now, parents = {}, {}
        for old, candidates in heirs.items():
            largest = max(len(cell) for _, cell in candidates)
            whole = [(n, cell) for n, cell in candidates if len(cell) >= ratio * largest]
            if len(whole) == 2:
                parents |= {cell: before[old] for _, cell in whole}
            else:
                most = max(n for n, _ in whole)
                now[next(cell for n, cell in whole if n == most)] = before[old]
        for cell in cells:
            if cell not in now:
                now[cell] = len(tracks) + 1
                tracks[now[cell]] = (number, number, parents.get(cell, 0))
            begin, _, parent = tracks[now[cell]]
            tracks[now[cell]] = (begin, number, parent)
        before = {cell: now[cell] for cell in cells}
        result.append(before)
    return result, tracks


def test_a_cell_that_stays_keeps_its_label():
    linked, lineage = link("..44...", "...99..", "....22.")
    assert [text(frame) for frame in linked] == ["..11...", "...22..", "....33."]  # half is not more than half
    linked, lineage = link("..444..", "...999.", "...22..")
    assert [text(frame) for frame in linked] == ["..111..", "...111.", "...11.."]
    assert lineage == {(1, 0, 2, 0)}
    assert linked[0].dtype == np.int32


def test_division():
    linked, lineage = link("11111111", "111..222", "111..222")
    assert [text(frame) for frame in linked] == ["11111111", "222..333", "222..333"]
    assert lineage == {(1, 0, 0, 0), (2, 1, 2, 1), (3, 1, 2, 1)}


def test_a_division_needs_both_daughters():
    linked, lineage = link("1111....", "11.222..")  # the right one has one of three pixels on the mother
    assert text(linked[1]) == "11.222.."
    assert lineage == {(1, 0, 1, 0), (2, 1, 1, 0)}
    linked, lineage = link("1111....", "11.222..", min_overlap=0.3)
    assert text(linked[1]) == "22.333.."
    assert lineage == {(1, 0, 0, 0), (2, 1, 1, 1), (3, 1, 1, 1)}


def test_a_fragment_is_no_daughter():
    linked, lineage = link("1111111.", "5.77777.")
    assert text(linked[1]) == "2.11111."
    assert lineage == {(1, 0, 1, 0), (2, 1, 1, 0)}
    linked, lineage = link("1111111.", "5.77777.", min_division_ratio=0)
    assert text(linked[1]) == "2.33333."
    assert lineage == {(1, 0, 0, 0), (2, 1, 1, 1), (3, 1, 1, 1)}
    _, lineage = link("11111111", "55.77777", min_division_ratio=0.4)  # just large enough
    assert (2, 1, 1, 1) in lineage


def test_two_daughters_beside_a_fragment_are_a_division():
    linked, lineage = link("1111111111", "111.2.3333")
    assert text(linked[1]) == "222.3.4444"
    assert lineage == {(1, 0, 0, 0), (2, 1, 1, 1), (3, 1, 1, 0), (4, 1, 1, 1)}


def test_of_three_heirs_the_largest_overlap_continues():
    linked, lineage = link("11111111111.", "222.3333.444")
    assert text(linked[1]) == "222.1111.333"
    assert lineage == {(1, 0, 1, 0), (2, 1, 1, 0), (3, 1, 1, 0)}
    linked, _ = link("111111111111..", "222.3333.44444")  # by overlap, not by size
    assert text(linked[1]) == "222.1111.33333"
    linked, lineage = link("11111111111", "33.444.222.", min_division_ratio=0)  # equals: the lowest label
    assert text(linked[1]) == "22.333.111."


def test_merge():
    linked, lineage = link("111.2222", "33333333", "33333333")
    assert [text(frame) for frame in linked] == [
        "111.2222",
        "33333333",
        "33333333",
    ]  # four of eight is not more than half
    assert lineage == {(1, 0, 0, 0), (2, 0, 0, 0), (3, 1, 2, 0)}
    linked, lineage = link("11.22222", "33333333")
    assert text(linked[1]) == "22222222"
    assert lineage == {(1, 0, 0, 0), (2, 0, 1, 0)}


def test_a_gap_is_not_bridged():
    linked, lineage = link("111...", "......", "111...", first_frame=7)
    assert [text(frame) for frame in linked] == ["111...", "......", "222..."]
    assert lineage == {(1, 7, 7, 0), (2, 9, 9, 0)}


def test_nothing_to_link():
    assert OverlapLinker().lineage == {}
    linked, lineage = link("....", "....")
    assert [text(frame) for frame in linked] == ["....", "...."]
    assert lineage == set()


def test_labels_need_not_be_consecutive_and_are_not_changed():
    frames = [np.zeros((20, 20), np.int32) for _ in range(2)]
    frames[0][:5, :5], frames[0][10:, 10:] = 60000, 7
    frames[1][:5, :6], frames[1][9:, 10:] = 3, 50001
    before = [frame.copy() for frame in frames]
    linked, lineage = link(*frames)
    assert lineage == {(1, 0, 1, 0), (2, 0, 1, 0)}
    assert linked[1][0, 0] == linked[0][0, 0] == 2
    for frame, copy in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame, copy)


def test_the_lineage_is_that_of_the_frames_so_far():
    linker = OverlapLinker(first_frame=3)
    frames = linker.push(row("1111.2"))
    first = linker.lineage
    check_result(frames, first, first=3)
    frames += linker.push(row("1.2..2"))
    check_result(frames, linker.lineage, first=3)
    assert {tuple(track) for track in first.values()} == {(1, 3, 3, 0), (2, 3, 3, 0)}  # unchanged by the later push


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"^min_overlap: 1.2 is no fraction"):
        OverlapLinker(min_overlap=1.2)
    with pytest.raises(InputError, match=r"^min_division_ratio: -1 is no fraction"):
        OverlapLinker(min_division_ratio=-1)
    linker = OverlapLinker(first_frame=4)
    linker.push(row("11"))
    with pytest.raises(InputError, match="frame 5: 1x3 pixels after frames of 1x2"):
        linker.push(row("111"))


def test_more_tracks_than_sixteen_bits_hold():
    linker = OverlapLinker()
    checkered = np.zeros((2, 65534), np.int32)
    checkered[0] = np.arange(1, 65535)
    linker.push(checkered)
    one = np.zeros_like(checkered)
    one[1, 0] = 1
    assert linker.push(one)[0][1, 0] == 65535
    with pytest.raises(InputError, match="frame 2: more than 65535 tracks"):
        linker.push(np.roll(one, 1, 1))


@st.composite
def videos(draw):
    """Label images that change little by little, so that cells divide, merge, vanish and appear."""
    height, width, length = draw(st.integers(1, 6)), draw(st.integers(1, 8)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frame = rng.integers(0, draw(st.integers(1, 6)), (height, width)).astype(np.int32)
    frames = [frame]
    for _ in range(length - 1):
        change = rng.random((height, width)) < draw(st.sampled_from([0.05, 0.2, 0.5, 1.0]))
        frame = np.where(change, rng.integers(0, 7, (height, width)), frame).astype(np.int32)
        frames.append(np.where(frame > 0, frame * draw(st.integers(1, 3)), 0).astype(np.int32))
    return frames


@settings(max_examples=200, deadline=None, database=None)
@given(videos(), st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_video_gives_a_valid_result_by_the_rules(frames, min_overlap, ratio):
    linker = OverlapLinker(min_overlap, ratio)
    linked = [one for frame in frames for one in linker.push(frame)]
    check_result(linked, linker.lineage)
    for frame, result in zip(frames, linked, strict=True):  # the same cells
        pairs = set(zip(frame.ravel().tolist(), result.ravel().tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        np.testing.assert_array_equal(frame > 0, result > 0)
    expected, tracks = plain_link(frames, min_overlap, ratio)
    for cells, result in zip(expected, linked, strict=True):
        for cell, track in cells.items():
            assert {result[pixel].item() for pixel in cell} == {track}
    assert {label: tuple(track[1:]) for label, track in linker.lineage.items()} == tracks
    assert set(Counter(track.parent for track in linker.lineage.values() if track.parent).values()) <= {2}
