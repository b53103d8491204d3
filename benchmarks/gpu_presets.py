"""Methods and data of the files in `conf/`, built by plain Python: a bare machine lacks the command line's parser."""

from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from lightning_cells.data.augment import Augmentation
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.methods.base import CellMethod

CONF = Path(__file__).parents[1] / "conf"


def settings(*files: str, **more: Any) -> dict[str, Any]:
    """What some files say together; what comes later wins.

    Args:
        files: below ``conf/``, without their suffix.
        more: further settings, in the files' own form.
    """
    trees = [yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")) for name in files]
    return reduce(_over, [*trees, more], {})


def method_of(said: dict[str, Any]) -> CellMethod:
    """The method that settings describe."""
    return _built(said["model"])


def data_of(said: dict[str, Any], root: Path | str) -> SequenceDataModule:
    """The data module that settings describe, with another folder."""
    options = {name: _built(value) for name, value in said["data"].items() if name not in ("augmentation", "root")}
    return SequenceDataModule(str(root), augmentation=_built(said["data"]["augmentation"], Augmentation), **options)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _over(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **both}


def _built(value: Any, kind: Any = None) -> Any:
    """A value of a file: an object where the file or the argument's type names a class."""
    if isinstance(value, list):
        return tuple(map(_built, value))
    if not isinstance(value, dict):
        return value
    if "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        kind, value = getattr(import_module(module), name), value.get("init_args", {})
    hints = get_type_hints(kind.__init__)
    return kind(**{name: _built(part, hints.get(name)) for name, part in value.items()})
