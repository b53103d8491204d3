"""Simulated videos: what moves and divides, its shapes, its optics, and three kinds of specimens."""
