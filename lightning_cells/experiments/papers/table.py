"""The file of a paper's table, ``conf/reproduce/NAME.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_cells.data.simulate import Kind
from lightning_cells.errors import InputError, nearest
from lightning_cells.experiments.papers.typed import typed
from lightning_cells.paths import shipped
from lightning_cells.yaml_file import read_yaml

ScaleName = Literal["tiny", "paper"]
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
MEAN = "mean"
"""Column of the mean over all others."""
FOLDER = "conf/reproduce"


@dataclass(frozen=True)
class Simulation:
    """Simulated videos with the structure of a real data set; see `data.simulate.simulate`.

    Attributes:
        kind: what they show.
        sequences: number of videos.
        frames: per video.
        size: (H, W) in pixels.
        seed: of all that is random.
        cells: at the start; None for a number that goes with the area.
    """

    kind: Kind
    sequences: int
    frames: int
    size: tuple[int, int]
    seed: int
    cells: int | None = None

    @property
    def name(self) -> str:
        """Folder name: the same for the same videos."""
        height, width = self.size
        cells = "" if self.cells is None else f"-{self.cells}cells"
        return f"{self.kind}-{self.sequences}x{self.frames}-{height}x{width}{cells}-seed{self.seed}"


@dataclass(frozen=True)
class Test:
    """Other data that the trained method is measured on.

    Attributes:
        root: real data set; None if `surrogate` is given.
        surrogate: simulated one.
        set: options.
    """

    root: str | None = None
    surrogate: Simulation | None = None
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Data that each row is trained on: a column of the table, unless `tests` names others.

    Attributes:
        root: real data set; None if `surrogate` is given.
        surrogate: simulated one.
        private: why the real data cannot be downloaded, and what to do; empty if they can.
        configs: configuration files.
        set: options.
        tests: other data that are measured, by the name of their column; without any, what is held out.
    """

    root: str | None = None
    surrogate: Simulation | None = None
    private: str = ""
    configs: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)
    tests: dict[str, Test] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How a table is run.

    Attributes:
        data: by the name of its column.
        configs: configuration files of all rows, before those of a row and of the data.
        set: options of all rows.
        seeds: one training with each.
        folds: of a cross-validation; 0 takes the data's own split.
        weights: which checkpoint is measured; None takes ``last`` with folds, which the best one was chosen by, else
            ``best``.
        minutes: estimated CPU time; None if it was not measured.
    """

    data: dict[str, Data]
    configs: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1,)
    folds: int = 0
    weights: Literal["best", "last"] | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Part:
    """What a row has at one scale alone.

    Attributes:
        configs: configuration files.
        set: options.
        by_data: further options on some of the data, by their name.
    """

    configs: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)
    by_data: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        set: options.
        tiny: further ones at scale ``tiny``.
        paper: further ones at scale ``paper``.
        weights_of: the row whose trained weights are measured with other options, instead of a training.
        classical: whether a threshold and a watershed are tuned on the training videos, instead of a training.
        folds: other folds than those of the scale.
        seeds: other seeds than those of the scale.
        values: what the paper has: column -> measure -> value.
    """

    set: dict[str, Any] = field(default_factory=dict)
    tiny: Part = Part()
    paper: Part = Part()
    weights_of: str | None = None
    classical: bool = False
    folds: int | None = None
    seeds: tuple[int, ...] | None = None
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def part(self, scale: ScaleName) -> Part:
        """What it has at a scale alone."""
        return self.tiny if scale == "tiny" else self.paper


@dataclass(frozen=True)
class Claim:
    """That one row beats another.

    Attributes:
        better: row.
        worse: row.
        measure: by which.
        paper: how the paper puts it.
    """

    better: str
    worse: str
    measure: str
    paper: str


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        title: what it compares.
        source: paper and table.
        measured: what the paper's values were measured on.
        measures: columns, as methods log them in tests.
        tolerance: difference from the paper's value up to which that counts as reached.
        rows: by name, in their order.
        tiny: surrogates and small networks.
        paper: real data and the paper's networks.
        claims: what the paper concludes.
        remark: what is to be known about ours.
    """

    title: str
    source: str
    measured: str
    measures: tuple[str, ...]
    tolerance: float
    rows: dict[str, Row]
    tiny: Scale
    paper: Scale
    claims: tuple[Claim, ...] = ()
    remark: str = ""

    def scale(self, name: ScaleName) -> Scale:
        """How it is run at a scale."""
        return self.tiny if name == "tiny" else self.paper

    def columns(self, scale: ScaleName) -> list[str]:
        """Names of the data that are measured."""
        return [name for column, data in self.scale(scale).data.items() for name in data.tests or [column]]


def names() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in shipped(FOLDER).glob("*.yaml"))


def read_table(name: str) -> Table:
    """Reads the table `name`, or the file of a table of one's own.

    Raises:
        InputError: if there is none, or its file says something that cannot be meant; the message names the key.
    """
    if name.endswith(".yaml"):
        return parse_table(Path(name))
    if name not in names():
        raise InputError(f"there is no table '{name}': {nearest(name, names())}")
    return parse_table(shipped(FOLDER) / f"{name}.yaml")


def parse_table(path: Path) -> Table:
    """Reads the file of a table; raises as `read_table`."""
    table: Table = typed(Table, read_yaml(path, f"a table in YAML, as in {FOLDER}"), str(path))
    _check(table, path)
    return table


def _check(table: Table, path: Path) -> None:
    """Raises InputError for what does not go together."""
    for name, row in table.rows.items():
        other = row.weights_of
        if other is not None:
            _known(other, table.rows, f"{path}.rows.{name}.weights_of", "row")
            if table.rows[other].weights_of or table.rows[other].classical:
                raise InputError(f"{path}.rows.{name}.weights_of: row '{other}' is not trained: name one that is")
        for scale in SCALES:
            for special in row.part(scale).by_data:
                _known(special, table.scale(scale).data, f"{path}.rows.{name}.{scale}.by_data", "data")
        columns = [*table.columns("tiny"), *table.columns("paper"), MEAN]
        for column, values in row.values.items():
            _known(column, columns, f"{path}.rows.{name}.values", "column")
            for measure in values:
                _known(measure, table.measures, f"{path}.rows.{name}.values.{column}", "measure")
    for number, claim in enumerate(table.claims):
        place = f"{path}.claims[{number}]"
        _known(claim.better, table.rows, f"{place}.better", "row")
        _known(claim.worse, table.rows, f"{place}.worse", "row")
        _known(claim.measure, table.measures, f"{place}.measure", "measure")
    for scale in SCALES:
        for column, data in table.scale(scale).data.items():
            parts: dict[str, Data | Test] = {column: data, **data.tests}
            for name, part in parts.items():
                if (part.root is None) == (part.surrogate is None):
                    raise InputError(f"{path}.{scale}.data.{column}: {name} needs either a 'root' or a 'surrogate'")


def _known(name: str, among: Any, place: str, what: str) -> None:
    if name not in among:
        raise InputError(f"{place}: there is no {what} '{name}': {nearest(name, among)}")
