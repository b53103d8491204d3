"""Training steps of the recurrent methods, and their cells: ours beside plain code, frame by frame, and beside Keras.

The plain networks compute each gate by a convolution of [x, h], one frame after the other (`plain.py`); they have the
same weights, and results are compared before anything is timed. Keras is its ConvLSTM2D on its torch backend. A cell is
run forward and backward; a step is network, loss, backward pass and optimiser, on the size of clip that the preset has,
or, for "half the paper", with half the paper's channels on 64 x 64 pixels. One process, one thread, in turn.

    python benchmarks/steps.py [--rounds 5] [--only cells rshn ulstm] [--paper]
"""

import argparse
import copy
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

from harness import Call, Target, Times, peak_megabytes, print_targets, ratio, saved_megabytes, table, take_turns

# isort: split
import numpy as np
import torch
import yaml
from cosine_loss import cells as draw_cells
from cosine_loss import plain_loop
from plain import PlainLayer, PlainRSHN, PlainULSTM
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lightning_cells.data.neighbours import CosineTarget
from lightning_cells.losses.cosine_embedding import CosineEmbeddingLoss
from lightning_cells.losses.cross_entropy import ThreeClassLoss
from lightning_cells.networks.gru import ConvGRU
from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.networks.recurrent import ConvLSTM
from lightning_cells.networks.ulstm import ULSTM

PRESETS = Path(__file__).parents[1] / "conf/method"
BF16 = "bfloat16, channels last"


class Step:
    """Forward, loss, backward and, for networks, the optimiser."""

    def __init__(
        self, network: nn.Module, clip: Tensor, loss: Callable[[Any], Tensor], bf16: bool = False, last: bool = False
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last) if last else network  # type: ignore[call-overload]
        self.clip, self.loss, self.bf16 = clip, loss, bf16
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)

    def forward(self) -> Tensor:
        """The loss."""
        with torch.autocast(self.clip.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            output = self.network(self.clip)
            return self.loss(output[0] if isinstance(output, tuple) else output)

    def __call__(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        self.forward().backward()
        self.optimizer.step()


def variants(ours: nn.Module, plain: nn.Module, clip: Tensor, loss: Callable[[Any], Tensor]) -> dict[str, Step]:
    """All ways to compute the same step, with copies of the same weights."""
    recomputing = copy.deepcopy(ours)
    for module in recomputing.modules():
        if hasattr(module, "recompute"):
            module.recompute = True
    made = {
        "plain": Step(plain, clip, loss),
        f"plain, {BF16}": Step(copy.deepcopy(plain), clip, loss, True, True),
        "ours": Step(copy.deepcopy(ours), clip, loss),
        "ours, channels last": Step(copy.deepcopy(ours), clip, loss, False, True),
        "ours, bfloat16": Step(copy.deepcopy(ours), clip, loss, True),
        f"ours, {BF16}": Step(copy.deepcopy(ours), clip, loss, True, True),
        f"ours, {BF16}, compiled cell": Step(compiled_cells(copy.deepcopy(ours)), clip, loss, True, True),
    }
    if not isinstance(ours, ConvGRU | ConvLSTM):
        made[f"ours, {BF16}, recomputing"] = Step(recomputing, clip, loss, True, True)
    return made


def compiled_cells(network: nn.Module) -> nn.Module:
    """Compiles the step of each recurrent cell, which takes less long than to compile the loops over time."""
    torch._dynamo.config.recompile_limit = 100
    for cell in network.modules():
        if isinstance(cell, ConvGRU | ConvLSTM):
            cell._step = torch.compile(cell._step, dynamic=False)
    return network


def check(ours: nn.Module, plain: nn.Module, clip: Tensor) -> float:
    """Largest difference between the outputs, relative to the largest value; stops if it is not small."""
    ours, plain = copy.deepcopy(ours).eval(), copy.deepcopy(plain).eval()  # batch norm has fixed statistics
    with torch.no_grad():
        outputs = [network(clip) for network in (ours, plain)]
    outputs = [output[0] if isinstance(output, tuple) else output for output in outputs]
    one, other = (output if isinstance(output, Tensor) else output[-1] for output in outputs)
    difference = float((one - other).abs().max() / one.abs().max())
    if difference > 1e-3:
        raise SystemExit(f"the results differ by {difference}")
    return difference


def convolution_share(step: Step) -> float:
    """Percent of a step's time that its convolutions take, forward and backward."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        step()
    spent = {event.key: event.self_cpu_time_total for event in watched.key_averages()}
    return 100 * sum(time for name, time in spent.items() if "conv" in name) / sum(spent.values())


def report(steps: Mapping[str, Step], times: Mapping[str, Times]) -> None:
    """Prints a table."""
    base = times["plain"]
    rows = []
    for name, used in times.items():
        saved, peak = saved_megabytes(steps[name].forward, steps[name].network), peak_megabytes(steps[name])
        share = convolution_share(steps[name])
        row = [name, f"{used.cpu_ms:.1f}", f"{used.wall_ms:.1f}", f"x{ratio(base, used):.2f}", f"{share:.0f} %"]
        rows.append([*row, f"{saved:.1f}", f"{peak:.0f}"])
    columns = ["variant", "CPU ms", "wall ms", "speed-up (CPU)", "of it convolutions"]
    table([*columns, "kept for backward MB", "peak MB"], rows)


def squares(output: Any) -> Tensor:
    return output.float().square().mean()


def keras_lstm(layer: ConvLSTM, clip: Tensor) -> nn.Module:
    """Keras' ConvLSTM2D with the weights of ours."""
    import keras

    *_, kernel, _ = layer.input_conv.weight.shape
    theirs = keras.layers.ConvLSTM2D(
        layer.hidden, kernel, padding="same", return_sequences=True, data_format="channels_first"
    )
    theirs.build(tuple(clip.shape))
    order = [0, 2, 1, 3]  # i, f, c, o
    weights = []
    for conv in (layer.input_conv, layer.hidden_conv):
        parts = conv.weight.detach().chunk(4)
        weights.append(torch.cat([parts[k] for k in order]).permute(2, 3, 1, 0).numpy())
    bias = torch.zeros(4, layer.hidden)
    bias[1] = 1  # ours adds it by itself
    theirs.set_weights([*weights, bias.flatten().numpy()])
    return theirs


def cells(rounds: int) -> None:
    for kind, inputs, hidden, kernel, size in (
        (ConvLSTM, 1, 32, 5, 64),
        (ConvLSTM, 32, 64, 3, 64),
        (ConvGRU, 32, 32, 3, 64),
    ):
        layer, clip = kind(inputs, hidden, kernel), torch.randn(1, 8, inputs, size, size)
        plain = PlainLayer(layer)
        difference = check(layer, plain, clip)
        steps = variants(layer, plain, clip, squares)
        if isinstance(layer, ConvLSTM):
            theirs = keras_lstm(layer, clip)
            difference = max(difference, check(layer, theirs, clip))
            steps["keras"] = Step(theirs, clip, squares)
            steps["keras, bfloat16"] = Step(copy.deepcopy(theirs), clip, squares, True)
        print(f"### {kind.__name__} {inputs} -> {hidden}, kernel {kernel}, 8 frames of {size} x {size}\n")
        print(f"largest relative difference of float32 results: {difference:.0e}\n")
        report(steps, take_turns(steps, rounds))


def rshn_sizes(paper: bool) -> dict[str, tuple[dict[str, int], int, int]]:
    """Options of the network, frames and side of the clip."""
    sizes = {}
    for name in ("tiny", "paper"):
        preset = yaml.safe_load((PRESETS / f"rshn/{name}.yaml").read_text())
        options = {key: preset["model"]["init_args"][key] for key in ("features", "levels", "embedding")}
        sizes[name] = options, preset["data"]["clip_length"], preset["data"]["augmentation"]["crop"]
    options, frames, side = sizes["paper"]
    half = options | {"features": options["features"] // 2}, frames, side // 4
    return {"tiny": sizes["tiny"], "half the paper": half} | ({"paper": sizes["paper"]} if paper else {})


def rshn(rounds: int, paper: bool) -> list[Target]:
    targets = []
    for name, (options, frames, side) in rshn_sizes(paper).items():
        network, clip = StackedHourglass(**options), torch.randn(1, frames, 1, side, side)
        labels = draw_cells(30)[:frames, :side, :side]
        neighbours = torch.from_numpy(CosineTarget(50)(labels)["neighbours"])[None]
        truth, ours = torch.from_numpy(labels)[None], CosineEmbeddingLoss()

        def loss(outputs: list[Tensor], truth=truth, neighbours=neighbours, ours=ours) -> Tensor:
            return ours(outputs, truth, neighbours)

        def loop(outputs: list[Tensor], truth=truth, neighbours=neighbours) -> Tensor:
            return sum(plain_loop(output.float(), truth, neighbours) for output in outputs)

        plain = PlainRSHN(network)
        difference = check(network, plain, clip)
        steps: dict[str, Call] = {"plain, with the plain loss": Step(copy.deepcopy(plain), clip, loop)}
        steps |= variants(network, plain, clip, loss)
        if name == "paper":  # takes minutes else
            steps = {key: steps[key] for key in ("plain", "ours, channels last", f"ours, {BF16}")}
        count = len(np.unique(labels[labels > 0]))
        print(f"### RSHN, {name}: {options}, {frames} frames of {side} x {side}, {count} cells\n")
        print(f"largest relative difference of float32 results: {difference:.0e}\n")
        times = take_turns(steps, 2 if name == "paper" else rounds)
        report(steps, times)
        for variant, wanted in (("ours, channels last", 1.25), (f"ours, {BF16}", 1.9)):
            measured = ratio(times["plain"], times[variant])
            targets.append(Target(f"RSHN step, {name}: {variant}, over plain float32", wanted, measured))
    return targets


def ulstm_sizes(paper: bool) -> dict[str, tuple[list[int], int, str, tuple[int, int, int]]]:
    """Channels, recurrent kernel, normalisation, and clips per batch, frames and side."""
    sizes = {}
    for name in ("tiny", "paper"):
        preset = yaml.safe_load((PRESETS / f"ulstm/{name}.yaml").read_text())
        options, data = preset["model"]["init_args"], preset["data"]
        shape = data["batch_size"], data["clip_length"], data["augmentation"]["crop"]
        sizes[name] = options["channels"], options["lstm_kernel"], options.get("norm", "none"), shape
    channels, kernel, norm, (_, frames, side) = sizes["paper"]
    half = [width // 2 for width in channels], kernel, norm, (1, frames, side // 4)
    return {"tiny": sizes["tiny"], "half the paper": half} | ({"paper": sizes["paper"]} if paper else {})


def ulstm(rounds: int, paper: bool) -> None:
    for name, (channels, kernel, norm, (batch, frames, side)) in ulstm_sizes(paper).items():
        network = ULSTM(channels, lstm_kernel=kernel, norm=norm)
        clip = torch.randn(batch, frames, 1, side, side)
        classes, ours = torch.randint(0, 3, (batch, frames, side, side)), ThreeClassLoss()

        def loss(logits: Tensor, classes=classes, ours=ours) -> Tensor:
            return ours(logits, classes)

        plain = PlainULSTM(network)
        difference = check(network, plain, clip)
        steps = variants(network, plain, clip, loss)
        if name == "paper":
            steps = {key: steps[key] for key in ("plain", "ours, channels last", f"ours, {BF16}")}
        print(f"### U-LSTM, {name}: {channels}, kernel {kernel}, {batch} clips of {frames} frames of {side} x {side}\n")
        print(f"largest relative difference of float32 results: {difference:.0e}\n")
        report(steps, take_turns(steps, 2 if name == "paper" else rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each variant")
    parser.add_argument("--only", nargs="+", choices=["cells", "rshn", "ulstm"], default=["cells", "rshn", "ulstm"])
    parser.add_argument("--paper", action="store_true", help="the papers' sizes, too (an hour)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, medians of {args.rounds} rounds in turn\n")
    targets = []
    if "cells" in args.only:
        cells(args.rounds)
    if "rshn" in args.only:
        targets = rshn(args.rounds, args.paper)
    if "ulstm" in args.only:
        ulstm(args.rounds, args.paper)
    print_targets(targets)


if __name__ == "__main__":
    main()
