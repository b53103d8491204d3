"""Trains on several processes and nodes, by SLURM or torchrun, and goes on by itself when it is interrupted.

The words after -- are those of fit, or with slurm --array those of track with many videos, which are spread over so
many jobs. A script is written from them; --dry-run prints it and does nothing.

slurm submits one job. Some minutes before its time is up it writes a checkpoint and goes back into the queue; then,
and after the loss of a node, it continues the same MLflow run. torchrun is for nodes that are yours: run the same
command on each of them. If a process dies, all are started again and continue the same MLflow run.

lightning-cells launch slurm --array 16 --time 01:00:00 -- track plate/*/ --out results
lightning-cells launch slurm --nodes 2 --processes 4 --time 24:00:00 -- fit -c conf/method/rshn/paper.yaml
lightning-cells launch torchrun --nodes 2 --processes 8 --head node1 --job mine -- fit -c conf/method/rshn/paper.yaml
"""

import argparse
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_cells.cli import VerbParser, track
from lightning_cells.cli.parsing import check_configurations
from lightning_cells.errors import InputError
from lightning_cells.paths import DATA_VARIABLE, HOME_VARIABLE, data_dir, output_dir
from lightning_cells.trust import ALLOW_VARIABLE

_OURS = ("trainer.num_nodes", "trainer.devices", "trainer.accelerator")
_PORT = 29500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("system", choices=("slurm", "torchrun"), help="what starts the processes")
    parser.add_argument("words", nargs="+", metavar="fit ...", help="after --: the verb, fit or track, and its options")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="P", help="of each node, one per GPU (default: %(default)s)"
    )
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu", help="(default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the script, and do nothing")
    slurm = parser.add_argument_group("slurm")
    slurm.add_argument("--time", default="24:00:00", help="limit of one attempt (default: %(default)s)")
    slurm.add_argument("--array", type=int, metavar="JOBS", help="spread the videos of track over so many jobs")
    slurm.add_argument("--cpus", type=int, default=4, metavar="C", help="of each process (default: %(default)s)")
    slurm.add_argument(
        "--warning", type=int, default=180, metavar="S", help="seconds to stop in (default: %(default)s)"
    )
    slurm.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="as --sbatch=--partition=gpu")
    torchrun = parser.add_argument_group("torchrun")
    torchrun.add_argument("--head", metavar="HOST[:PORT]", help="one of the nodes, by the name all know it by")
    torchrun.add_argument("--restarts", type=int, default=3, metavar="R", help="most of them (default: %(default)s)")
    torchrun.add_argument("--job", metavar="NAME", help="the same on all nodes, another for each training")


def run(args: argparse.Namespace) -> None:
    """Prints the script, or has it run."""
    script = recipe(args)
    if args.dry_run:
        print(script, end="")
        return
    output_dir().mkdir(parents=True, exist_ok=True)
    if args.system == "torchrun":
        os.execvp("bash", ["bash", "-c", script])
    try:
        subprocess.run(["sbatch"], input=script, text=True, check=True)
    except FileNotFoundError:
        raise InputError("there is no sbatch here: call this where jobs are submitted, or see --dry-run") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"sbatch refused the job (status {error.returncode}): see --dry-run") from None


def recipe(args: argparse.Namespace) -> str:
    """The script of a command line.

    Raises:
        InputError: for a mistake in it.
    """
    for name in ("nodes", "processes", "cpus"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: must be at least 1")
    if args.array is not None:
        return _array(args)
    if args.words[0] != "fit":
        raise InputError(f"{args.words[0]}: only fit is launched, or track by slurm --array JOBS")
    check_configurations(args.words[1:])
    for name in _OURS:
        if any(word.partition("=")[0] == f"--{name}" for word in args.words):
            raise InputError(f"--{name}: follows from --nodes, --processes and --accelerator: leave it out")
    values = (args.nodes, args.processes, args.accelerator)
    words = [
        *args.words,
        *(word for name, value in zip(_OURS, values, strict=True) for word in (f"--{name}", str(value))),
    ]
    command = f"-m lightning_cells {shlex.join(words)}"
    return _slurm(args, command) if args.system == "slurm" else _torchrun(args, command)


def _array(args: argparse.Namespace) -> str:
    """A job for each share of the videos; one that is queued again skips what it has done."""
    if args.system != "slurm" or args.words[0] != "track":
        raise InputError("--array: spreads track over SLURM: lightning-cells launch slurm --array 16 -- track ...")
    if args.array < 1 or args.nodes > 1 or args.processes > 1:
        raise InputError("--array: give at least 1 job, each of one process: leave out --nodes and --processes")
    parser = VerbParser(allow_abbrev=False)
    track.add_arguments(parser)
    for path in parser.parse_known_args(args.words[1:])[0].frames:
        if not path.exists():
            raise InputError(f"{path}: there is no such folder or file: check the path")
    options = {
        "job-name": "lightning-cells-track",
        "array": f"0-{args.array - 1}",
        "cpus-per-task": args.cpus,
        "time": args.time,
        "requeue": None,
        "open-mode": "append",
        "output": f"{output_dir()}/slurm-%A-%a.log",
    }
    if args.accelerator == "gpu":
        options["gpus-per-node"] = 1
    command = f"-m lightning_cells {shlex.join(args.words)} --share $SLURM_ARRAY_TASK_ID/{args.array}"
    return _script(_sbatch(options, args.sbatch), f"exec {shlex.quote(sys.executable)} {command}")


def _sbatch(options: Mapping[str, object], more: Sequence[str]) -> list[str]:
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={value}") for name, value in options.items()]
    return lines + [f"#SBATCH {option}" for option in more]


def _slurm(args: argparse.Namespace, command: str) -> str:
    options = {
        "job-name": "lightning-cells",
        "nodes": args.nodes,
        "ntasks-per-node": args.processes,
        "cpus-per-task": args.cpus,
        "time": args.time,
        "signal": f"USR1@{args.warning}",
        "requeue": None,
        "open-mode": "append",
        "output": f"{output_dir()}/slurm-%j.log",
    }
    if args.accelerator == "gpu":
        options["gpus-per-node"] = args.processes
    return _script(_sbatch(options, args.sbatch), f"srun --kill-on-bad-exit=1 {shlex.quote(sys.executable)} {command}")


def _torchrun(args: argparse.Namespace, command: str) -> str:
    if args.nodes > 1 and not args.head:
        raise InputError("--head: give the name of one of the nodes, the same on all of them")
    if args.nodes > 1 and not args.job:
        raise InputError("--job: give the training a name, the same on all nodes")
    host, _, port = (args.head or "localhost").partition(":")
    options = {
        "nnodes": args.nodes,
        "nproc-per-node": args.processes,
        "max-restarts": args.restarts,
        "rdzv-backend": "c10d",
        "rdzv-endpoint": f"{host}:{port or (_PORT if args.nodes > 1 else 0)}",
        "rdzv-id": args.job or uuid.uuid4().hex[:12],
    }
    words = shlex.join(f"--{name}={value}" for name, value in options.items())
    # Else processes that are started again look for those that died.
    return _script(
        ["export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"],
        f"exec {shlex.quote(sys.executable)} -m torch.distributed.run {words} {command}",
    )


def _script(head: list[str], command: str) -> str:
    known = {HOME_VARIABLE: str(output_dir()), DATA_VARIABLE: str(data_dir())}
    known["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
    for name in ("MLFLOW_TRACKING_URI", ALLOW_VARIABLE):
        if value := os.environ.get(name):
            known[name] = value
    exports = [f"export {name}={shlex.quote(value)}" for name, value in known.items()]
    lines = ["#!/bin/bash", *head, "set -euo pipefail", f"cd {shlex.quote(str(Path.cwd()))}", *exports, command]
    return "\n".join(lines) + "\n"
