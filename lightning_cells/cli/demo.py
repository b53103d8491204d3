"""The whole way in a few minutes, without data or GPU.

Simulates videos of nuclei, and tracks the tenth with the model that comes with the package. Then it trains a tiny
U-LSTM on eight of them, picks the best epoch by the ninth, tracks the tenth with that, too, and measures the results
beside two classical baselines. Everything is logged and can be looked at in the dashboard; a report of the test is one
HTML file.

  lightning-cells demo
"""

import argparse
import os
import time
from functools import partial
from typing import get_args

TRAINED = "U-LSTM, tiny"
"""Row of the network that is trained."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--seed", type=int, default=1, help="of simulation and training (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="of training (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Runs the demonstration and prints its table."""
    import torch

    from lightning_cells.callbacks.checkpoint import Checkpoints
    from lightning_cells.callbacks.test_report import report_path
    from lightning_cells.cli.training import TrainingCLI
    from lightning_cells.data.simulate import simulate
    from lightning_cells.experiments.baselines import tracked
    from lightning_cells.experiments.scores import measure
    from lightning_cells.instances.classical import Split, otsu
    from lightning_cells.loggers.mlflow import RunLogger
    from lightning_cells.methods.pretrained import DEFAULT, pretrained_checkpoint
    from lightning_cells.metrics.evaluate import evaluate
    from lightning_cells.metrics.measures import FIRST
    from lightning_cells.paths import output_dir
    from lightning_cells.result import Result
    from lightning_cells.tracking import Tracker
    from lightning_cells.visualization.drawing import save_png

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    home = output_dir() / "demo"
    videos = home / f"videos-seed{args.seed}"
    started = time.monotonic()
    if not videos.exists():
        simulate(videos, sequences=10, seed=args.seed)

    results, held_out, truth = home / "results", videos / "10", videos / "10_GT"
    rows: dict[str, dict[str, float]] = {}
    Tracker(pretrained_checkpoint(DEFAULT), device="cpu").track_to(held_out, results / DEFAULT / "10_RES")
    rows[f"{DEFAULT}, as shipped"] = evaluate(results / DEFAULT / "10_RES", truth).values()
    first = home / f"{DEFAULT}.png"
    save_png(first, Result.read(results / DEFAULT / "10_RES", held_out).picture())
    print(f"\nVideo 10, tracked by the model {DEFAULT}, which never saw it, after {time.monotonic() - started:.0f} s\n")
    _show(rows)
    print(f"\nPicture    {os.path.relpath(first)}\n\nNow a network is trained on videos 1 to 8.\n")

    shared = ["-c", "conf/data/simulated.yaml", "-c", "conf/trainer/cpu.yaml", "--data.root", str(videos)]
    training = ["--seed_everything", str(args.seed), "--trainer.max_epochs", str(args.epochs)]
    fitted = TrainingCLI(["fit", "-c", "conf/method/ulstm/tiny.yaml", *shared, *training])
    logger, checkpoints = fitted.trainer.logger, fitted.trainer.checkpoint_callback
    assert isinstance(logger, RunLogger)
    assert isinstance(checkpoints, Checkpoints)
    run_id, best = logger.run_id, checkpoints.best
    TrainingCLI(["predict", *shared, "--ckpt_path", str(best), "--results.folder", str(results / "ulstm")])
    tested = TrainingCLI(["test", *shared, "--ckpt_path", str(best)])
    assert isinstance(tested.trainer.logger, RunLogger)

    rows[TRAINED] = evaluate(results / "ulstm" / "10_RES", truth).values()
    for split in get_args(Split):
        rows[f"Otsu, {split}"] = measure(
            partial(tracked, partial(otsu, split=split)), tested.datamodule.sequences["test"]
        )
    picture = home / "tracked.png"
    save_png(picture, Result.read(results / "ulstm" / "10_RES", held_out).picture())

    for name in FIRST:
        logger.experiment.log_metric(run_id, f"test/{name}", rows[TRAINED][name])
    logger.experiment.log_artifact(run_id, str(picture))

    print(f"\nHeld-out video 10, {time.monotonic() - started:.0f} s in all\n")
    _show(rows)
    print(f"\nRun        {run_id}")
    print(f"Checkpoint {os.path.relpath(best)}")
    print(f"Picture    {os.path.relpath(picture)}")
    print(f"Report     {os.path.relpath(report_path(str(tested.trainer.logger.run_id)))}")
    print("Dashboard  make dashboard   (or: lightning-cells dashboard), then open the address it prints")


def _show(rows: dict[str, dict[str, float]]) -> None:
    from lightning_cells.metrics.measures import FIRST

    print(f"{'':<18}" + "".join(f"{name:>8}" for name in FIRST))
    for row, measures in rows.items():
        print(f"{row:<18}" + "".join(f"{measures[name]:8.3f}" for name in FIRST))
