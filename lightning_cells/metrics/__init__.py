"""Cells and tracks against truth -> numbers."""
