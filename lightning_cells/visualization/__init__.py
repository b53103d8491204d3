"""Pictures and pages of cells, tracks and runs."""
