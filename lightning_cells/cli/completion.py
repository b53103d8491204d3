"""Completion of verbs and options in bash and zsh, as shtab writes it."""

import argparse
import sys
from pathlib import Path

from lightning_cells.cli import TRAINING, VERBS, verb_module
from lightning_cells.cli.training_help import options

_SHELLS = ("bash", "zsh")
_INTO = "lightning-cells --completion bash > ~/.local/share/bash-completion/completions/lightning-cells"


def script(args: list[str]) -> int:
    """Prints the script for a shell.

    Args:
        args: the shell's name.

    Returns:
        The exit status.
    """
    if len(args) != 1 or args[0] not in _SHELLS:
        print(f"lightning-cells: error: --completion: give one of {', '.join(_SHELLS)}: {_INTO}", file=sys.stderr)
        return 2
    import shtab

    print(shtab.complete(parser(), args[0]))
    return 0


def parser() -> argparse.ArgumentParser:
    """All verbs with their options; of trainings those that are used most, since the others take torch to list."""
    whole = argparse.ArgumentParser("lightning-cells", allow_abbrev=False)
    verbs = whole.add_subparsers(metavar="VERB")
    for verb, says in TRAINING.items():
        one = verbs.add_parser(verb, help=says, allow_abbrev=False)
        for option in options(verb):
            _completed(one.add_argument(option), option == "-c" or option.endswith("_path"))
    for verb, says in VERBS.items():
        one = verbs.add_parser(verb, help=says, allow_abbrev=False)
        verb_module(verb).add_arguments(one)
        for action in one._actions:
            _completed(action, action.type is Path)
    return whole


def _completed(action: argparse.Action, is_file: bool) -> None:
    if is_file:
        action.complete = _FILE  # type: ignore[attr-defined]  # by shtab


_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files"}
