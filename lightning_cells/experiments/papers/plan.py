"""What has to be run for a table: a job for each row, data set, fold and seed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_cells.data.simulate import simulate
from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.table import Data, Scale, ScaleName, Simulation, Table, Test
from lightning_cells.experiments.runner import Weights, digest
from lightning_cells.experiments.tuning.study_file import words
from lightning_cells.paths import data_dir, find_data, output_dir

Kind = Literal["train", "measure", "classical"]
Describe = Callable[[tuple[str, ...], Literal["fit", "test"]], dict[str, Any]]
"""Options of a verb -> its whole configuration, and under ``contents`` the digest of the data in use."""
_OWN = ("--seed_everything=", "--data.fold=")
_OTHER_DATA = {"data.train": None, "data.val": None, "data.folds": 0}  # what was trained on plays no part there
_ALL = {"data.train": None, "data.val": None, "data.test": None}  # folds are of all there is


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a row.

    Attributes:
        row: name of the row.
        data: name of the data that it is trained on.
        fold: index of the fold that is held out.
        folds: their number; 0 for the data's own split.
        seed: of the training.
        kind: a training with its tests; tests of the weights of another job; or a classical pipeline.
        words: options of ``fit``.
        tests: options of ``test`` for each column.
        weights: which checkpoint is measured.
        source: the job whose weights are measured.
    """

    row: str
    data: str
    fold: int
    folds: int
    seed: int
    kind: Kind
    words: tuple[str, ...]
    tests: dict[str, tuple[str, ...]]
    weights: Weights
    source: "Job | None" = None

    @property
    def name(self) -> str:
        """Tells it from the other jobs of its table."""
        fold = f", fold {self.fold} of {self.folds}" if self.folds else ""
        return f"{self.row}, {self.data}{fold}, seed {self.seed}"

    @property
    def unit(self) -> tuple[str, int, int]:
        """What jobs of different rows have in common when they are compared."""
        return self.data, self.fold, self.seed


def plan(table: Table, scale: ScaleName, overrides: dict[str, Any]) -> list[Job]:
    """Returns the jobs of a table, those whose weights others take first.

    Args:
        table: the table.
        scale: how it is run.
        overrides: further options, which win.
    """
    jobs: dict[tuple[str, tuple[str, int, int]], Job] = {}
    for name in sorted(table.rows, key=lambda name: table.rows[name].weights_of is not None):
        row, setting = table.rows[name], table.scale(scale)
        folds = setting.folds if row.folds is None else row.folds
        seeds = row.seeds or setting.seeds
        if row.classical:  # nothing in it is random
            seeds = seeds[:1]
        for column in setting.data:
            for fold in range(max(1, folds)):
                for seed in seeds:
                    job = _job(table, name, scale, column, (fold, folds, seed), overrides)
                    if row.weights_of is not None:
                        job = _of_weights(job, jobs[row.weights_of, job.unit])
                    jobs[name, job.unit] = job
    order = list(table.rows)
    return sorted(jobs.values(), key=lambda job: (job.source is not None, order.index(job.row)))


def _job(
    table: Table, name: str, scale: ScaleName, column: str, which: tuple[int, int, int], overrides: dict[str, Any]
) -> Job:
    row, setting = table.rows[name], table.scale(scale)
    data, (fold, folds, seed) = setting.data[column], which
    special = {**row.part(scale).set, **row.part(scale).by_data.get(column, {})}
    shared = {"data.root": _root(data), **({**_ALL, "data.folds": folds} if folds else {})}
    common = {**shared, **setting.set, **data.set, **row.set, **special, **overrides}
    configs = (*setting.configs, *row.part(scale).configs, *data.configs)
    files = [word for config in configs for word in ("-c", config)]
    own = {"data.fold": fold, "seed_everything": seed} if folds else {"seed_everything": seed}
    tests = {}
    measured: dict[str, Test | None] = {**data.tests} or {column: None}
    for test_name, test in measured.items():
        other = {} if test is None else {**_OTHER_DATA, "data.root": _root(test), **test.set}
        tests[test_name] = (*files, *words({**common, **other, **own}))
    return Job(
        row=name,
        data=column,
        fold=fold,
        folds=folds,
        seed=seed,
        kind="classical" if row.classical else "train",
        words=(*files, *words({**common, **own})),
        tests=tests,
        weights=setting.weights or ("last" if folds else "best"),
    )


def _of_weights(job: Job, source: Job) -> Job:
    return replace(job, kind="measure", words=source.words, source=source)


def _root(data: Data | Test) -> str:
    """Where the data are, or will be."""
    if data.surrogate is not None:
        return str(output_dir() / "reproduce" / "data" / data.surrogate.name)
    return str(data.root)


def identity(job: Job, describe: Describe) -> str:
    """Digest of what makes the result of a job: configuration, contents of the data, fold and seed."""

    def described(options: tuple[str, ...], verb: Literal["fit", "test"]) -> str:
        shared = tuple(word for word in options if not word.startswith(_OWN))  # so that few are parsed
        config = describe(shared, verb)
        if job.kind == "classical":
            config = {"data": config["data"], "contents": config["contents"]}
        return digest(config)

    return digest(
        {
            "kind": job.kind,
            "training": described(job.words, "fit"),
            "tests": {name: described(options, "test") for name, options in job.tests.items()},
            "weights": job.weights,
            "seed": job.seed,
            "folds": f"{job.fold} of {job.folds}",
        }
    )


def make_surrogates(tables: Iterable[Table], scale: ScaleName) -> None:
    """Simulates what is not there yet."""
    for simulation in _simulations(tables, scale):
        folder = output_dir() / "reproduce" / "data" / simulation.name
        if not folder.exists():
            simulate(
                folder,
                simulation.kind,
                simulation.sequences,
                simulation.frames,
                simulation.size,
                simulation.seed,
                simulation.cells,
            )


def _simulations(tables: Iterable[Table], scale: ScaleName) -> list[Simulation]:
    parts = (part for table in tables for part in _parts(table.scale(scale)))
    return list(dict.fromkeys(part.surrogate for part in parts if part.surrogate is not None))


def missing(table: Table, scale: ScaleName) -> list[str]:
    """How to get the real data of a table that are not there, a line for each."""
    said = []
    for part in _parts(table.scale(scale)):
        if part.root is None or _there(part.root):
            continue
        private = part.private if isinstance(part, Data) else ""
        said.append(private or f"lightning-cells download {part.root}")
    return list(dict.fromkeys(said))


def needed(table: Table, scale: ScaleName) -> list[str]:
    """Names of the real data of a table, and of the kinds of simulated ones."""
    parts = _parts(table.scale(scale))
    named = [part.root if part.surrogate is None else f"simulated {part.surrogate.kind}" for part in parts]
    return list(dict.fromkeys(map(str, named)))


def _parts(setting: Scale) -> list[Data | Test]:
    parts: list[Data | Test] = []
    for data in setting.data.values():
        parts += [data, *data.tests.values()]
    return parts


def _there(root: str) -> bool:
    try:
        find_data(root)
    except InputError:
        return False
    return True


def check_data(name: str, table: Table, scale: ScaleName, overrides: dict[str, Any]) -> None:
    """Raises InputError if real data are missing; the message says how to get them."""
    said = [] if "data.root" in overrides else missing(table, scale)
    if said:
        raise InputError(
            f"table {name} at scale {scale}: not all of its data are under {data_dir()}: {'; '.join(said)}; or take "
            "--scale tiny"
        )
