"""The earlier place of the served model, which models registered earlier name."""

from lightning_cells.loggers.served_model import _load_pyfunc as _load_pyfunc
