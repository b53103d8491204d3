"""Segment and track cells in microscopy videos."""

__version__ = "0.1.0"
