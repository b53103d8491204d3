"""Looks for the best values of options: an Optuna study over trainings, or over clusterings of a trained method.

FILE names the study, the configurations that its trials share, the objective, and the space; see sweeps/ and
docs/how-to/sweep.md. Each trial of a training is a process of its own and a run of its own in MLflow, below the run of
the study. outputs/sweeps/STUDY gets a table, plots, and best_config.yaml for 'lightning-cells fit -c'. Dotted options
of 'fit', such as --data.root, hold for all trials.

lightning-cells sweep sweeps/tiny/ulstm_loss.yaml
lightning-cells sweep sweeps/tiny/ulstm_loss.yaml --resume --trials 40 --workers 2
lightning-cells sweep sweeps/rshn_clustering.yaml --checkpoint outputs/checkpoints/RUN/best.ckpt
lightning-cells sweep sweeps/rshn_loss.yaml --storage postgresql://USER:PASSWORD@HOST/DATABASE
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cells.trust import ALLOW_HELP, allow

PASSES_ON = True
"""Dotted options are for ``fit``."""

if TYPE_CHECKING:
    from lightning_cells.cli.resolving import Resolver
    from lightning_cells.experiments.tuning.study_file import StudyFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the sweep, such as sweeps/tiny/ulstm_loss.yaml")
    parser.add_argument(
        "--trials", type=int, metavar="N", help="trials of the study, over all workers (default: as in FILE)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="W",
        help="trials at a time on this machine, each with devices and cores of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database that keeps the study: sqlite:///FILE, or for many machines postgresql://USER:PASSWORD@HOST/"
        "DATABASE; a study that is there is joined (default: sqlite, outputs/optuna.db)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the study, or begin it if it is not there")
    parser.add_argument("--checkpoint", type=Path, metavar="F", help="trained method whose clustering is swept")
    parser.add_argument("--allow", metavar="PACKAGES", help=ALLOW_HELP)
    parser.add_argument(
        "--heartbeat",
        type=int,
        default=30,
        metavar="S",
        help="seconds between two signs of life; trials of a worker that missed three are run again elsewhere "
        "(default: %(default)s)",
    )
    slurm = parser.add_argument_group("many machines, by SLURM")
    slurm.add_argument(
        "--slurm", type=int, metavar="JOBS", help="submit an array of so many workers, and run none here"
    )
    slurm.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="as --sbatch=--gres=gpu:1")
    slurm.add_argument("--dry-run", action="store_true", help="with --slurm: print the script, and submit nothing")


def run(args: argparse.Namespace) -> None:
    """Runs the study and prints what it found, or has SLURM run it."""
    allow(args.allow)
    if args.slurm is not None:
        _submit(args)
        return
    if args.dry_run or args.sbatch:
        from lightning_cells.errors import InputError

        raise InputError(f"{'--dry-run' if args.dry_run else '--sbatch'}: is for --slurm JOBS: leave it out")
    import optuna

    from lightning_cells.cli.resolving import Resolver
    from lightning_cells.cli.words import readable, shown
    from lightning_cells.errors import without_passwords
    from lightning_cells.experiments.tuning.storage import Storage
    from lightning_cells.experiments.tuning.sweep import run_sweep
    from lightning_cells.paths import output_dir

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = _read(args)
    storage = Storage(args.storage, args.heartbeat)
    resolver = Resolver()
    plan, config = _check(plan, resolver)
    try:
        lines = run_sweep(
            plan,
            storage,
            config,
            configure=lambda chosen: resolver.text(plan.words(chosen)),
            workers=args.workers,
            join=args.resume or args.storage is not None,
            say=lambda line: print(line, flush=True),
        )
    except KeyboardInterrupt:
        given = sys.argv[2:] if sys.argv[1:2] == ["sweep"] else [str(args.file)]
        again = shlex.join(["sweep", *(word for word in given if word != "--resume")])
        print(without_passwords(f"\nThe study can go on: lightning-cells {again} --resume"), flush=True)
        raise
    best = readable(output_dir() / "sweeps" / plan.study / "best_config.yaml")
    verb = ["validate", "-c", best, "--ckpt_path", str(plan.checkpoint)] if plan.clustering else ["fit", "-c", best]
    print("\n".join([*lines, f"  the best again   {shown(*verb)}", f"  look at it       {shown('dashboard')}"]))


def _submit(args: argparse.Namespace) -> None:
    """Writes and submits the array, after a look at what can be checked without data."""
    from lightning_cells.cli.sweep_slurm import array_script, submit
    from lightning_cells.errors import InputError

    _read(args)
    if not (args.storage or "").startswith("postgresql"):
        raise InputError(
            "--slurm: workers on several machines share a server: give --storage postgresql://HOST/DATABASE"
        )
    words = [str(args.file), f"--storage={args.storage}", f"--workers={args.workers}", f"--heartbeat={args.heartbeat}"]
    words += [
        f"--{name}={value}" for name in ("trials", "checkpoint", "allow") if (value := getattr(args, name)) is not None
    ]
    script = array_script([*words, *args.passed_on], args.slurm, args.sbatch)
    if args.dry_run:
        print(script, end="")
    else:
        submit(script)


def _read(args: argparse.Namespace) -> "StudyFile":
    """Reads the sweep's file, with what the command line adds."""
    from lightning_cells.cli.parsing import dotted
    from lightning_cells.experiments.tuning.study_file import StudyFile
    from lightning_cells.paths import shipped

    path = args.file if args.file.exists() else shipped(args.file)
    return StudyFile.read(path).adjusted(args.trials, args.checkpoint, dotted(args.passed_on, vars(args)))


def _check(plan: "StudyFile", resolver: "Resolver") -> tuple["StudyFile", dict[str, Any]]:
    """Has the command line parse what trials will give it, before there is a study.

    Returns:
        The plan, of a clustering with what the checkpoint remembers, and the configuration that all trials share.

    Raises:
        InputError: for the first mistake.
    """
    import yaml

    from lightning_cells.errors import InputError
    from lightning_cells.experiments.tuning.clustering_trials import Clusterer, load_trained, with_checkpoint
    from lightning_cells.experiments.tuning.study import make_pruner, make_sampler

    make_sampler(plan)
    make_pruner(plan)
    if plan.clustering:
        plan = with_checkpoint(plan)
    try:
        for chosen in plan.space.extremes():
            resolver.resolve(plan.words(chosen))
        shared = plan.words(plan.space.lowest())
        config = yaml.safe_load(resolver.text(shared))
        if plan.checkpoint is not None:  # they are to fit each other
            load_trained(plan.checkpoint, config["model"])
            Clusterer(plan.checkpoint, config, limit=0)
        else:
            resolver.build(shared)
    except InputError as error:
        raise InputError(f"{plan.path}: {error}") from error
    return plan, config
