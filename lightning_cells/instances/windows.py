"""Cells of overlapping two-frame windows -> tracks."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.errors import InputError
from lightning_cells.instances.link_options import LinkOptions
from lightning_cells.instances.linking import overlaps
from lightning_cells.instances.parents import LinkedFrame, find_parents


@dataclass(eq=False)
class _Life:
    """A track: frames count from 0, `end` is the last one so far."""

    begin: int
    end: int
    parent: int = 0
    has_child: bool = False
    label: int = 0  # in the result, once it is known to be kept

    @property
    def length(self) -> int:
        return self.end - self.begin + 1


class PairLinker:
    """Link the instances of overlapping pairs of frames (0, 1), (1, 2), ..., one pair at a time.

    1. Each instance of a new pair continues the track whose cell it covers in the frame that both know, best
       overlap first and one to one; the others begin tracks.
    2. False splits are undone. Where a track ends and another one covers more than half of its last cell, they
       become one track if the shorter-lived of them began with more than half of its cell on the other: it split
       off and came back. In the first frame, before which there is nothing, it is enough that they lived side by
       side.
    3. New tracks get parents: the best overlap among the tracks that ended or shrank.
    4. Short tracks without parent or child are dropped.

    All of these look a bounded number of frames ahead, so frames come out `delay` frames late and are final then:
    labels, lineage and parents never change afterwards. Memory holds some `delay` frames, however long the video.
    The result is valid in the Cell Tracking Challenge after every push: `lineage` tells the tracks of the frames
    returned so far, each contiguous, numbered in the order in which they begin.

    Sizes and distances are in pixels of the labels pushed: resample instances to the original size before.

    From Payer et al., Segmenting and Tracking Cell Instances with Cosine Embeddings and Recurrent Hourglass
    Networks, Medical Image Analysis 57 (2019), section 3.4, and its public code. There short tracks are dropped
    before parents are sought, tracks that go on are always cut, margins are cleared at the end, and of a false
    split only the part can end, not the track that it split from.

    Args:
        options: thresholds.
        first_frame: number of the first frame pushed.
    """

    def __init__(self, options: LinkOptions | None = None, first_frame: int = 0) -> None:
        self.options = options or LinkOptions()
        self._first = first_frame
        self._frames: deque[LinkedFrame] = deque()  # the latest; frame n is number n - self._oldest of them
        self._oldest = 0
        self._pushed = self._parented = self._returned = 0  # frames that went through each step
        self._lives: dict[int, _Life] = {}
        self._next = 1  # number of the next track
        self._kept: list[_Life] = []

    @property
    def delay(self) -> int:
        """How many frames `push` lags behind: the longest time until a cell's track is certain."""
        return self.options.t_merge + self._family_delay

    @property
    def _family_delay(self) -> int:
        """Frames from the first of a short track to the last in which a child of it may begin."""
        if self.options.t_length < 2:
            return 0
        return self.options.t_length - 2 + max(self.options.parent_frames, 1)

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks in the frames returned so far."""
        rows: Lineage = {}
        for life in self._kept:
            parent = self._lives[life.parent].label if life.parent else 0
            begin, end = life.begin + self._first, min(life.end, self._returned - 1) + self._first
            rows[life.label] = Track(life.label, begin, end, parent)
        return rows

    def push(self, pair: np.ndarray) -> list[np.ndarray]:
        """Links the next pair of frames.

        Args:
            pair: (2, H, W) int32 instances of the last frame and a new one, 0 background, 1..K with few numbers
                left out; an instance has one label in both. The first push may be a single frame (1, H, W).

        Returns:
            The frames that became final, in order: (H, W) int32 each, 0 background, else the track.

        Raises:
            InputError: Frames of another size than those before, a border that leaves nothing, or more tracks
                than a result can hold.
        """
        self._check(pair)
        number = int(pair.max()) + 1
        if not self._frames:
            none = np.empty(0, np.int64)
            self._append(pair[0], np.zeros(number, np.int64), (none, none, none))
        if len(pair) == 2:
            before = self._frames[-1]
            common = overlaps(pair[1], before.labels, (number, len(before.tracks)))
            self._append(pair[1], self._continued(pair[0], number), common)
            self._undo_splits()
        return self._advance(self.options.t_merge, self._family_delay)

    def finish(self) -> list[np.ndarray]:
        """Ends the video.

        Returns:
            The frames that were not returned yet, as `push` does; `lineage` is that of the whole video then.

        Raises:
            InputError: More tracks than a result can hold.
        """
        return self._advance(0, 0)

    def _check(self, pair: np.ndarray) -> None:
        shape = pair.shape[1:]
        if self._frames and shape != self._frames[-1].labels.shape:
            now, before = ("x".join(map(str, s)) for s in (shape, self._frames[-1].labels.shape))
            number = self._first + self._pushed
            raise InputError(f"frame {number}: {now} pixels after frames of {before}; give frames of one size")
        border = self.options.border
        if border and 2 * border >= min(shape):
            raise InputError(
                f"border: {border} px leave nothing of a {shape[0]}x{shape[1]} frame; choose a smaller one"
            )

    def _append(
        self, labels: np.ndarray, tracks: np.ndarray, common: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        """Adds a frame: cells that continue no track begin one."""
        areas = np.bincount(labels.ravel(), minlength=len(tracks))
        areas[0] = 0
        border = self.options.border
        if border:
            inside = labels[border:-border, border:-border]
            areas[np.bincount(inside.ravel(), minlength=len(tracks)) == 0] = 0
        tracks[areas == 0] = 0
        for track in tracks[tracks > 0].tolist():
            self._lives[track].end = self._pushed
        born = np.flatnonzero((areas > 0) & (tracks == 0))
        tracks[born] = np.arange(self._next, self._next + len(born))
        self._lives |= {track: _Life(self._pushed, self._pushed) for track in tracks[born].tolist()}
        self._next += len(born)
        self._frames.append(LinkedFrame(labels, areas, tracks, common))
        self._pushed += 1

    def _continued(self, labels: np.ndarray, number: int) -> np.ndarray:
        """Links instances to the tracks of the last frame by their cells in it: (number,) tracks, 0 for none."""
        last = self._frames[-1]
        instances, cells, common = overlaps(labels, last.labels, (number, len(last.tracks)))
        areas = np.bincount(labels.ravel(), minlength=number)
        iou = common / np.maximum(areas[instances] + last.areas[cells] - common, 1)
        best = np.argsort(-iou, kind="stable")
        best = best[(iou[best] >= self.options.link_iou) & (last.tracks[cells[best]] > 0)]  # not those in the margin
        tracks = np.zeros(number, np.int64)
        taken: set[int] = set()
        for instance, track in zip(instances[best].tolist(), last.tracks[cells[best]].tolist(), strict=True):
            if tracks[instance] == 0 and track not in taken:
                tracks[instance] = track
                taken.add(track)
        return tracks

    def _undo_splits(self) -> None:
        """Joins tracks that were split from one another and are one again in the last frame."""
        last, now = self._frames[-2], self._frames[-1]
        alive = set(now.present())
        for track in last.present():
            heir = 0 if track in alive else now.heir(track, last)
            if not heir:
                continue
            ended, other = self._lives[track], self._lives[heir]
            if ended.length <= self.options.t_merge and self._split_from(track, heir):
                self._join(track, heir)
            elif (
                ended.begin < other.begin <= ended.end
                and other.length <= self.options.t_merge + 1  # with the last frame, where it is whole
                and self._split_from(heir, track)
            ):
                self._join(heir, track)
                alive ^= {heir, track}

    def _split_from(self, part: int, whole: int) -> bool:
        """Whether a track began on the cell of another, or in the first frame and the other beside it."""
        begin = self._lives[part].begin
        if begin == 0:
            return self._lives[whole].begin <= self._lives[part].end
        return self._frame(begin).origin(part, self._frame(begin - 1)) == whole

    def _join(self, part: int, whole: int) -> None:
        """Makes a track part of another, which it overlaps in time."""
        short, long = self._lives.pop(part), self._lives[whole]
        for number in range(short.begin, short.end + 1):
            self._frame(number).rename(part, whole)
        long.begin, long.end = min(long.begin, short.begin), max(long.end, short.end)

    def _advance(self, merge_delay: int, family_delay: int) -> list[np.ndarray]:
        """Takes frames through the later steps, as far as those that must be known are known."""
        done = []
        while self._parented < self._pushed - merge_delay:
            self._find_parents(self._parented)
            self._parented += 1
        while self._returned < self._parented - family_delay:
            done.append(self._finished(self._returned))
            self._returned += 1
        # the next frame to get parents looks back, and so does one that may have been split off
        needed = min(self._returned, self._parented - max(self.options.parent_frames, 1))
        while self._oldest < needed:
            self._frames.popleft()
            self._oldest += 1
        return done

    def _find_parents(self, number: int) -> None:
        """Gives the tracks that begin in a frame their parents; cuts those parents that go on."""
        frame = self._frame(number)
        births = [track for track in frame.present() if self._lives[track].begin == number]
        before = [self._frame(n) for n in range(number - 1, max(number - 1 - self.options.parent_frames, -1), -1)]
        if not births or not before:
            return
        found = find_parents(frame, before, births, self.options.parent_dilation)
        limit = self.options.survivor_area
        survivors: set[int] = set()
        for child, candidates in found.items():
            for _, back, track in candidates:
                survives = self._lives[track].end >= number
                if survives and limit is not None and frame.area(track) >= limit * before[back - 1].area(track):
                    continue
                self._lives[child].parent = track
                self._lives[track].has_child = True
                if survives:
                    survivors.add(track)
                break
        for track in sorted(survivors):
            life = self._lives[track]
            self._lives[self._next] = _Life(number, life.end, parent=track)
            life.end = number - 1
            for later in range(number, self._pushed):
                self._frame(later).rename(track, self._next)
            self._next += 1

    def _finished(self, number: int) -> np.ndarray:
        """Returns the labels of a frame about which all is known."""
        frame = self._frame(number)
        shortest = min(self.options.t_length, self._pushed)
        ids = np.zeros(self._next, np.int32)
        for track in frame.present():
            life = self._lives[track]
            if life.begin == number and (life.parent or life.has_child or life.length >= shortest):
                if len(self._kept) == MAX_LABEL:
                    raise InputError(
                        f"frame {number + self._first}: more than {MAX_LABEL} tracks, which a 16-bit result cannot "
                        "hold; drop small cells by a larger min_size, or track fewer frames"
                    )
                self._kept.append(life)
                life.label = len(self._kept)
            ids[track] = life.label
        return ids[frame.tracks][frame.labels]

    def _frame(self, number: int) -> LinkedFrame:
        return self._frames[number - self._oldest]
