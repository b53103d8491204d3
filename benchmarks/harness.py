"""What the benchmarks share: one thread, variants that take turns, memory, tables, targets. Import it before torch."""

import ctypes
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch
from torch import Tensor, nn

Call = Callable[[], object]


class Times(NamedTuple):
    """Seconds per call, one entry per round."""

    cpu: list[float]  # of all threads of this process
    wall: list[float]

    @property
    def cpu_ms(self) -> float:
        """Median milliseconds of the processor."""
        return statistics.median(self.cpu) * 1e3

    @property
    def wall_ms(self) -> float:
        """Median milliseconds of the clock."""
        return statistics.median(self.wall) * 1e3


def take_turns(
    variants: Mapping[str, Call], rounds: int = 5, calls: int = 1, wait: Call = lambda: None
) -> dict[str, Times]:
    """Calls all variants in each round, the order turned by one from round to round, after a round to warm up.

    Args:
        variants: what to call, by name.
        rounds: measurements of each.
        calls: calls that are measured together, for what takes less than some milliseconds.
        wait: returns when an accelerator is done.
    """
    names = list(variants)
    times = {name: Times([], []) for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wait()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls):
                result = variants[name]()  # noqa: F841 - lives while the next is made, as clips do in a training
            wait()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                times[name].cpu.append(cpu / calls)
                times[name].wall.append(wall / calls)
    return times


def ratio(slow: Times, fast: Times) -> float:
    """How many times faster, by the medians of process time."""
    return slow.cpu_ms / fast.cpu_ms


def saved_megabytes(forward: Callable[[], Tensor], network: nn.Module | None = None) -> float:
    """What a forward pass keeps for the backward pass, without the network's parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in (network.parameters() if network else ())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    total = sum(size for place, size in kept.items() if place not in parameters)
    del result
    return total / 1e6


def peak_megabytes(call: Call) -> float:
    """Peak resident memory of a call above the memory before, sampled every millisecond (Linux)."""
    process, done, seen = psutil.Process(), threading.Event(), []
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the call would reuse what others have freed

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return (max([before, *seen]) - before) / 1e6


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print()


class Target(NamedTuple):
    """A number that was wanted, and what came out."""

    what: str
    wanted: float
    measured: float
    unit: str = "x"
    at_least: bool = True  # else at most

    @property
    def met(self) -> bool:
        """Whether it was reached, to the digits that are printed."""
        measured = float(f"{self.measured:.3g}")
        return measured >= self.wanted if self.at_least else measured <= self.wanted


def print_targets(targets: Iterable[Target]) -> None:
    """Prints a table that `record.py` finds again."""
    rows = [
        [
            target.what,
            f"{'at least' if target.at_least else 'at most'} {target.wanted:g} {target.unit}",
            f"{target.measured:.3g} {target.unit}",
            "yes" if target.met else "no",
        ]
        for target in targets
    ]
    table(["target", "wanted", "measured", "met"], rows)
