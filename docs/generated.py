"""Pages of the reference that are written from the code: the commands, and the configurations that come with it."""

import contextlib
import io
import os
from pathlib import Path

from lightning_cells.cli import TRAINING, VERBS, main
from lightning_cells.cli.inventory import purpose


def write(folder: Path, root: Path) -> None:
    """Writes ``commands.md`` and ``configurations.md``.

    Args:
        folder: where to.
        root: the project's root, with `conf` and `sweeps`.
    """
    _refresh(folder / "commands.md", _commands())
    _refresh(folder / "configurations.md", _configurations(root))


def copy_notebooks(source: Path, target: Path) -> None:
    """Puts the notebooks, with what they printed, where Sphinx finds them."""
    target.mkdir(exist_ok=True)
    for path in source.glob("*.ipynb"):
        _refresh(target / path.name, path.read_text(encoding="utf-8"))


def _commands() -> str:
    lines = [
        "# Commands",
        "",
        "`lightning-cells VERB` and `python -m lightning_cells VERB` are the same. The exit status is 0, or 2 for a",
        "mistake of the user, which is told in one line.",
        "",
    ]
    os.environ["COLUMNS"] = "110"
    for verb, summary in {**TRAINING, **VERBS}.items():
        lines += [f"## {verb}", "", f"{summary[0].upper()}{summary[1:]}.", "", "```text", _help(verb), "```", ""]
        if verb in TRAINING:
            lines += ["All options:", "", "```text", _help(verb, "--help-all"), "```", ""]
    return "\n".join(lines)


def _help(verb: str, option: str = "--help") -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = main([verb, option])
    if status:
        raise RuntimeError(f"{verb} {option} ended with {status}")
    return said.getvalue().rstrip().replace(str(Path.cwd()), ".").replace(str(Path.home()), "~")


def _configurations(root: Path) -> str:
    lines = [
        "# Configurations",
        "",
        "These come with the package and are found from anywhere: `-c conf/method/ulstm/tiny.yaml`.",
        "",
    ]
    for part, title in (
        ("conf/method", "Methods"),
        ("conf/data", "Data"),
        ("conf/trainer", "Machines"),
        ("conf/reproduce", "Tables of the papers"),
        ("sweeps", "Sweeps"),
    ):
        lines += [f"## {title}", "", "| file | for |", "|---|---|"]
        lines += [f"| `{path.relative_to(root)}` | {_cell(path)} |" for path in sorted((root / part).rglob("*.yaml"))]
        lines.append("")
    return "\n".join(lines)


def _cell(path: Path) -> str:
    return purpose(path).replace("|", "\\|")


def _refresh(path: Path, text: str) -> None:
    """Leaves an unchanged page alone, so that it is not read again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
