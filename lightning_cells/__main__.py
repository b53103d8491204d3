"""``python -m lightning_cells`` is ``lightning-cells``."""

import sys

from lightning_cells.cli import main

if __name__ == "__main__":
    sys.exit(main())
