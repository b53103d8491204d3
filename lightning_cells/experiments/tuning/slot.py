"""What runs where: the work of a study's trials, and a place with its process and its trial."""

from collections.abc import Callable
from dataclasses import dataclass, field

from optuna import Trial

from lightning_cells.experiments.tuning.child import Child
from lightning_cells.experiments.tuning.link import Message
from lightning_cells.experiments.tuning.places import Place
from lightning_cells.experiments.tuning.study_file import Chosen


@dataclass(frozen=True)
class Work:
    """What the process of a trial does.

    Attributes:
        module: run by Python as that process.
        task: number of the trial, its values -> what the process is told.
        lasting: whether the process takes trial after trial; else it ends with each.
        logs: whether it writes to the run of the trial itself, which it then begins, too.
    """

    module: str
    task: Callable[[int, Chosen], Message]
    lasting: bool
    logs: bool


@dataclass
class Slot:
    """A place, the process there, and its trial."""

    place: Place
    number: int
    child: Child | None = None
    trial: Trial | None = None
    chosen: Chosen = field(default_factory=dict)
    run: str | None = None
    checkpoints: str | None = None
    stopped: bool = False
    reports: list[dict[str, float]] = field(default_factory=list)
