"""One LightningModule per paper, over a short base class."""

from lightning_cells.methods.adversarial import Adversarial
from lightning_cells.methods.base import CellMethod, Tracked
from lightning_cells.methods.brightfield import BrightField
from lightning_cells.methods.gruunet import GRUUNet
from lightning_cells.methods.rshn import RSHN
from lightning_cells.methods.ulstm import ULSTM

__all__ = ["RSHN", "ULSTM", "Adversarial", "BrightField", "CellMethod", "GRUUNet", "Tracked"]
