from itertools import count, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from truth_embeddings import colour, embed

from lightning_cells.data.image_files import read_mask
from lightning_cells.data.simulate import simulate
from lightning_cells.data.tracks import read_tracks
from lightning_cells.errors import InputError
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.mean_shift import MeanShift
from lightning_cells.instances.tiling import Tiling
from lightning_cells.instances.windows import LinkOptions, PairLinker
from lightning_cells.metrics.ctc_measures import CTCMatcher


def row(text):
    """One-row frame: a digit per pixel, "." is background."""
    return np.array([[0 if c == "." else int(c) for c in text]], np.int32)


def text(labels):
    return "".join("." if v == 0 else str(v) for v in labels.ravel().tolist())


def run(pairs, first=0, **options):
    """Result frames, {(label, begin, end, parent)}; what each push returned is checked to be valid by itself."""
    linker = PairLinker(LinkOptions(**options), first)
    frames = []
    for number, pair in enumerate(pairs):
        frames += linker.push(np.asarray(pair))
        pushed = number + len(pairs[0])
        assert len(frames) == max(pushed - linker.delay, 0)
        check_result(frames, linker.lineage, first)
    frames += linker.finish()
    check_result(frames, linker.lineage, first)
    return frames, {tuple(track) for track in linker.lineage.values()}


def link(*frames, **options):
    """Links frames of one row, the same in both pairs that they are in; distances are no matter but in one test."""
    rows = [row(frame) for frame in frames]
    result, tracks = run(list(pairwise(rows)), **({"parent_dilation": 0} | options))
    return [text(frame) for frame in result], tracks


def check_result(frames, lineage, first=0):
    """The challenge's rules for a result, written plainly and apart from the package."""
    seen = {}
    for number, frame in enumerate(frames, first):
        assert frame.dtype == np.int32
        for label in set(frame.ravel().tolist()) - {0}:
            seen.setdefault(label, []).append(number)
    assert set(seen) == set(lineage)
    for label, (own, begin, end, parent) in lineage.items():
        assert label == own
        assert 1 <= label <= 65535
        assert seen[label] == list(range(begin, end + 1))
        if parent:
            assert lineage[parent].end < begin


def plain_result(pairs, o):
    """The rules by sets and loops with the whole video at hand: result frames, {label: (begin, end, parent)}."""
    height, width = pairs[0][0].shape
    inside = {
        (y, x) for y in range(o.border, height - o.border) for x in range(o.border, width - o.border)
    }  # fmt: skip

    def cells(image):
        found = {
            v: set(map(tuple, np.argwhere(image == v).tolist())) for v in sorted(set(image.ravel().tolist()) - {0})
        }
        return {v: pixels for v, pixels in found.items() if pixels & inside}

    def span(track):
        at = [n for n, tracks in enumerate(owner) if track in tracks.values()]
        return min(at), max(at)

    def mask(n, track):
        return set().union(*(shape[n][v] for v in shape[n] if owner[n][v] == track))

    def holder(n, pixels):
        """Track with more than half of the pixels in a frame."""
        return next((track for track in set(owner[n].values()) if 2 * len(mask(n, track) & pixels) > len(pixels)), 0)

    def split_from(part, whole):
        begin, end = span(part)
        if begin == 0:
            return span(whole)[0] <= end
        return holder(begin - 1, mask(begin, part)) == whole

    def rename(old, new, start=0):
        for tracks in owner[start:]:
            tracks.update({v: new for v in tracks if tracks[v] == old})

    fresh = count(1)
    shape = [cells(pairs[0][0])]
    owner = [{v: next(fresh) for v in shape[0]}]
    for first, second in pairs if len(pairs[0]) == 2 else ():
        now = len(shape)
        candidates = []
        for v in sorted(set(first.ravel().tolist()) - {0}):
            own = set(map(tuple, np.argwhere(first == v).tolist()))
            for cell, pixels in shape[-1].items():
                if own & pixels and len(own & pixels) / len(own | pixels) >= o.link_iou:
                    candidates.append((len(own & pixels) / len(own | pixels), v, owner[-1][cell]))
        heirs = {}
        for _, v, track in sorted(candidates, key=lambda c: -c[0]):
            if v not in heirs and track not in heirs.values():
                heirs[v] = track
        shape.append(cells(second))
        owner.append({v: heirs[v] if v in heirs else next(fresh) for v in shape[-1]})

        for track in list(dict.fromkeys(owner[now - 1].values())):
            if track in owner[now].values() or track not in owner[now - 1].values():
                continue
            heir = holder(now, mask(now - 1, track))
            if not heir:
                continue
            (begin, end), (other, _) = span(track), span(heir)
            if end - begin + 1 <= o.t_merge and split_from(track, heir):
                rename(track, heir)
            elif begin < other < now and now - other <= o.t_merge and split_from(heir, track):
                rename(heir, track)

    parent = {}
    for n in range(1, len(shape)):
        cut = set()
        for child in [track for track in dict.fromkeys(owner[n].values()) if span(track)[0] == n]:
            if child in parent:
                continue
            around = {
                (y, x)
                for y in range(height)
                for x in range(width)
                if any((y - b) ** 2 + (x - a) ** 2 <= o.parent_dilation**2 for b, a in mask(n, child))
            }
            candidates = []
            for m in range(n - 1, max(n - 1 - o.parent_frames, -1), -1):
                for track in dict.fromkeys(owner[m].values()):
                    old = mask(m, track)
                    candidates.append((len(old & around) / len(old | around), m, track))
            for iou, m, track in sorted(candidates, key=lambda c: -c[0]):
                survives = track in owner[n].values()
                shrunk = o.survivor_area is None or len(mask(n, track)) < o.survivor_area * len(mask(m, track))
                if iou >= 0.01 and (not survives or shrunk):
                    parent[child] = track
                    if survives:
                        cut.add(track)
                    break
        for track in cut:
            rest = next(fresh)
            rename(track, rest, n)
            parent[rest] = track

    label = {}
    for tracks in owner:
        for track in tracks.values():
            begin, end = span(track)
            if track in parent or track in parent.values() or end - begin + 1 >= min(o.t_length, len(shape)):
                label.setdefault(track, len(label) + 1)
    result = [np.zeros((height, width), np.int32) for _ in shape]
    for frame, found, tracks in zip(result, shape, owner, strict=True):
        for v, pixels in found.items():
            for pixel in pixels:
                frame[pixel] = label.get(tracks[v], 0)
    return result, {(v, *span(track), label[parent[track]] if track in parent else 0) for track, v in label.items()}


def test_a_cell_keeps_its_label_from_pair_to_pair():
    pairs = [(row("55.77."), row("55..77")), (row("33..44"), row(".3344.")), (row(".5566."), row("5566.."))]
    frames, tracks = run(pairs, first=4)
    assert [text(f) for f in frames] == ["11.22.", "11..22", ".1122.", "1122.."]
    assert tracks == {(1, 4, 7, 0), (2, 4, 7, 0)}


def test_the_best_overlap_is_linked_first_and_one_to_one():
    pair = (row("11112222"), row("11112222"))
    # 3 covers a quarter of the union with 1, 4 the half of 2 and the rest of 1
    frames, tracks = run([pair, (row("3.444444"), row("3.444444"))], t_length=1, t_merge=0, parent_frames=0)
    assert [text(f) for f in frames] == ["11112222", "11112222", "1.222222"]
    frames, tracks = run(
        [pair, (row("3.444444"), row("3.444444"))], t_length=1, t_merge=0, parent_frames=0, link_iou=0.26
    )
    assert text(frames[2]) == "3.222222"
    assert tracks == {(1, 0, 1, 0), (2, 0, 2, 0), (3, 2, 2, 0)}


def test_a_division_ends_the_mother():
    # the clustering sees new cells, which exist in the new frame only
    pairs = [(row("11111111"), row("11111111")), (row("11111111"), row("222..333")), (row("222..333"), row("222..333"))]
    frames, tracks = run(pairs, parent_dilation=0)
    assert [text(f) for f in frames] == ["11111111", "11111111", "222..333", "222..333"]
    assert tracks == {(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)}


def test_a_mother_that_goes_on_is_cut_if_it_shrank():
    before, after = "1111111...", "1111.22222"
    frames, tracks = link(before, before, after, after)
    assert frames == [before, before, "2222.33333", "2222.33333"]
    assert tracks == {(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)}
    # at 4/7 of its area it did not shrink below a half: no mother
    frames, tracks = link(before, before, after, after, survivor_area=0.5)
    assert frames == [before, before, after, after]
    assert tracks == {(1, 0, 3, 0), (2, 2, 3, 0)}


def test_a_cell_beside_one_that_stays_is_no_daughter_unless_any_is_cut():
    before, after = "1111111...", "1111112222"
    assert link(before, before, after, after)[1] == {(1, 0, 3, 0), (2, 2, 3, 0)}
    frames, tracks = link(before, before, after, after, survivor_area=None)
    assert frames == [before, before, "2222223333", "2222223333"]
    assert tracks == {(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)}


def test_a_parent_is_looked_for_near_and_not_long_ago():
    frames = ["11.......", "11.......", "....33...", "....33..."]
    assert (2, 2, 3, 0) in link(*frames)[1]
    assert (2, 2, 3, 0) in link(*frames, parent_dilation=2)[1]
    assert (2, 2, 3, 1) in link(*frames, parent_dilation=3)[1]
    frames = ["11.......", "11.......", ".........", "11......."]
    assert link(*frames, t_length=1)[1] == {(1, 0, 1, 0), (2, 3, 3, 0)}
    assert link(*frames, t_length=1, parent_frames=2)[1] == {(1, 0, 1, 0), (2, 3, 3, 1)}
    assert link(*frames, t_length=1, parent_frames=0)[1] == {(1, 0, 1, 0), (2, 3, 3, 0)}


def test_short_tracks_need_a_family():
    frames, tracks = link("11...2", "11....", "11...3", "11.4..", "11.4..", parent_frames=0)
    assert frames == ["11....", "11....", "11....", "11.2..", "11.2.."]
    _, tracks = link("11..3.", "11....", "11...4", "11....", "11....", t_length=1)
    assert tracks == {(1, 0, 4, 0), (2, 0, 0, 0), (3, 2, 2, 0)}
    # a cell that divides after its first frame, and a daughter that leaves at once
    _, tracks = link("111111", "22.444", "22....", "22....")
    assert tracks == {(1, 0, 0, 0), (2, 1, 3, 1), (3, 1, 1, 1)}


def test_a_short_video_may_have_short_tracks():
    frames, tracks = run([row("1.2")[None]], t_length=5)
    assert [text(f) for f in frames] == ["1.2"]
    assert tracks == {(1, 0, 0, 0), (2, 0, 0, 0)}
    frames, tracks = link("1.2", "1..", t_length=5)
    assert frames == ["1..", "1.."]


def test_a_false_split_is_undone():
    whole, split = "111111", "1111.2"
    frames, tracks = link(whole, whole, split, split, whole, whole)
    assert frames == [whole, whole, "1111.1", "1111.1", whole, whole]
    assert tracks == {(1, 0, 5, 0)}
    assert link(whole, whole, split, split, whole, whole, t_merge=1)[1] == {(1, 0, 1, 0), (2, 2, 5, 1), (3, 2, 3, 1)}
    # whichever part goes on: what is whole again is linked to the part with the larger share of it
    frames, tracks = link(whole, whole, "111.22", "11.222", whole, whole)
    assert tracks == {(1, 0, 5, 0)}
    # from the first frame on
    assert link(split, split, whole, whole)[1] == {(1, 0, 3, 0)}


def test_a_cell_that_came_from_elsewhere_stays_itself():
    # it began beside the one that covers it in the end
    assert link("1111....", "1111..22", "1111.22.", "111111..", "111111..")[1] == {(1, 0, 4, 0), (2, 1, 2, 0)}


def test_a_division_is_no_false_split():
    pairs = [(row("11111111"), row("22233333")), (row("22233333"), row("22233333"))]
    assert run(pairs, parent_dilation=0)[1] == {(1, 0, 0, 0), (2, 1, 2, 1), (3, 1, 2, 1)}


def test_cells_in_the_margin_are_dropped():
    frames = [np.zeros((9, 9), np.int32) for _ in range(4)]
    for number, frame in enumerate(frames):
        frame[4, 4] = 1
        frame[1, : 1 + number] = 2  # reaches past the margin in the third frame
    result, tracks = run(list(pairwise(frames)), border=1, parent_frames=0)
    assert tracks == {(1, 0, 3, 0), (2, 1, 3, 0)}
    assert (result[0][1] == 0).all()
    with pytest.raises(InputError, match="border: 5 px leave nothing of a 9x9 frame"):
        PairLinker(LinkOptions(border=5)).push(np.stack(frames[:2]))


def test_frames_are_late_by_what_must_be_known():
    assert PairLinker().delay == 11
    assert PairLinker(LinkOptions(t_merge=0, t_length=1)).delay == 0
    assert PairLinker(LinkOptions(t_merge=4, t_length=3, parent_frames=8)).delay == 13
    linker = PairLinker(LinkOptions(t_merge=2))
    frame = row("11.22")
    returned = [len(linker.push(np.stack([frame, frame]))) for _ in range(6)]
    assert returned == [0, 0, 1, 1, 1, 1]
    assert tuple(linker.lineage[1]) == (1, 0, 3, 0)  # of the four frames returned
    assert len(linker.finish()) == 3
    assert linker.finish() == []
    assert tuple(linker.lineage[1]) == (1, 0, 6, 0)


def test_memory_does_not_grow_with_the_video():
    linker = PairLinker()
    frame = row("11.22")
    for _ in range(200):
        linker.push(np.stack([frame, frame]))
    assert len(linker._frames) <= linker.delay + 2


def test_no_frames_and_empty_frames():
    assert PairLinker().finish() == []
    assert PairLinker().lineage == {}
    assert link("...", "...", "...") == (["...", "...", "..."], set())


def test_mistakes_are_named():
    for options, message in (
        ({"link_iou": 1.5}, "link_iou: 1.5 is no fraction"),
        ({"t_merge": -1}, "t_merge: -1 is negative"),
        ({"survivor_area": -0.5}, "survivor_area: -0.5 is negative"),
    ):
        with pytest.raises(InputError, match=message):
            LinkOptions(**options)
    linker = PairLinker(first_frame=7)
    linker.push(np.stack([row("11"), row("11")]))
    with pytest.raises(InputError, match="frame 9: 1x3 pixels after frames of 1x2"):
        linker.push(np.stack([row("111"), row("111")]))


def test_more_tracks_than_sixteen_bits_hold():
    many = np.arange(65537, dtype=np.int32).reshape(1, 1, -1)
    with pytest.raises(InputError, match="frame 0: more than 65535 tracks"):
        PairLinker(LinkOptions(t_merge=0, t_length=1)).push(many)


@st.composite
def videos(draw):
    """Pairs whose cells change little by little, and of which two tell different things of one frame."""
    height, width, length = draw(st.integers(1, 5)), draw(st.integers(2, 8)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    change, doubt = draw(st.sampled_from([0.05, 0.2, 0.5])), draw(st.sampled_from([0.0, 0.1, 0.5]))
    number = draw(st.integers(1, 5))

    def vary(frame, share):
        frame = np.where(rng.random((height, width)) < share, rng.integers(0, number + 1, (height, width)), frame)
        if rng.random() < share:  # one cell vanishes, or falls to another
            frame = np.where(frame == rng.integers(1, number + 1), rng.integers(0, number + 1), frame)
        return frame.astype(np.int32)

    frame = vary(np.zeros((height, width)), 1)
    pairs = []
    for _ in range(length):
        then = vary(frame, change)
        order = np.concatenate([[0], rng.permutation(number) + 1])
        pairs.append(order[np.stack([vary(frame, doubt), vary(then, doubt)])].astype(np.int32))
        frame = then
    return pairs


@settings(max_examples=250, deadline=None, database=None)
@given(
    videos(),
    st.builds(
        LinkOptions,
        link_iou=st.sampled_from([0.0, 0.25, 0.6]),
        t_merge=st.sampled_from([0, 1, 2, 10]),
        t_length=st.sampled_from([0, 1, 2, 4]),
        parent_frames=st.integers(0, 3),
        parent_dilation=st.sampled_from([0, 1, 2]),
        survivor_area=st.sampled_from([None, 0.0, 0.75, 2.0]),
        border=st.sampled_from([0, 0, 1]),
    ),
)
def test_every_video_gives_a_valid_result_by_the_rules(pairs, options):
    if options.border and min(pairs[0][0].shape) <= 2:
        options = LinkOptions(**{**vars(options), "border": 0})
    copies = [pair.copy() for pair in pairs]
    frames, tracks = run(pairs, **vars(options))
    expected, rows = plain_result(pairs, options)
    assert tracks == rows
    for frame, other in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame, other)
    for pair, copy in zip(pairs, copies, strict=True):
        np.testing.assert_array_equal(pair, copy)


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    """Truth of a simulated video: frames, lineage."""
    root = simulate(tmp_path_factory.mktemp("simulated") / "nuclei", sequences=1, frames=16, size=(160, 144), seed=3)
    truth = root / "01_GT" / "TRA"
    frames = np.stack([read_mask(path) for path in sorted(truth.glob("*.tif"))]).astype(np.int32)
    lineage = read_tracks(truth / "man_track.txt")
    assert sum(track.parent > 0 for track in lineage.values()) > 8
    return frames, lineage


def scores(frames, linker, pairs, lineage):
    matcher = CTCMatcher()
    linked = [frame for pair in pairs for frame in linker.push(pair)] + linker.finish()
    for number, (frame, truth) in enumerate(zip(linked, frames, strict=True)):
        matcher.update(number, frame, truth, truth)
    return matcher.compute(linker.lineage, lineage).values()


def test_the_truth_comes_back(nuclei):
    frames, lineage = nuclei
    pairs = [frames[n : n + 2] for n in range(len(frames) - 1)]
    measured = scores(frames, PairLinker(LinkOptions(t_length=1)), pairs, lineage)
    assert (measured["SEG"], measured["TRA"], measured["LNK"]) == (1, 1, 1)


def test_the_truth_comes_back_through_embeddings_and_tiles(nuclei):
    frames, lineage = (nuclei[0][:6], {})
    colours = colour(nuclei[0])
    tiling, size = Tiling(tile=96, overlap=64, margin=24), frames.shape[1:]
    decoder = EmbeddingDecoder(clustering=MeanShift(), min_size=10)
    torch.set_num_threads(1)
    pairs = []
    for n in range(len(frames) - 1):
        embeddings = embed(frames[n : n + 2], colours)
        tiles = [decoder(embeddings[:, :, tile.rows, tile.columns]) for tile in tiling.layout(size)]
        pairs.append(tiling.merge(tiles, size))
    matcher, linker = CTCMatcher(), PairLinker(LinkOptions(t_length=1))
    linked = [frame for pair in pairs for frame in linker.push(pair)] + linker.finish()
    for number, (frame, truth) in enumerate(zip(linked, frames, strict=True)):
        matcher.update(number, frame, truth, truth)
    measured = matcher.compute(linker.lineage, lineage).values()
    assert measured["SEG"] > 0.99
    assert measured["DET"] == 1
