"""Segment and track cells in microscopy videos.

>>> import lightning_cells as lc
>>> result = lc.load("best.ckpt").track("my_frames")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cells.api import Result, Tracker, evaluate, load, simulate

__version__ = "0.1.0"
__all__ = ["Result", "Tracker", "__version__", "evaluate", "load", "simulate"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for: ``lightning-cells --help`` does not wait for torch."""
    if name in __all__:
        return getattr(import_module("lightning_cells.api"), name)
    raise AttributeError(f"module 'lightning_cells' has no attribute '{name}'")
