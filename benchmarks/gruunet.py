"""What the GRUU-Net's presets cost, beside the U-Net: time and memory of a training step, time of a frame.

One process, one thread, float32. Time is CPU time, the best of several rounds; memory is what the forward pass keeps
for the backward pass, which grows with the batch.

    python benchmarks/gruunet.py [--size 256] [--batch 1] [--rounds 3]
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import yaml
from torch import Tensor, nn

from lightning_cells.losses.focal import FocalLoss
from lightning_cells.networks.architectures import Architecture, GRUUNet, UNet

PRESETS = Path(__file__).parents[1] / "conf/method/gruunet"
CLASSES = 2


def networks() -> dict[str, Architecture]:
    """Returns the presets, each with and without recomputing, and the U-Net."""
    found: dict[str, Architecture] = {}
    for name in ("paper", "frrn_a", "slim", "tiny"):
        sizes = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())["model"]["init_args"]["network"]["init_args"]
        found[name] = GRUUNet(**sizes)
        found[f"{name}, recompute"] = GRUUNet(**sizes, recompute=True)
    return {**found, "U-Net, width 1": UNet(), "U-Net, width 0.5, 3 levels": UNet(width=0.5, levels=3)}


def kept_megabytes(network: nn.Module, frames: Tensor) -> float:
    """Memory that the forward pass keeps, without the parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(frames)
    total = sum(size for place, size in kept.items() if place not in parameters)
    del logits
    return total / 1e6


def milliseconds(job: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return 1000 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="side of the frames in pixels")
    parser.add_argument("--batch", type=int, default=1, help="frames per step")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = torch.randn(args.batch, 1, args.size, args.size)
    truth = torch.randint(0, CLASSES, (args.batch, args.size, args.size))
    loss = FocalLoss()
    print(f"{'network':28} {'parameters':>10} {'step, ms':>9} {'kept, MB':>9} {'frame, ms':>10}")
    for name, architecture in networks().items():
        network = architecture.build(CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(network.parameters(), amsgrad=True)

        def step(network: nn.Module = network, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            loss(network(frames), truth).backward()
            optimizer.step()

        def segment(network: nn.Module = network) -> None:
            network(frames[:1])

        kept = kept_megabytes(network, frames)
        training = milliseconds(step, args.rounds)
        network.eval()
        with torch.no_grad():
            inference = milliseconds(segment, args.rounds)
        count = sum(parameter.numel() for parameter in network.parameters())
        print(f"{name:28} {count:10,} {training:9.0f} {kept:9.0f} {inference:10.0f}")


if __name__ == "__main__":
    main()
