"""Which frames of which sequences train, validate and test."""

import re
from collections.abc import Sequence as Seq
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np

from lightning_cells.data.sequence import Sequence
from lightning_cells.data.tracks import MAX_DIGITS
from lightning_cells.errors import InputError

_RANGE = re.compile(r"(?P<pattern>.+?)\[(?P<start>\d*):(?P<stop>\d*)\]")


def select(sequences: Seq[Sequence], selectors: Seq[str], option: str) -> list[Sequence]:
    """Returns the sequences, or the parts of sequences, that selectors name.

    Args:
        sequences: all there are.
        selectors: each a name or a shell pattern of names, with a range of frame numbers in Python's manner if only
            a part is wanted: ``01``, ``0*``, ``01[0:45]`` (frames 0 to 44), ``*[45:]``.
        option: name of the option that the selectors came from, for messages.

    Raises:
        InputError: if a selector matches nothing or its range holds no frame.
    """
    chosen = []
    for selector in selectors:
        part = _RANGE.fullmatch(selector)
        pattern = part["pattern"] if part else selector
        matching = [s for s in sequences if s.name == pattern]
        matching = matching or [s for s in sequences if fnmatchcase(s.name, pattern)]
        if not matching:
            names = [s.name for s in sequences]
            near = get_close_matches(pattern, names, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            raise InputError(f"{option}: no sequence matches '{selector}': {hint}there are {shown}")
        if part:
            start, stop = _number(part["start"]) or 0, _number(part["stop"])
            matching = [_range(s, start, stop, option) for s in matching]
        chosen += matching
    return chosen


def fold(sequences: Seq[Sequence], folds: int, index: int) -> tuple[list[Sequence], list[Sequence]]:
    """Returns training and held-out sequences of one fold of a cross-validation.

    With at least as many sequences as folds, every `folds`-th sequence is held out; else a block of consecutive
    frames of each sequence, and training gets what lies before and after it.

    Raises:
        InputError: if the index is out of range, or there are fewer frames than folds.
    """
    if not 0 <= index < folds:
        raise InputError(f"data.fold={index} is out of range: data.folds={folds} has folds 0 to {folds - 1}")
    if len(sequences) >= folds:
        held = [s for i, s in enumerate(sequences) if i % folds == index]
        return [s for i, s in enumerate(sequences) if i % folds != index], held
    training, held = [], []
    for sequence in sequences:
        if len(sequence) < folds:
            raise InputError(f"data.folds={folds}: sequence {sequence.name} has only {len(sequence)} frames")
        first, last = sequence.numbers[0], sequence.numbers[-1] + 1
        bounds = [first + round(i * (last - first) / folds) for i in range(folds + 1)]
        start, stop = bounds[index], bounds[index + 1]
        held.append(sequence.select(start, stop))
        training += [sequence.select(a, b) for a, b in ((first, start), (stop, last)) if a < b]
    return training, held


def keep_annotated(sequences: Seq[Sequence], count: int, seed: int) -> list[Sequence]:
    """Returns the sequences with the truth of `count` annotated frames alone.

    Counted through all sequences one after another, these are evenly spaced; the seed decides where they start. The
    other frames stay, as frames of which nothing is known.

    Raises:
        InputError: if there are not as many annotated frames.
    """
    places = [(which, frame) for which, s in enumerate(sequences) for frame in np.flatnonzero(s.annotated)]
    if len(places) < count:
        raise InputError(
            f"data.annotated_frames={count}: the training videos have only {len(places)} annotated frame(s): "
            "set fewer, or choose more videos by data.train"
        )
    start = np.random.default_rng(seed).random()
    kept: list[list[int]] = [[] for _ in sequences]
    for turn in range(count):
        which, frame = places[int((turn + start) * len(places) / count)]
        kept[which].append(int(frame))
    return [_hide_others(*pair) for pair in zip(sequences, kept, strict=True)]


def _hide_others(sequence: Sequence, kept: list[int]) -> Sequence:
    def hidden(truth: np.ndarray | None) -> np.ndarray | None:
        if truth is None or not kept:
            return None
        shown = np.full(truth.shape, -1, truth.dtype)  # in memory, unlike the truth
        shown[kept] = truth[kept]
        return shown

    annotated = np.zeros_like(sequence.annotated)
    annotated[kept] = True
    planes = sequence.annotated_planes
    return replace(
        sequence,
        labels=hidden(sequence.labels),
        classes=hidden(sequence.classes),
        annotated=annotated,
        annotated_planes=None if planes is None else planes & annotated[:, None],
    )


def _number(digits: str) -> int | None:
    """The number of a frame; what has more digits than any is behind the last one."""
    digits = digits and (digits.lstrip("0") or "0")
    return min(int(digits[: MAX_DIGITS + 1]), 10**MAX_DIGITS) if digits else None


def _range(sequence: Sequence, start: int, stop: int | None, option: str) -> Sequence:
    first, last = sequence.numbers[0], sequence.numbers[-1]
    stop = last + 1 if stop is None else stop
    if max(start, first) >= min(stop, last + 1):
        raise InputError(
            f"{option}: sequence {sequence.name} has no frame in [{start}:{stop}]: its frames are {first} to {last}"
        )
    return sequence.select(start, stop)
