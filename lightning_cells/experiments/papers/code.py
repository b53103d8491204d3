"""Which code a result was made by."""

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]
# What the numbers of a training and of its test depend on; the command line's other verbs, sweeps, pages and reports
# may change without any row being run again.
_SOURCES = (
    "data/**/*.py",
    "networks/**/*.py",
    "losses/**/*.py",
    "instances/**/*.py",
    "metrics/**/*.py",
    "methods/**/*.py",
    "callbacks/checkpoint.py",
    "experiments/tuned_baseline.py",
    "cli/training.py",
    "cli/row.py",
)


@cache
def code_version() -> str:
    """Digest of the code that a row's numbers depend on, committed or not; 12 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(path for pattern in _SOURCES for path in _PACKAGE.glob(pattern)):
        digest.update(f"{path.relative_to(_PACKAGE)}\n{meaning(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def meaning(source: str) -> str:
    """What a module does, in a form that comments, docstrings and line breaks do not change."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)
