"""Which clips and chunks are asked for, checked clip by clip in plain loops."""

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from lightning_cells.data.sampling import ChunkSampler, ClipRequest, ClipSampler
from lightning_cells.errors import InputError

LENGTHS = (30, 12, 7, 5)


def known(*lengths: int, every: int = 1) -> list[np.ndarray]:
    return [np.arange(length) % every == 0 for length in lengths]


def epoch(sampler: ClipSampler, number: int = 0) -> list[list[ClipRequest]]:
    sampler.set_epoch(number)
    return list(sampler)


def steps(frames: tuple[int, ...]) -> set[int]:
    return {after - before for before, after in pairwise(frames)}


@pytest.mark.parametrize("stride", [1, 3, 50])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_clip_is_an_even_run_of_frames_inside_its_sequence(stride, reverse, streaming):
    sampler = ClipSampler(known(*LENGTHS, every=4), 5, 3, 200, stride, reverse, streaming)
    batches = epoch(sampler)
    assert len(batches) == len(sampler) == 200
    seen = Counter()
    for batch in batches:
        assert len(batch) == 3
        for clip in batch:
            assert len(clip.frames) == 5
            assert all(0 <= frame < LENGTHS[clip.sequence] for frame in clip.frames)
            (step,) = steps(clip.frames)
            assert 1 <= abs(step) <= stride
            assert abs(step) * 4 < LENGTHS[clip.sequence]
            seen[clip.sequence, step] += 1
    signs = {np.sign(step) for _, step in seen}
    assert signs == ({1, -1} if reverse else {1})
    assert {abs(step) for sequence, step in seen if sequence == 0} == set(range(1, min(stride, 7) + 1))
    assert {sequence for sequence, _ in seen} == {0, 1, 2, 3}
    if reverse:
        backwards = sum(count for (_, step), count in seen.items() if step < 0)
        assert 0.4 < backwards / seen.total() < 0.6


@pytest.mark.parametrize("stride", [1, 4])
def test_a_single_clip_holds_its_anchor_and_every_place_is_reached(stride):
    sampler = ClipSampler(known(11), 4, 4, 400, stride)
    clips = [clip for batch in epoch(sampler) for clip in batch]
    assert all(clip.first for clip in clips)
    assert all(clip.anchor in clip.frames for clip in clips)
    possible = {
        tuple(range(start, start + 4 * step, step))
        for step in range(1, min(stride, 3) + 1)
        for start in range(11)
        if start + 3 * step < 11
    }
    assert {(clip.frames, clip.anchor) for clip in clips} == {
        (frames, frame) for frames in possible for frame in frames
    }
    assert len({clip.seed for clip in clips}) > 0.99 * len(clips)


def test_clips_as_long_as_a_sequence_take_all_of_it():
    for streaming in (False, True):
        batches = epoch(ClipSampler(known(5, 5), 5, 2, 20, stride=3, streaming=streaming))
        assert {clip.frames for batch in batches for clip in batch} == {(0, 1, 2, 3, 4)}


def test_single_frames_are_sampled_one_by_one():
    for streaming in (False, True):
        clips = [c for b in epoch(ClipSampler(known(1, 1, 1), 1, 2, 50, 3, True, streaming)) for c in b]
        assert {(clip.sequence, clip.frames) for clip in clips} == {(0, (0,)), (1, (0,)), (2, (0,))}
        assert all(clip.first for clip in clips)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_clips_around_annotated_frames(share):
    annotated = known(40, 60)
    annotated[0][:] = annotated[1][:] = False
    annotated[0][[3, 17]] = annotated[1][59] = True
    clips = [c for b in epoch(ClipSampler(annotated, 3, 4, 1000, annotated_share=share)) for c in b]
    around = Counter((c.sequence, c.anchor) for c in clips if annotated[c.sequence][c.anchor])
    expected = share + (1 - share) * 3 / 100  # a clip placed anywhere may hit an annotated frame too
    assert around.total() / len(clips) == pytest.approx(expected, abs=0.03)
    if share:  # annotated frames have equal shares
        assert set(around) == {(0, 3), (0, 17), (1, 59)}
        assert max(around.values()) < 1.35 * min(around.values())
    longer = sum(c.sequence == 1 for c in clips) / len(clips)  # and the other clips go by length
    assert longer == pytest.approx(share / 3 + (1 - share) * 0.6, abs=0.03)


def test_without_annotated_frames_clips_are_placed_anywhere():
    annotated = [np.zeros(20, bool)]
    for streaming in (False, True):
        clips = [c for b in epoch(ClipSampler(annotated, 2, 2, 200, streaming=streaming, annotated_share=1)) for c in b]
        assert {frame for c in clips for frame in c.frames} == set(range(20))


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_lanes_stream_through_passes(stride, reverse):
    """A pass is all clips from one `first` to the next; only the epoch's first one may start inside."""
    annotated = known(23, 9, every=5)
    length = 4
    batches = epoch(ClipSampler(annotated, length, 3, 120, stride, reverse, streaming=True))
    seen = Counter()
    for lane in range(3):
        passes: list[list[ClipRequest]] = []
        for batch in batches:
            if batch[lane].first:
                passes.append([])
            passes[-1].append(batch[lane])
        for number, clips in enumerate(passes[:-1]):
            assert len({(clip.sequence, clip.seed, clip.anchor) for clip in clips}) == 1
            frames = [frame for clip in clips for frame in clip.frames]
            (step,) = steps(tuple(frames))  # each clip goes on exactly where the one before stopped
            total = len(annotated[clips[0].sequence])
            whole = range(total)[:: abs(step)] if step > 0 else range(total)[::-1][:: abs(step)]
            # the rest of the video is shorter than a clip
            left = (total - 1 - frames[-1]) // step if step > 0 else frames[-1] // -step
            assert left < length
            if number > 0:
                begin = frames[0] if step > 0 else total - 1 - frames[0]
                assert begin < abs(step)
                assert len(frames) >= (len(whole) - 1) // length * length
            assert annotated[clips[0].sequence][clips[0].anchor]
            seen[clips[0].sequence, step] += 1
        assert len({clips[0].seed for clips in passes}) == len(passes)
    assert {abs(step) for sequence, step in seen if sequence == 0} == set(range(1, stride + 1))
    assert any(step < 0 for _, step in seen) == reverse


def test_first_passes_of_epochs_reach_the_whole_video():
    """Epochs may be shorter than a video: its end is seen all the same."""
    sampler = ClipSampler(known(40), 4, 1, 2, streaming=True)
    starts = set()
    for number in range(200):
        (first,), (second,) = epoch(sampler, number)
        assert first.first
        assert second.first == (first.frames[-1] == 39)
        starts.add(first.frames[0])
    assert starts == set(range(0, 40, 4))


@pytest.mark.parametrize("streaming", [False, True])
def test_two_processes_draw_what_one_would_draw_with_twice_the_batch(streaming):
    annotated = known(*LENGTHS, every=3)

    def sampler(batch_size, rank, world):
        return ClipSampler(annotated, 4, batch_size, 30, 2, True, streaming, seed=7, rank=rank, world=world)

    for number in (0, 1, 5):
        one = epoch(sampler(4, 0, 1), number)
        zero, other = (epoch(sampler(2, rank, 2), number) for rank in (0, 1))
        assert [a + b for a, b in zip(zero, other, strict=True)] == one


@pytest.mark.parametrize("streaming", [False, True])
def test_epochs_and_seeds_differ_and_equal_ones_agree(streaming):
    def draw(seed, number):
        return epoch(ClipSampler(known(*LENGTHS), 3, 2, 20, 2, True, streaming, seed=seed), number)

    draws = [draw(seed, number) for seed in (0, 1) for number in (0, 1, 2)]
    for a in range(len(draws)):
        for b in range(a):
            assert draws[a] != draws[b]
    assert draw(1, 2) == draws[-1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_position_within_the_epoch_can_be_returned_to(streaming):
    sampler = ClipSampler(known(*LENGTHS), 3, 2, 20, 2, True, streaming)
    whole = epoch(sampler, 3)
    for position in (1, 13, 20):
        sampler.position = position
        assert epoch(sampler, 3) == whole[position:]
        assert epoch(sampler, 3) == whole  # once only


def test_draws_do_not_depend_on_how_far_an_earlier_pass_went():
    sampler = ClipSampler(known(*LENGTHS), 3, 2, 20)
    list(islice(sampler, 7))
    assert epoch(sampler, 1) == epoch(ClipSampler(known(*LENGTHS), 3, 2, 20), 1)


def test_a_sequence_shorter_than_a_clip_is_refused():
    with pytest.raises(InputError, match=r"4 frame\(s\).*data\.clip_length=5"):
        ClipSampler(known(30, 4), 5, 1, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_cover_each_frame_once_in_order_on_one_process(world, chunk):
    lengths = [9, 4, 17, 1, 8]
    owner: dict[int, int] = {}
    covered = Counter()
    for rank in range(world):
        sampler = ChunkSampler(lengths, chunk, rank, world)
        requests = list(sampler)
        assert len(requests) == len(sampler) > 0
        assert requests == list(sampler)  # every epoch
        at = dict.fromkeys(range(len(lengths)), 0)
        for request in requests:
            if request.start == request.stop:
                assert len(requests) == 1
                continue
            assert owner.setdefault(request.sequence, rank) == rank
            assert request.start == at[request.sequence]
            assert 0 < request.stop - request.start <= chunk
            assert request.stop == lengths[request.sequence] or request.stop - request.start == chunk
            at[request.sequence] = request.stop
            covered.update((request.sequence, frame) for frame in range(request.start, request.stop))
        # a video is finished before the next begins
        order = [request.sequence for request in requests]
        assert order == sorted(order)
    assert covered == Counter((s, f) for s, length in enumerate(lengths) for f in range(length))


def test_videos_are_shared_out_evenly():
    loads = [sum(r.stop - r.start for r in ChunkSampler([10, 10, 10, 30, 5, 5], 4, rank, 2)) for rank in (0, 1)]
    assert loads == [35, 35]


def test_a_process_without_a_video_gets_one_empty_request():
    for rank in (2, 3):
        (request,) = ChunkSampler([6, 6], 3, rank, 4)
        assert request.start == request.stop
