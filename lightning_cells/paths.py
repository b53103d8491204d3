"""Where things are: what a run writes, real data, and the configurations that ship with the package."""

import os
from pathlib import Path

from lightning_cells.errors import InputError

HOME_VARIABLE = "LIGHTNING_CELLS_HOME"
DATA_VARIABLE = "LIGHTNING_CELLS_DATA"
CACHE_VARIABLE = "LIGHTNING_CELLS_CACHE_GB"


def output_dir() -> Path:
    """Folder for everything a run writes: ``$LIGHTNING_CELLS_HOME``, or ``outputs`` in the working directory."""
    return Path(os.environ.get(HOME_VARIABLE) or "outputs").absolute()


def cache_dir() -> Path:
    """Folder of the decoded, normalised, memory-mapped videos."""
    return output_dir() / "cache"


def cache_limit() -> int:
    """Most bytes of the cache: ``$LIGHTNING_CELLS_CACHE_GB`` gigabytes, or 50.

    Raises:
        InputError: for what is no positive number.
    """
    given = os.environ.get(CACHE_VARIABLE) or "50"
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise InputError(f"{CACHE_VARIABLE}={given}: must be a number of gigabytes, such as 50")
    return int(gigabytes * 1e9)


def database_address(name: str) -> str:
    """Address of a sqlite file in the output folder.

    Raises:
        InputError: for a folder with a character that means something else in addresses.
    """
    folder = output_dir()
    if found := sorted(set("%?#") & set(str(folder))):
        raise InputError(
            f"--output_dir {folder}: has a '{found[0]}' in its name, with which no database can be opened: "
            "choose another"
        )
    return f"sqlite:///{folder / name}"


def data_dir() -> Path:
    """Folder of the real data sets: ``$LIGHTNING_CELLS_DATA``, or ``data`` in the working directory."""
    return Path(os.environ.get(DATA_VARIABLE) or "data").absolute()


def find_data(root: str | Path) -> Path:
    """Returns the folder of a data set.

    Args:
        root: a path, or the name of a folder under `data_dir`.

    Raises:
        InputError: if neither is a folder.
    """
    for candidate in (Path(root), data_dir() / root):
        if candidate.is_dir():
            return candidate.absolute()
    raise InputError(
        f"no data folder '{root}', neither here nor under {data_dir()}: give its path, set {DATA_VARIABLE}, "
        "or make one with 'lightning-cells simulate' or 'lightning-cells download'"
    )


def shipped(name: str | Path) -> Path:
    """Returns the path of a file that ships with the package, such as ``conf/method/ulstm/tiny.yaml``.

    In a checkout these lie beside the package, in an installed wheel inside it.

    Raises:
        InputError: if there is no such file.
    """
    package = Path(__file__).resolve().parent
    bases = (package, package.parent)
    for base in bases:
        if (base / name).exists():
            return base / name
    from difflib import get_close_matches  # only for those who made a mistake

    folders = [base / folder for base in bases for folder in ("conf", "sweeps")]
    known = [str(path.relative_to(folder.parent)) for folder in folders for path in folder.rglob("*.yaml")]
    near = get_close_matches(str(name), known, n=1, cutoff=0.7)
    hint = f": did you mean '{near[0]}'?" if near else ""
    raise InputError(f"no file '{name}', neither in the working directory nor shipped with lightning_cells{hint}")
