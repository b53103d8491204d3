"""What a GPU makes of the papers' networks: training steps, clustering, and `track` on large frames.

Training steps of RSHN and U-LSTM as their papers have them, in several precisions and layouts: milliseconds of the
clock, share of the operations per second that a large matrix product reaches on the same device, memory, and the
largest batch. The RSHN's paper had 0.42 s per iteration on a Titan V, and 4.5 to 140 s per frame for tracking.

    python benchmarks/gpu.py [--device cuda] [--rounds 10] [--only steps clustering track]
    python benchmarks/gpu.py --device cpu    # a small form that shows that all of it runs
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Call, Times, saved_megabytes, table, take_turns

# isort: split
import numpy as np
import torch
import track_parts
from clustering import embed, voronoi
from cosine_loss import cells
from steps import Step, compiled_cells, rshn_sizes, ulstm_sizes
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from track import train

from lightning_cells.data.neighbours import CosineTarget
from lightning_cells.data.simulate import simulate
from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask
from lightning_cells.instances.mean_shift import MeanShift
from lightning_cells.losses.cosine_embedding import CosineEmbeddingLoss, cell_blocks
from lightning_cells.losses.cross_entropy import ThreeClassLoss
from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.networks.ulstm import ULSTM
from lightning_cells.tracking import Tracker

Loss = Callable[[list[Tensor] | Tensor], Tensor]
PAPER = "the paper's own implementation, Titan V"


class Graphed(nn.Module):
    """A network's forward and backward pass, each recorded once and played as one CUDA graph."""

    def __init__(self, network: nn.Module, clip: Tensor) -> None:
        super().__init__()
        self.network = torch.cuda.make_graphed_callables(_Outputs(network), (clip,))

    def forward(self, clip: Tensor) -> tuple[list[Tensor] | Tensor, None]:
        """What the network returns, without the state."""
        outputs = self.network(clip)
        return (list(outputs) if len(outputs) > 1 else outputs[0]), None


class _Outputs(nn.Module):
    """The network's outputs as a tuple of tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(clip)[0]
        return tuple(outputs) if isinstance(outputs, list) else (outputs,)


def flops(network: nn.Module, clip: Tensor) -> float:
    """Operations of a forward and a backward pass, counted on tensors without data."""
    network = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        outputs = network(torch.empty_like(clip, device="meta"))[0]
        sum(output.sum() for output in (outputs if isinstance(outputs, list) else [outputs])).backward()
    return float(counter.get_total_flops())


def peaks(device: str, wait: Call) -> dict[str, float]:
    """Operations per second of a large matrix product, by precision."""
    side = 8192 if device == "cuda" else 512
    found = {}
    for name, dtype in (("float32", torch.float32), ("TF32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(side, side, device=device, dtype=dtype)
        with rounding(name == "TF32"):
            times = take_turns({name: lambda a=a: a @ a}, 5, 3, wait)
        found[name] = 2 * side**3 / min(times[name].wall)
    return found


@contextmanager
def rounding(tf32: bool) -> Iterator[None]:
    """Lets convolutions and matrix products round to TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def steps(name: str, network: nn.Module, clip: Tensor, loss: Loss, rounds: int, wait: Call) -> None:
    """One table."""
    device = clip.device.type
    work, top = flops(network, clip), peaks(device, wait)
    network.to(device)

    def graphed() -> Step:
        made = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            made = Graphed(made, clip)
        return Step(made, clip, loss, bf16=True)

    makers: dict[str, tuple[str, Callable[[], Step]]] = {
        "float32": ("float32", lambda: Step(copy.deepcopy(network), clip, loss)),
        "TF32": ("TF32", lambda: Step(copy.deepcopy(network), clip, loss)),
        "TF32, channels last": ("TF32", lambda: Step(copy.deepcopy(network), clip, loss, last=True)),
        "bfloat16": ("bfloat16", lambda: Step(copy.deepcopy(network), clip, loss, True)),
        "bfloat16, channels last": ("bfloat16", lambda: Step(copy.deepcopy(network), clip, loss, True, True)),
        "bfloat16, channels last, compiled cell": (
            "bfloat16",
            lambda: Step(compiled_cells(copy.deepcopy(network)), clip, loss, True, True),
        ),
        "bfloat16, channels last, compiled network": (
            "bfloat16",
            lambda: Step(torch.compile(copy.deepcopy(network)), clip, loss, True, True),
        ),
        "bfloat16, channels last, CUDA graph": ("bfloat16", graphed),
    }
    if device == "cpu":  # what has no meaning there, or takes minutes
        makers = {
            k: v for k, v in makers.items() if not k.startswith("TF32") and k.split(", ")[-1] in (k, "channels last")
        }
    rows = []
    for variant, (precision, make) in makers.items():
        try:
            with rounding(precision == "TF32"):
                step = make()
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                times: Times = take_turns({variant: step}, rounds, 1, wait)[variant]
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
            rows.append([variant, "", "", "", f"does not run: {str(error).splitlines()[0][:80]}"])
            continue
        share = work / (times.wall_ms / 1e3) / top[precision]
        memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else saved_megabytes(step.forward) / 1e3
        rows.append([variant, f"{times.wall_ms:.1f}", f"{100 * share:.0f} %", f"{memory:.2f}", ""])
        del step
    reached = ", ".join(f"{precision} {speed / 1e12:.3g}" for precision, speed in top.items())
    print(f"### {name}: clip {tuple(clip.shape)}, {work / 1e12:.3g} TFLOP per step\n")
    print(f"a matrix product reaches (TFLOP/s): {reached}\n")
    if name == "RSHN" and device == "cuda":
        rows.append([PAPER, "420", "", "", ""])
    table(["step", "wall ms", "share of a matrix product's speed", "memory GB", ""], rows)


def largest_batch(make: Callable[[int], Step]) -> int:
    """The largest power of two that fits."""
    batch = 1
    while True:
        try:
            make(batch)()
        except torch.cuda.OutOfMemoryError:
            return batch // 2
        finally:
            torch.cuda.empty_cache()
        batch *= 2


def rshn(device: str, rounds: int, wait: Call) -> None:
    options, frames, side = rshn_sizes(True)["paper" if device == "cuda" else "tiny"]
    network, ours = StackedHourglass(**options), CosineEmbeddingLoss()
    labels = cells(30)[:frames, :side, :side]
    neighbours = torch.from_numpy(CosineTarget(50)(labels)["neighbours"])
    one = cell_blocks(torch.from_numpy(labels), neighbours)  # the loader's workers do this
    blocks = {name: each.to(device) for name, each in one.items()}

    def loss(outputs: list[Tensor]) -> Tensor:
        batch = len(outputs[0])
        return ours.of_blocks(outputs, {name: each.expand(batch, *each.shape) for name, each in blocks.items()})

    steps("RSHN", network, torch.randn(1, frames, 1, side, side, device=device), loss, rounds, wait)
    if device == "cuda":
        for recompute in (False, True):
            whole = StackedHourglass(**options, recompute=recompute).to(device)

            def make(batch: int, whole: nn.Module = whole) -> Step:
                return Step(whole, torch.randn(batch, frames, 1, side, side, device=device), loss, True, True)

            print(f"largest batch, bfloat16, recomputing {recompute}: {largest_batch(make)}\n")


def ulstm(device: str, rounds: int, wait: Call) -> None:
    channels, kernel, norm, shape = ulstm_sizes(True)["paper" if device == "cuda" else "tiny"]
    batch, frames, side = shape
    network, ours = ULSTM(channels, lstm_kernel=kernel, norm=norm), ThreeClassLoss().to(device)
    classes = torch.randint(0, 3, (1, frames, side, side), device=device)

    def loss(logits: Tensor) -> Tensor:
        return ours(logits, classes.expand(len(logits), -1, -1, -1))

    steps("U-LSTM", network, torch.randn(batch, frames, 1, side, side, device=device), loss, rounds, wait)
    if device == "cuda":

        def make(batch: int) -> Step:
            return Step(network, torch.randn(batch, frames, 1, side, side, device=device), loss, True, True)

        print(f"largest batch, bfloat16: {largest_batch(make)}\n")


def clustering(device: str, rounds: int, wait: Call) -> None:
    rows = []
    for number in (25, 400) if device == "cuda" else (25,):
        rng = np.random.default_rng(number)
        embeddings = embed(voronoi(number, 256, rng), 0.05, rng).to(device)
        mask = foreground_mask(embeddings)
        calls = {"exact": MeanShift(algorithm="exact"), "fast": MeanShift(algorithm="fast")}
        variants: dict[str, Call] = {name: partial(call, embeddings, mask) for name, call in calls.items()}
        variants["whole decoder"] = partial(EmbeddingDecoder(), embeddings)
        for name, used in take_turns(variants, rounds, 1, wait).items():
            rows.append([number, int(mask.sum()), name, f"{used.wall_ms:.1f}"])
    print("### Clustering of a tile of 256 x 256 in two frames\n")
    table(["cells", "pixels", "algorithm", "wall ms"], rows)


def tracking(device: str) -> None:
    """Frames per second after a first call that warms up, without the start of the command."""
    side, number, frames = (1024, 500, 16) if device == "cuda" else (128, 8, 6)
    rows = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = simulate(folder / "data", sequences=4, frames=24)
        video = simulate(folder / "video", sequences=1, frames=frames, size=(side, side), cells=number) / "01"
        watch = track_parts.Stopwatch()
        for turn, method in enumerate(("ulstm", "rshn")):
            checkpoint = train(method, data, folder, batches=100)
            if not turn:
                watch.attach()
            Tracker(checkpoint, device).track_to(video, folder / "out")
            watch.spent.clear()
            start = track_parts.now()
            _, found = Tracker(checkpoint, device).track_to(video, folder / "out")
            took = track_parts.now() - start
            parts = [f"{watch.spent[part] / frames * 1e3:.1f}" for part in track_parts.PARTS]
            rows.append([method, found, f"{frames / took:.2f}", *parts])
    print(f"### track, frames of {side} x {side} with {number} cells, tiny networks\n")
    print("the RSHN's paper: 4.5 s (512 x 512) to 140 s (1100 x 700) per frame, 0.22 to 0.007 frames per second\n")
    table(["method", "tracks found", "frames per second", *(f"{part} ms" for part in track_parts.PARTS)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each")
    parts = ["steps", "clustering", "track"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no usable CUDA device: give --device cpu for the small form")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cuda = args.device == "cuda"
    wait: Call = torch.cuda.synchronize if cuda else lambda: None
    print(f"{torch.cuda.get_device_name() if cuda else 'CPU, the small form'}, medians of {args.rounds} rounds\n")
    if "steps" in args.only:
        rshn(args.device, args.rounds, wait)
        ulstm(args.device, args.rounds, wait)
    if "clustering" in args.only:
        clustering(args.device, args.rounds, wait)
    if "track" in args.only:
        tracking(args.device)


if __name__ == "__main__":
    main()
