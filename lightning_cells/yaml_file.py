"""Files in YAML that users write."""

from pathlib import Path
from typing import Any

import yaml

from lightning_cells.errors import InputError


def read_yaml(path: Path, wanted: str) -> Any:
    """Returns what a file says, as plain values.

    Args:
        path: the file.
        wanted: what the user is to give if it cannot be read at all.

    Raises:
        InputError: if it is no text, or no valid YAML; the message names the line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: is no valid YAML ({error.problem}): correct it") from None
    except (OSError, ValueError, yaml.YAMLError):
        raise InputError(f"{path}: is not a readable text file: give {wanted}") from None
