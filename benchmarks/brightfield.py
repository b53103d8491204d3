"""What the networks of the bright-field paper cost: time of a training step and of a frame, in each preset.

One process, one thread, float32. Time is CPU time, the best of several rounds.

    python benchmarks/brightfield.py [--size 224] [--batch 3] [--rounds 3]
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import yaml
from torch import nn

from lightning_cells.losses.cross_entropy import ThreeClassLoss
from lightning_cells.networks import architectures

PRESETS = Path(__file__).parents[1] / "conf/method/brightfield"
CLASSES = 3


def networks() -> dict[str, nn.Module]:
    """Returns the network of each preset."""
    found: dict[str, nn.Module] = {}
    for path in sorted(PRESETS.glob("*.yaml")):
        chosen = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
        kind = getattr(architectures, chosen["class_path"].rpartition(".")[2])
        found[path.stem] = kind(**chosen.get("init_args", {})).build(CLASSES)
    return found


def seconds(job: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="side of the frames in pixels")
    parser.add_argument("--batch", type=int, default=3, help="frames per step")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = torch.randn(args.batch, 1, args.size, args.size)
    truth = torch.randint(0, CLASSES, (args.batch, 1, args.size, args.size))
    loss = ThreeClassLoss()
    print(f"{'preset':16} {'network':10} {'parameters':>11} {'step, s':>8} {'frame, s':>9}")
    for name, network in networks().items():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(network.parameters())

        def step(network: nn.Module = network, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            loss(network(frames)[:, None], truth).backward()
            optimizer.step()

        @torch.no_grad()
        def infer(network: nn.Module = network) -> None:
            network(frames[:1])

        network.train()
        step()  # the first one makes the optimiser's state
        trained = seconds(step, args.rounds)
        network.eval()
        count = sum(parameter.numel() for parameter in network.parameters())
        inferred = seconds(infer, args.rounds)
        print(f"{name:16} {type(network).__name__:10} {count:11,} {trained:8.2f} {inferred:9.3f}", flush=True)


if __name__ == "__main__":
    main()
