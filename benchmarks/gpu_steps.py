"""Training steps of the methods' presets on a device: time by precision, graphs and batch; kernels, waits, operations.

A step is what a training does with a batch that has arrived: the method's own loss, on cells that the loader's own
target was made of, the backward pass, and the optimiser. Nothing in it waits for the device, so steps are timed as they
follow one another.
"""

import copy
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from cosine_loss import cells
from gpu_presets import method_of, settings
from steps import compiled_cells
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lightning_cells.data.clips import Clip
from lightning_cells.methods import Adversarial
from lightning_cells.methods.base import CellMethod
from lightning_cells.networks.gru import ConvGRU
from lightning_cells.networks.recurrent import ConvLSTM

METHODS = ("rshn", "ulstm", "gruunet", "adversarial", "brightfield")
Loss = Callable[[CellMethod, Clip], Tensor]
Note = Callable[..., None]


class Variant(NamedTuple):
    """How a step is computed."""

    name: str
    bf16: bool = True
    tf32: bool = True
    tuned: bool = True  # whether cuDNN tries which of its ways is the fastest, as `conf/trainer/gpu.yaml` has it
    compiled: str = ""  # the cells of recurrent networks, or the network, or the network with graphs
    graph: bool = False  # one of the whole step, optimiser included


VARIANTS = (
    Variant("float32", bf16=False, tf32=False),
    Variant("TF32", bf16=False),
    Variant("bfloat16, not tuned", tuned=False),
    Variant("bfloat16"),
    Variant("bfloat16, CUDA graph of the step", graph=True),
    Variant("bfloat16, compiled cells", compiled="cells"),
    Variant("bfloat16, compiled network", compiled="network"),
    Variant("bfloat16, compiled network with graphs", compiled="graphs"),
)
USUAL = VARIANTS[3]


class Step:
    """A training step of a copy of a method.

    Args:
        method: on its device.
        loss: of a method and a clip.
        clip: the batch.
        variant: how it is computed.
    """

    def __init__(self, method: CellMethod, loss: Loss, clip: Clip, variant: Variant = USUAL) -> None:
        self.method = copy.deepcopy(method).train()
        self.loss, self.clip, self.variant = loss, clip, variant
        network = player(self.method, loss)
        if variant.compiled == "cells":
            compiled_cells(network)
        elif variant.compiled and clip.frames.is_cuda:
            network.compile(mode="reduce-overhead" if variant.compiled == "graphs" else None)
        elif variant.compiled:
            network.compile(backend="aot_eager")  # the small form shows that the network can be followed
        self.optimizer = self.method.optimization.start(network)
        if variant.graph:
            for group in self.optimizer.param_groups:
                group["capturable"] = True

    def __call__(self) -> None:
        """One step."""
        device = self.clip.frames.device.type
        self.optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16) if self.variant.bf16 else nullcontext():
            loss = self.loss(self.method, self.clip)
        loss.backward()
        self.optimizer.step()

    def recorded(self) -> Callable[[], None]:
        """The step as one CUDA graph, or as it is."""
        if not self.variant.graph:
            return self
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self()
        return graph.replay


def losses(method: CellMethod) -> dict[str, Loss]:
    """What a method trains on, by the name of the player: one, or two that train against each other."""
    if isinstance(method, Adversarial):
        return {"discriminator": discriminator_loss, "estimator": estimator_loss}
    return {"": lambda method, clip: method.training_step(clip, 0)}


def discriminator_loss(method: Adversarial, clip: Clip) -> Tensor:
    frames, classes = clip.frames.flatten(0, 1), clip.target["classes"].flatten(0, 1)
    half = len(frames) // 2
    return method.discriminator_loss(frames[:half], classes[:half], frames[-half:], classes[-half:])


def estimator_loss(method: Adversarial, clip: Clip) -> Tensor:
    half = len(clip.frames) // 2
    return method.estimator_loss(clip.frames.flatten(0, 1)[:half], clip.target["classes"].flatten(0, 1)[:half])


def player(method: CellMethod, loss: Loss) -> nn.Module:
    """The network that a loss moves."""
    return method.discriminator if loss is discriminator_loss else method.network  # type: ignore[return-value]


def prepared(name: str, size: str) -> tuple[CellMethod, dict[str, Any]]:
    """A method of a preset, and the settings of its data."""
    said = settings(f"method/{name}/{size}")
    method = method_of(said)
    method.log = lambda *args, **options: None  # type: ignore[method-assign]  # there is no Trainer
    return method, said["data"]


def batch(method: CellMethod, data: dict[str, Any], clips: int, device: str) -> Clip:
    """A batch of the preset's clips, all of them with the same cells."""
    frames, side = data["clip_length"], data["augmentation"]["crop"]
    if device == "cpu":
        side = min(side, 64)
    labels = cells(30)[:frames, :side, :side]
    target = method.clip_target(labels) if method.clip_target else {}

    def spread(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array)[None].expand(clips, *array.shape).contiguous().to(device)

    return Clip(
        frames=torch.randn(clips, frames, 1, side, side, device=device),
        labels=spread(labels),
        classes=spread((labels % 3).astype(np.int8)),
        target={key: spread(array) for key, array in target.items()},
        first=torch.zeros(clips, dtype=torch.bool, device=device),
    )


def operations(name: str, size: str) -> dict[str, float]:
    """Operations of a step, by player: counted in forward and backward pass on tensors without data."""
    method, data = prepared(name, size)
    method.to("meta")
    clip = batch(method, data, data["batch_size"], "meta")
    found = {}
    for who, loss in losses(method).items():
        # tensors without data know no autocast, which the losses suspend
        with mock.patch("torch.autocast", return_value=nullcontext()), FlopCounterMode(display=False) as counter:
            loss(method, clip).backward()
        found[who] = float(counter.get_total_flops())
    return found


def measure(note: Note, name: str, cuda: bool, rounds: int, deadline: float) -> None:
    """All there is to say of one preset, the cheap and the important first.

    Args:
        note: keeps a result.
        name: of the preset's method.
        cuda: whether on the GPU in the paper's size, else on the CPU in a small one.
        rounds: steps that are timed together.
        deadline: of `time.monotonic`, after which nothing new begins.
    """
    device = "cuda" if cuda else "cpu"
    method, data = prepared(name, "paper" if cuda else "tiny")
    method.to(device)
    clip = batch(method, data, data["batch_size"] if cuda else min(data["batch_size"], 4), device)
    for who, loss in losses(method).items():
        title = f"{name} {who}".strip()

        def tell(variant: str, call: Callable[[], dict[str, Any]], title: str = title) -> bool:
            return attempt(note, deadline, call, preset=title, variant=variant)

        first, later = VARIANTS[:4] if cuda else (VARIANTS[0], USUAL), VARIANTS[4:]
        for variant in first:
            tell(variant.name, lambda variant=variant, loss=loss: clocked(method, loss, clip, variant, rounds))
        tell("events", lambda loss=loss: events(Step(method, loss, clip)))
        count = len(clip.frames)
        for number in (count * 2**power for power in range(0, 12 if cuda else 2)):
            if not tell(
                f"batch of {number}", lambda n=number, loss=loss: of_batch(method, loss, data, n, device, rounds)
            ):
                break
        recurrent = any(isinstance(part, ConvGRU | ConvLSTM) for part in method.modules())
        for variant in later:
            # on the CPU, of a network that is compiled in seconds
            if recurrent or variant.compiled != "cells" if cuda else not recurrent and variant.compiled == "network":
                tell(variant.name, lambda variant=variant, loss=loss: clocked(method, loss, clip, variant, rounds))


def attempt(note: Note, deadline: float, call: Callable[[], dict[str, Any]], **what: Any) -> bool:
    """Keeps what a call finds out, or why it did not; whether it did."""
    if time.monotonic() > deadline:
        note(**what, skipped="no time left")
        return False
    try:
        found = call()
    except Exception as error:  # a variant that does not run must not end the part
        found = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error) else ''}"}
    note(**what, **found)
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return "error" not in found


def clocked(method: CellMethod, loss: Loss, clip: Clip, variant: Variant, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step."""
    with rounding(variant.tf32, variant.tuned):
        return timed(Step(method, loss, clip, variant).recorded(), rounds)


def of_batch(method: CellMethod, loss: Loss, data: dict[str, Any], number: int, device: str, rounds: int) -> dict:
    """Milliseconds of a step on a batch of another size, and of each of its clips."""
    with rounding(True, USUAL.tuned):
        found = timed(Step(method, loss, batch(method, data, number, device)), max(1, rounds // 4))
    return {**found, "clip_ms": round(found["wall_ms"] / number, 2)}


def timed(call: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Times calls that follow one another.

    Args:
        call: what is timed.
        rounds: calls that are timed together, three times over.

    Returns:
        Medians of milliseconds until the device is done and until Python is, seconds of the first call, and on a GPU
        the peak of its memory in GB.
    """
    cuda = torch.cuda.is_initialized()
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    call()
    wait()
    first = time.perf_counter() - began
    call()
    walls, pythons = [], []
    for _ in range(3):
        wait()
        began = time.perf_counter()
        for _ in range(rounds):
            call()
        pythons.append((time.perf_counter() - began) / rounds)
        wait()
        walls.append((time.perf_counter() - began) / rounds)
    return {
        "wall_ms": round(1e3 * statistics.median(walls), 3),
        "python_ms": round(1e3 * statistics.median(pythons), 3),
        "first_s": round(first, 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
    }


def events(step: Step) -> dict[str, Any]:
    """What happens in a step: kernels, how long they keep the device busy, and calls that wait for it.

    On a CPU the kernels are torch's operations.
    """
    cuda = step.clip.frames.is_cuda
    step()
    waits = []
    if cuda:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            step()
            torch.cuda.set_sync_debug_mode("default")
        waits = [f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in seen if "synchroniz" in str(one.message)]
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as watched:
        step()
        if cuda:
            torch.cuda.synchronize()
    averages = watched.key_averages()
    found = [one for one in averages if str(one.device_type).endswith("CUDA" if cuda else "CPU")]
    busy = sum(one.self_device_time_total if cuda else one.self_cpu_time_total for one in found)
    return {"kernels": sum(one.count for one in found), "busy_ms": round(busy / 1e3, 2), "waits": waits}


@contextmanager
def rounding(tf32: bool, tuned: bool) -> Iterator[None]:
    """Lets convolutions and matrix products round to TF32, and cuDNN try its ways, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = tuned
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
