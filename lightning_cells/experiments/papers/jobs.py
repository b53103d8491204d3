"""What has to be run for a table: a job for each row, data set, fold and seed, the data for them, and what they are."""

import ast
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lightning_cells.data.simulate import simulate
from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.table import ScaleName, Table, Test, shown
from lightning_cells.experiments.processes import words
from lightning_cells.experiments.runner import Job, digest
from lightning_cells.paths import data_dir

IDENTITY, CODE = "reproduce.identity", "reproduce.code"
"""Tags of a job's run: what makes its result, and by which code."""
Describe = Callable[[tuple[str, ...], Literal["fit", "test"]], dict[str, Any]]
"""Options of a verb -> its whole configuration, and under ``contents`` the digest of the data in use."""
_OWN = ("--seed_everything=", "--data.fold=")
_OTHER_DATA = {"data.train": None, "data.val": None, "data.folds": 0}  # what was trained on plays no part there
_ALL = {"data.train": None, "data.val": None, "data.test": None}  # folds are of all there is
_PACKAGE = Path(__file__).resolve().parents[2]
# What the numbers of a training and of its test depend on; the command line's other verbs, sweeps, pages and reports
# may change without any row being run again.
_SOURCES = (
    "data/**/*.py",
    "networks/**/*.py",
    "losses/**/*.py",
    "instances/**/*.py",
    "metrics/**/*.py",
    "methods/**/*.py",
    "callbacks/checkpoint.py",
    "tracking.py",
    "experiments/baselines.py",
    "experiments/scores.py",
    "cli/training.py",
    "cli/job.py",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class RowJob(Job):
    """One run of a row.

    Attributes:
        row: name of the row.
        data: name of the data that it is trained on.
        fold: index of the fold that is held out.
        folds: their number; 0 for the data's own split.
        seed: of the training.
    """

    row: str
    data: str
    fold: int = 0
    folds: int = 0
    seed: int = 1

    @property
    def unit(self) -> tuple[str, int, int]:
        """What jobs of different rows have in common when they are compared."""
        return self.data, self.fold, self.seed


def jobs_of(table: Table, scale: ScaleName, overrides: dict[str, Any]) -> list[RowJob]:
    """Returns the jobs of a table, those whose weights others take first; each tests its columns.

    Args:
        table: the table.
        scale: how it is run.
        overrides: further options, which win.
    """
    jobs: dict[tuple[str, tuple[str, int, int]], RowJob] = {}
    for name in sorted(table.rows, key=lambda name: table.rows[name].weights_of is not None):
        row, setting = table.rows[name], table.scale(scale)
        folds = setting.folds if row.folds is None else row.folds
        seeds = row.seeds or setting.seeds
        if row.classical is True:  # nothing in it is random
            seeds = seeds[:1]
        for column in setting.data:
            for fold in range(max(1, folds)):
                for seed in seeds:
                    job = _job(table, name, scale, column, (fold, folds, seed), overrides)
                    if row.weights_of is not None:
                        source = jobs[row.weights_of, job.unit]
                        job = replace(job, fit=source.fit, weights_of=source)
                    jobs[name, job.unit] = job
    order = list(table.rows)
    return sorted(jobs.values(), key=lambda job: (job.weights_of is not None, order.index(job.row)))


def _job(
    table: Table, name: str, scale: ScaleName, column: str, which: tuple[int, int, int], overrides: dict[str, Any]
) -> RowJob:
    row, setting = table.rows[name], table.scale(scale)
    data, (fold, folds, seed) = setting.data[column], which
    special = {**row.part(scale).set, **row.part(scale).by_data.get(column, {})}
    shared = {"data.root": data.path, **({**_ALL, "data.folds": folds} if folds else {})}
    common = {**shared, **setting.set, **data.options, **row.set, **special, **overrides}
    configs = (*setting.configs, *row.part(scale).configs, *data.configs)
    files = [word for config in configs for word in ("-c", config)]
    own = {"data.fold": fold, "seed_everything": seed} if folds else {"seed_everything": seed}
    tests = {}
    measured: dict[str, Test] = {shown(name, test): test for name, test in data.tests.items()}
    for test_name, test in (measured or {shown(column, data): data}).items():
        other = {**_OTHER_DATA, "data.root": test.path, **test.options} if measured else {}
        tests[test_name] = (*files, *words({**common, **other, **own}))
    held_out = f", fold {fold} of {folds}" if folds else ""
    return RowJob(
        name=f"{name}, {column}{held_out}, seed {seed}",
        row=name,
        data=column,
        fold=fold,
        folds=folds,
        seed=seed,
        classical=row.classical,
        fit=(*files, *words({**common, **own})),
        tests=tests,
        unseen=frozenset(name for name, test in measured.items() if test.unseen),
        weights=setting.weights or ("last" if folds else "best"),
    )


def identified(name: str, jobs: Sequence[RowJob], describe: Describe) -> list[RowJob]:
    """The jobs of the table `name` with the tags by which their results are found again, for whichever table.

    Raises:
        InputError: naming the job, for one that cannot be run.
    """
    found: dict[Job | None, RowJob] = {}
    for job in jobs:
        try:
            tags = {IDENTITY: identity(job, describe), CODE: code_version()}
        except InputError as error:
            raise InputError(f"table {name}, {job.name}: {error}") from error
        found[job] = replace(job, tags=tags, weights_of=found.get(job.weights_of))
    return list(found.values())


def identity(job: RowJob, describe: Describe) -> str:
    """Digest of what makes the result of a job: configuration, contents of the data, fold and seed."""

    def described(options: tuple[str, ...], verb: Literal["fit", "test"]) -> str:
        shared = tuple(word for word in options if not word.startswith(_OWN))  # so that few are parsed
        config = describe(shared, verb)
        if job.classical:
            config = {"data": config["data"], "contents": config["contents"]}
        return digest(config)

    return digest(
        {
            "kind": "forest"
            if job.classical == "forest"
            else "classical"
            if job.classical
            else "train"
            if job.weights_of is None
            else "measure",
            "training": described(job.fit, "fit"),
            "tests": {name: described(options, "test") for name, options in job.tests.items()},
            "unseen": sorted(job.unseen),
            "weights": job.weights,
            "seed": job.seed,
            "folds": f"{job.fold} of {job.folds}",
        }
    )


@cache
def code_version() -> str:
    """Digest of the code that a row's numbers depend on, committed or not; 12 hexadecimal digits."""
    version = hashlib.blake2b(digest_size=6)
    for path in sorted(path for pattern in _SOURCES for path in _PACKAGE.glob(pattern)):
        version.update(f"{path.relative_to(_PACKAGE)}\n{meaning(path.read_text(encoding='utf-8'))}\n".encode())
    return version.hexdigest()


def meaning(source: str) -> str:
    """What a module does, in a form that comments, docstrings and line breaks do not change."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def make_surrogates(tables: Iterable[Table], scale: ScaleName) -> None:
    """Simulates what is not there yet."""
    for part in (part for table in tables for part in table.parts(scale)):
        if part.simulated is not None and not Path(part.path).exists():
            simulate(Path(part.path), **dict(part.simulated))


def missing(table: Table, scale: ScaleName) -> list[str]:
    """How to get the real data of a table that are not there, a line for each."""
    absent = [part for part in table.parts(scale) if not part.there]
    return list(dict.fromkeys(part.private or f"lightning-cells download {part.root}" for part in absent))


def needed(table: Table, scale: ScaleName) -> list[str]:
    """Names of the real data of a table, and of the kinds of simulated ones."""
    named = [part.root if part.simulated is None else f"simulated {part.simulated.kind}" for part in table.parts(scale)]
    return list(dict.fromkeys(map(str, named)))


def check_data(name: str, table: Table, scale: ScaleName, overrides: dict[str, Any]) -> None:
    """Raises InputError if real data are missing; the message says how to get them."""
    said = [] if "data.root" in overrides else missing(table, scale)
    if said:
        raise InputError(
            f"table {name} at scale {scale}: not all of its data are under {data_dir()}: {'; '.join(said)}; or take "
            "--scale tiny"
        )
