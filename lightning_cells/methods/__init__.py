"""One LightningModule per paper, over a short base class."""

from lightning_cells.methods.base import CellMethod, Tracked
from lightning_cells.methods.rshn import RSHN
from lightning_cells.methods.ulstm import ULSTM

__all__ = ["RSHN", "ULSTM", "CellMethod", "Tracked"]
