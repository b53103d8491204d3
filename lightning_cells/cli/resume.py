"""``fit --resume RUN``: the words of a training that goes on, from those of the user and what is kept of its run."""

from pathlib import Path
from typing import NamedTuple

from lightning_cells.cli.arguments import given, without
from lightning_cells.errors import InputError
from lightning_cells.loggers.run_folder import find_run, interrupted_run


class Resumed(NamedTuple):
    """A training that goes on.

    Attributes:
        run: its name.
        words: the command line: the run's configuration, its last checkpoint, then what the user gives.
        checkpoint: where it goes on; None if it was interrupted before the first checkpoint.
    """

    run: str
    words: list[str]
    checkpoint: Path | None


def resumed(args: list[str], words: tuple[str, ...] | None) -> Resumed | None:
    """Looks for a run to go on with: the one that ``--resume`` names, or that an earlier attempt of this job began.

    Args:
        args: verb and options, with configuration files as they are found.
        words: the same as the user has given them, by which a job knows its run; None for one that does not go on by
            itself.

    Raises:
        InputError: if the run is not known here, or the verb is another than ``fit``.
    """
    run = given(args, "resume")
    if run is not None and args[0] != "fit":
        raise InputError(f"--resume {run}: goes on with a training: use it with fit, or give --ckpt_path")
    if args[0] != "fit":
        return None
    asked = run is not None
    if run is None and words is not None:
        run = interrupted_run(words)
    if run is None:
        return None
    folder = find_run(run)
    last = folder.checkpoints / "last.ckpt"
    start = ["--ckpt_path", str(last)] if last.is_file() else []
    again = ["fit", "-c", str(folder.config)]
    # a job's own checkpoint to start from was that of its first attempt
    again += [*start, *without(args[1:], "resume")] if asked else [*args[1:], *start]
    return Resumed(folder.name, again, last if start else None)
