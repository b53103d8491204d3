"""The command line: ``lightning-cells VERB``, the same as ``python -m lightning_cells VERB``."""

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from lightning_cells.errors import Doubt, InputError, one_line, without_passwords
from lightning_cells.paths import HOME_VARIABLE
from lightning_cells.trust import ALLOW_VARIABLE

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
TRAINING = {
    "fit": "train a method on a data set",
    "validate": "measure a checkpoint on the validation videos",
    "test": "measure a checkpoint on the test videos",
    "predict": "track videos with a checkpoint and write result folders",
}
VERBS = {
    "simulate": "write a simulated data set with exact truth",
    "class-maps": "make maps of nucleus and cytoplasm from two fluorescence channels",
    "download": "fetch a public data set",
    "cross-validate": "train and measure a method on each fold of a data set",
    "track": "track your own frames with a checkpoint or a registered model",
    "register": "put a trained method into MLflow's model registry",
    "evaluate": "compare a result folder with the truth",
    "export": "write a result as a table, GEFF, TrackMate XML, or for napari",
    "view": "open a result in napari",
    "sweep": "look for the best options: an Optuna study, on one machine or many",
    "reproduce": "run the papers' tables, and put the results beside theirs",
    "launch": "train on several nodes, by SLURM or torchrun",
    "deliver": "send what was logged while the MLflow server was away",
    "list": "list methods, presets, data sets, models, sweeps, tables and runs",
    "dashboard": "open the runs side by side in MLflow's pages",
    "compare": "put runs side by side on one page",
    "demo": "simulate, train, track, measure: the whole way in minutes",
}


def main(args: list[str] | None = None) -> int:
    """Runs one verb.

    Args:
        args: the command line without the program's name; None takes it from ``sys.argv``.

    Returns:
        The exit status: 0, or 2 for a user's mistake, told in one line on stderr.
    """
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # before torch: what a Mac's GPU lacks runs on the CPU
    args = sys.argv[1:] if args is None else list(args)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0 if args else 2
    if args[0] == "--completion":
        from lightning_cells.cli.completion import script

        return script(args[1:])
    if args[0] == "--version":
        from lightning_cells import __version__

        print(f"lightning-cells {__version__}")
        return 0
    verb, *rest = args
    before = {name: os.environ.get(name) for name in (HOME_VARIABLE, ALLOW_VARIABLE)}
    try:
        with _warnings_in_one_line(verb):
            return _runner(verb)(rest)
    except InputError as error:
        print(f"lightning-cells {verb}: error: {without_passwords(str(error))}", file=sys.stderr)
        return 2
    except SystemExit as leaving:  # argparse prints help and usage errors itself
        return leaving.code if isinstance(leaving.code, int) else 1
    except BrokenPipeError:  # as of `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        place = error.filename or "the file system"
        print(f"lightning-cells {verb}: error: {place}: {error.strerror}: choose another place", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"lightning-cells {verb}: interrupted", file=sys.stderr)
        return 130
    finally:  # --output_dir and --allow hold for this call alone
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _warnings_in_one_line(verb: str) -> Iterator[None]:
    """Prints warnings as they come, without the line of code that they come from."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, DeprecationWarning):  # asked for, by a developer
            others(message, category, *where, **more)
            return
        from tqdm import tqdm  # goes round a bar

        tqdm.write(f"lightning-cells {verb}: warning: {one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.simplefilter("always", Doubt)
        warnings.showwarning = show
        yield


class VerbParser(argparse.ArgumentParser):
    """Tells mistakes as `InputError` instead of printing the usage; takes no abbreviations."""

    def error(self, message: str) -> NoReturn:
        """Called by the base class for every mistake on the command line."""
        from lightning_cells.cli.parsing import explain  # only for those who made a mistake

        raise InputError(explain(message, (action.dest for action in self._actions)))


def verb_module(verb: str) -> ModuleType:
    """The module of a verb that is not a training; ``list`` would hide Python's own in this package."""
    name = "listing" if verb == "list" else verb.replace("-", "_")
    return import_module(f"lightning_cells.cli.{name}")


def _runner(verb: str) -> Callable[[list[str]], int]:
    """Imports only what this verb needs."""
    if verb in TRAINING:
        return lambda rest: _train(verb, rest)
    if verb not in VERBS:
        from difflib import get_close_matches

        near = get_close_matches(verb, [*TRAINING, *VERBS], n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'lightning-cells --help'"
        raise InputError(f"there is no such verb: {hint}")
    module = verb_module(verb)

    def run(rest: list[str]) -> int:
        parser = VerbParser(
            prog=f"lightning-cells {verb}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(parser)
        parser.add_argument(
            "--output_dir", help=f"folder for all that is written (default: ${HOME_VARIABLE}, else outputs)"
        )
        chosen, others = parser.parse_known_args(rest)
        if others and not getattr(module, "PASSES_ON", False):
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        chosen.passed_on = others
        if chosen.output_dir:
            os.environ[HOME_VARIABLE] = os.path.abspath(chosen.output_dir)
        return module.run(chosen) or 0

    return run


def _train(verb: str, rest: list[str]) -> int:
    """Runs a training verb; what can be told without torch and Lightning does not wait for them."""
    if {"-h", "--help"} & set(rest):
        from lightning_cells.cli.training_help import short_help

        print(short_help(verb))
        return 0
    from lightning_cells.cli.parsing import check_configurations

    check_configurations(rest)
    training = import_module("lightning_cells.cli.training")
    return training.run(verb, ["--help" if word == "--help-all" else word for word in rest])


def _overview() -> str:
    lines = [
        "usage: lightning-cells VERB [options]",
        "",
        "Segment and track cells in microscopy videos.",
        "",
        *(f"  {verb:<15}{summary}" for verb, summary in {**TRAINING, **VERBS}.items()),
        "",
        "Each verb explains itself: lightning-cells VERB --help. Start with: lightning-cells demo",
        "What there is to name: lightning-cells list. Completion in a shell: lightning-cells --completion bash",
    ]
    return "\n".join(lines)
