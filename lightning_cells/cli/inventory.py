"""What there is to name on a command line: what comes with the package, and what this machine has."""

import ast
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_cells.data.public_sets import DATASETS
from lightning_cells.errors import one_line
from lightning_cells.paths import data_dir, output_dir, shipped

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_MEASURES = ("SEG", "Dice", "F")  # the first that a run has is shown


class Item(NamedTuple):
    """One line of a list.

    Attributes:
        name: as it is given on a command line.
        says: what it is.
        more: further facts, for programs.
    """

    name: str
    says: str
    more: Mapping[str, Any] = {}


def methods(most: int) -> list[Item]:
    """The methods: each has presets in a folder of its name."""
    found = []
    package = Path(__file__).resolve().parents[1] / "methods"
    for folder in sorted(shipped("conf/method").iterdir()):
        source = package / f"{folder.name}.py"
        if folder.is_dir() and source.is_file():
            says = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
            found.append(Item(folder.name, says.partition("\n")[0].rstrip(".")))
    return found


def presets(most: int) -> list[Item]:
    """Configurations of methods and machines, for ``-c``."""
    return _files("conf/method") + _files("conf/trainer")


def data(most: int) -> list[Item]:
    """Data sets: public ones, and folders of videos under the data folder."""
    here = data_dir()
    folders = {path.name: path for path in sorted(here.iterdir()) if path.is_dir()} if here.is_dir() else {}
    found = []
    for name, known in DATASETS.items():
        folder = folders.pop(name, None)
        size = "" if known.size is None else f" ({known.size / 2**20:.0f} MiB)"
        state = _contents(folder) if folder else f"not here{size}: lightning-cells download {name}"
        facts = {"folder": folder and str(folder), "bytes": known.size, "micrometres": known.pixel}
        found.append(Item(name, "; ".join(filter(None, (state, known.title, known.micrometres))), facts))
    others = ((name, folder) for name, folder in folders.items() if _videos(folder) or (folder / "images").is_dir())
    return found + [Item(name, _contents(folder), {"folder": str(folder)}) for name, folder in others]


def models(most: int) -> list[Item]:
    """Models for ``track --model`` and ``fit --init``: those of the package, and of the registry."""
    package = Path(__file__).resolve().parents[1] / "pretrained"
    found = [Item(path.stem, _title(path.with_suffix(".md"))) for path in sorted(package.glob("*.ckpt"))]
    if client := _store():
        for model in client.search_registered_models():
            for version in client.search_model_versions(f"name='{model.name}'"):
                says = f"registered {_day(version.creation_timestamp)}, of run {version.run_id}"
                found.append(Item(f"models:/{model.name}/{version.version}", says))
    return found


def sweeps(most: int) -> list[Item]:
    """Files for ``sweep``."""
    return _files("sweeps")


def tables(most: int) -> list[Item]:
    """Tables for ``reproduce``."""
    return [Item(Path(item.name).stem, item.says) for item in _files("conf/reproduce")]


def runs(most: int) -> list[Item]:
    """The newest runs of the project's store: best measure, when, and where their weights are."""
    client = _store()
    if client is None:
        return []
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    newest = client.search_runs(places, order_by=["attributes.start_time DESC"], max_results=most)
    return [_run(client, run) for run in newest]


SECTIONS: Mapping[str, Callable[[int], list[Item]]] = {
    "methods": methods,
    "presets": presets,
    "data": data,
    "models": models,
    "sweeps": sweeps,
    "tables": tables,
    "runs": runs,
}
"""Each list by its name; the argument is how many runs are wanted."""


def purpose(path: Path) -> str:
    """The comment that a file begins with, up to its first full stop."""
    words = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words.append(line.removeprefix("#").strip())
    return re.split(r"(?<!\bal)\. ", " ".join(words))[0].rstrip(".")


def _files(folder: str) -> list[Item]:
    root = shipped(folder)
    return [Item(f"{folder}/{path.relative_to(root)}", purpose(path)) for path in sorted(root.rglob("*.yaml"))]


def _title(card: Path) -> str:
    first = card.read_text(encoding="utf-8").partition("\n")[0] if card.is_file() else ""
    return first.lstrip("# ").partition(": ")[2]


def _videos(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.isdecimal()]


def _contents(folder: Path) -> str:
    videos = _videos(folder)
    if not videos:
        return f"still images: {sum(1 for _ in (folder / 'images').glob('*'))}"
    frames = sum(1 for video in videos for _ in video.glob("t*.tif"))
    return f"{len(videos)} video{'s' * (len(videos) > 1)}, {frames} frames"


def _store() -> "MlflowClient | None":
    """The project's store; None if there is none yet, which this does not make."""
    from lightning_cells.loggers.store import default_uri, open_store, tracking_uri

    uri = tracking_uri()
    return None if uri == default_uri() and not (output_dir() / "mlflow.db").is_file() else open_store(uri)


def _run(client: "MlflowClient", run: "Run") -> Item:
    values, tags, run_id = run.data.metrics, run.data.tags, run.info.run_id
    stage = "test" if any(name.startswith("test/") for name in values) else "val"
    measure = next((f"{stage}/{name}" for name in _MEASURES if f"{stage}/{name}" in values), None)
    best = None
    if measure is not None:
        points = client.get_metric_history(run_id, measure) if stage == "val" else []
        best = max([values[measure], *(point.value for point in points)])
    checkpoint = output_dir() / "checkpoints" / run_id / "best.ckpt"
    shown = f"{measure} {best:.3f}" if best is not None else run.info.status.lower()
    what = " ".join(filter(None, (tags.get("method"), tags.get("data.root"))))
    where = str(checkpoint) if checkpoint.is_file() else None
    says = f"{run_id}  {_day(run.info.start_time)}  {shown:<14}  {one_line(what)}"
    more = {"id": run_id, "measure": measure, "best": best, "status": run.info.status, "checkpoint": where}
    return Item(one_line(run.info.run_name or ""), says, more)


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M}"
