"""The file of a paper's table, ``conf/reproduce/NAME.yaml``."""

from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from lightning_cells.data.simulate import Kind
from lightning_cells.errors import InputError, nearest
from lightning_cells.paths import find_data, output_dir, shipped
from lightning_cells.yaml_file import Strict, checked, mistake, mistakes, or_else, read_yaml

ScaleName = Literal["tiny", "small", "paper"]
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
MEAN = "mean"
"""Column of the mean over all others."""
FOLDER = "conf/reproduce"

_Whole = Annotated[int, Field(strict=True)]
_Number = Annotated[float, Field(strict=True)]
_Size = Annotated[tuple[_Whole, _Whole], or_else("{value} is no size: write [height, width]")]


class Simulation(Strict):
    """Simulated videos with the structure of a real data set; see `data.simulate.simulate`.

    Attributes:
        kind: what they show.
        sequences: number of videos.
        frames: per video.
        size: (H, W) in pixels.
        seed: of all that is random.
        cells: at the start; None for a number that goes with the area.
        depth: planes of each frame; None for 2-D videos.
        voxel: (z, y, x) of a voxel of a volume.
    """

    kind: Kind
    sequences: _Whole
    frames: _Whole
    size: _Size
    seed: _Whole
    cells: _Whole | None = None
    depth: _Whole | None = None
    voxel: tuple[_Number, _Number, _Number] | None = None

    @property
    def name(self) -> str:
        """Folder name: the same for the same videos."""
        height, width = self.size
        cells = "" if self.cells is None else f"-{self.cells}cells"
        deep = "" if self.depth is None else f"{self.depth}x"
        voxel = "" if self.voxel is None else "-voxel" + "x".join(f"{side:g}" for side in self.voxel)
        return f"{self.kind}-{self.sequences}x{self.frames}-{deep}{height}x{width}{voxel}{cells}-seed{self.seed}"


class Test(Strict):
    """Other data that the trained method is measured on.

    Attributes:
        root: real data set; None for simulated data alone.
        surrogate: simulated one; with `root`, for where the real one is not at hand.
        surrogate_set: options in place of those of `set` with the simulated one, where both are named.
        private: why the real data cannot be downloaded, and what to do; empty if they can.
        set: options.
        unseen: whether each video is tracked as anyone's, by `Tracker`, which estimates the size of its cells. Without
            it, frames are prepared by `set`, with a scale that somebody chose for these data.
    """

    root: str | None = None
    surrogate: Simulation | None = None
    surrogate_set: dict[str, Any] = Field(default={})
    private: str = ""
    set: dict[str, Any] = Field(default={})
    unseen: bool = False

    @property
    def path(self) -> str:
        """Where the data are, or will be."""
        simulated = self.simulated
        return str(self.root if simulated is None else output_dir() / "reproduce" / "data" / simulated.name)

    @property
    def simulated(self) -> Simulation | None:
        """What is simulated; None where the real data are taken."""
        return None if self._real else self.surrogate

    @property
    def stands_in(self) -> bool:
        """Whether simulated data stand in for real ones that are not at hand."""
        return self.root is not None and self.simulated is not None

    @property
    def options(self) -> dict[str, Any]:
        """Options of what is taken."""
        return self.surrogate_set if self.stands_in else self.set

    @property
    def there(self) -> bool:
        """Whether real data are there; simulated ones can be made."""
        return self.surrogate is not None or self._real

    @cached_property
    def _real(self) -> bool:
        try:
            return self.root is not None and bool(find_data(self.root))
        except InputError:
            return False

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.root is None and self.surrogate is None:
            raise ValueError("needs a 'root' or a 'surrogate'")
        return self


class Data(Test):
    """Data that each row is trained on: a column of the table, unless `tests` names others.

    Attributes:
        configs: configuration files.
        tests: other data that are measured, by the name of their column; without any, what is held out.
    """

    configs: list[str] = Field(default=[])
    tests: dict[str, Test] = Field(default={})


class Scale(Strict):
    """How a table is run.

    Attributes:
        data: by name.
        configs: configuration files of all rows.
        set: options of all rows.
        seeds: each row is trained with each.
        folds: parts of the data that are held out in turn; 0 for the split of the configurations.
        weights: checkpoint that is measured; None takes the last one with folds, and else the best.
        minutes: of CPU that the table takes; None if it was not measured.
    """

    data: dict[str, Data]
    configs: list[str] = Field(default=[])
    set: dict[str, Any] = Field(default={})
    seeds: list[_Whole] = Field(default=[1])
    folds: _Whole = 0
    weights: Literal["best", "last"] | None = None
    minutes: _Number | None = None


class Part(Strict):
    """What a row has at one scale alone.

    Attributes:
        configs: configuration files.
        set: options.
        by_data: further options on some of the data, by their name.
    """

    configs: list[str] = Field(default=[])
    set: dict[str, Any] = Field(default={})
    by_data: dict[str, dict[str, Any]] = Field(default={})


class Row(Strict):
    """A row of the table.

    Attributes:
        set: options.
        tiny: further ones at scale ``tiny``.
        small: further ones at scale ``small``.
        paper: further ones at scale ``paper``.
        weights_of: the row whose trained weights are measured with other options, instead of a training.
        classical: whether a threshold and a watershed are tuned on the training videos, instead of a training;
            ``forest`` trains a classifier of pixels on their annotated frames, in Ilastik's place.
        folds: other folds than those of the scale.
        seeds: other seeds than those of the scale.
        values: what the paper has: column -> measure -> value.
    """

    set: dict[str, Any] = Field(default={})
    tiny: Part = Part()
    small: Part = Part()
    paper: Part = Part()
    weights_of: str | None = None
    classical: bool | Literal["forest"] = False
    folds: _Whole | None = None
    seeds: list[_Whole] | None = None
    values: dict[str, dict[str, _Number]] = Field(default={})

    def part(self, scale: ScaleName) -> Part:
        """What it has at a scale alone."""
        part: Part = getattr(self, scale)
        return part


class Claim(Strict):
    """That one row beats another, or that it makes no difference which.

    Attributes:
        better: row.
        worse: row.
        measure: by which.
        paper: how the paper puts it.
        within: the two differ by less than this; None says that one beats the other.
    """

    better: str
    worse: str
    measure: str
    paper: str
    within: _Number | None = None


class Table(Strict):
    """A table of a paper.

    Attributes:
        title: what it compares.
        source: paper and table.
        measured: what the paper's values were measured on.
        measures: columns, as methods log them in tests.
        tolerance: difference from the paper's value up to which that counts as reached.
        rows: by name, in their order.
        tiny: surrogates and small networks.
        small: hours on two cores: small networks on real data where they are at hand, else on surrogates.
        paper: real data and the paper's networks.
        claims: what the paper concludes.
        remark: what is to be known about ours.
        published: what others reached by the paper's own table: column -> measure -> who -> value.
    """

    title: str
    source: str
    measured: str
    measures: Annotated[list[str], or_else("'{value}' is no list: write [{value}]")]
    tolerance: _Number
    rows: dict[str, Row]
    tiny: Scale
    small: Scale | None = None
    paper: Scale | None = None
    claims: list[Claim] = Field(default=[])
    remark: str = ""
    published: dict[str, dict[str, dict[str, _Number]]] = Field(default={})

    def scale(self, name: ScaleName) -> Scale:
        """How it is run at a scale.

        Raises:
            InputError: if it is not.
        """
        scale: Scale | None = getattr(self, name)
        if scale is None:
            raise InputError(f"'{self.title}' has no scale {name}: give --scale {' or '.join(self.scales)}")
        return scale

    @property
    def scales(self) -> list[ScaleName]:
        """At which scales it can be run."""
        return [name for name in SCALES if getattr(self, name) is not None]

    def columns(self, scale: ScaleName) -> list[str]:
        """Names of the data that are measured, with a word of those that stand in for others."""
        return [
            shown(name, test)
            for column, data in self.scale(scale).data.items()
            for name, test in (data.tests or {column: data}).items()
        ]

    def parts(self, scale: ScaleName) -> list[Test]:
        """All data that are trained on or measured."""
        return [part for data in self.scale(scale).data.values() for part in (data, *data.tests.values())]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wrong = [*self._wrong_rows(), *self._wrong_claims()]
        if wrong:
            raise mistakes(wrong)
        return self

    def _wrong_rows(self) -> Iterator[InitErrorDetails]:
        columns = [*(name for scale in self.scales for name in self._named(scale)), MEAN]
        yield from _unknown("column", self.published, columns, "published")
        for column, measures in self.published.items():
            yield from _unknown("measure", measures, self.measures, "published", column)
        for name, row in self.rows.items():
            place = ("rows", name)
            if row.weights_of is not None:
                yield from _unknown("row", [row.weights_of], self.rows, *place, "weights_of")
                other = self.rows.get(row.weights_of, Row())
                if any(part.unseen for scale in self.scales for part in self.parts(scale)):
                    yield mistake(
                        (*place, "weights_of"), "'unseen' tests know the options of the training alone: train the row"
                    )
                if other.weights_of or other.classical:
                    yield mistake((*place, "weights_of"), f"row '{row.weights_of}' is not trained: name one that is")
            for scale in self.scales:
                yield from _unknown("data", row.part(scale).by_data, self.scale(scale).data, *place, scale, "by_data")
            yield from _unknown("column", row.values, columns, *place, "values")
            for column, values in row.values.items():
                yield from _unknown("measure", values, self.measures, *place, "values", column)

    def _named(self, scale: ScaleName) -> list[str]:
        return [name for column, data in self.scale(scale).data.items() for name in data.tests or [column]]

    def _wrong_claims(self) -> Iterator[InitErrorDetails]:
        for number, claim in enumerate(self.claims):
            yield from _unknown("row", [claim.better], self.rows, "claims", number, "better")
            yield from _unknown("row", [claim.worse], self.rows, "claims", number, "worse")
            yield from _unknown("measure", [claim.measure], self.measures, "claims", number, "measure")


def shown(name: str, test: Test) -> str:
    """How a column is called: simulated data never by the name of real ones alone."""
    return f"{name} (simulated)" if test.stands_in else name


def _unknown(
    what: str, names: Collection[str], known: Collection[str], *place: int | str
) -> Iterator[InitErrorDetails]:
    for name in names:
        if name not in known:
            yield mistake(place, f"there is no {what} '{name}': {nearest(name, known)}")


def names() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in shipped(FOLDER).glob("*.yaml"))


def read_table(name: str) -> Table:
    """Reads the table `name`, or the file of a table of one's own.

    Raises:
        InputError: if there is none, or its file says something that cannot be meant; the message names each key.
    """
    if not name.endswith(".yaml") and name not in names():
        raise InputError(f"there is no table '{name}': {nearest(name, names())}")
    path = Path(name) if name.endswith(".yaml") else shipped(FOLDER) / f"{name}.yaml"
    tree = read_yaml(path, f"a table in YAML, as in {FOLDER}")
    if not isinstance(tree, dict):
        raise InputError(f"{path}: is no table: write 'title:', 'rows:', ... in YAML, as in {FOLDER}")
    table: Table = checked(Table, tree, str(path))
    return table
