"""The file of a sweep."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.mistakes import allow
from lightning_cells.experiments.tuning.space import Chosen, Space, read_space, words
from lightning_cells.paths import shipped
from lightning_cells.yaml_file import read_yaml

Direction = Literal["maximize", "minimize"]
_KEYS = (
    "study",
    "configs",
    "set",
    "checkpoint",
    "objective",
    "sampler",
    "pruner",
    "trials",
    "retries",
    "cache_gigabytes",
    "space",
)
_NAME = re.compile(r"\w[\w .+-]{0,99}")


@dataclass(frozen=True)
class Part:
    """An object by its class and arguments, such as a sampler."""

    class_path: str
    init_args: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a sweep does.

    Attributes:
        path: its file.
        study: name of the study, in Optuna's storage and in MLflow.
        configs: configuration files that all trials share.
        settings: options of the command line that all trials share.
        clustering: whether each trial clusters what a trained method embeds, instead of training.
        checkpoint: that method.
        objectives: measures and whether more or less of them is better. The first decides which epoch of a training
            counts.
        sampler: proposes trials.
        pruner: ends hopeless ones; None lets all run to their end.
        trials: how many the study is to have.
        retries: how often a trial that crashed is run again.
        cache_gigabytes: most room for embeddings on disk.
        space: what varies.
    """

    path: Path
    study: str
    configs: tuple[str, ...]
    settings: Chosen
    clustering: bool
    checkpoint: Path | None
    objectives: dict[str, Direction]
    sampler: Part
    pruner: Part | None
    trials: int
    retries: int
    cache_gigabytes: float
    space: Space

    def words(self, chosen: Chosen) -> list[str]:
        """The command line of a trial, without its verb."""
        files = [word for config in self.configs for word in ("-c", config)]
        monitor: Chosen = {}
        if not self.clustering:
            name, direction = next(iter(self.objectives.items()))
            monitor = {"checkpoint.monitor": name, "checkpoint.mode": direction[:3]}
        return files + words(monitor | self.settings | chosen)

    def identity(self) -> dict[str, Any]:
        """What may not change while a study goes on, for JSON."""
        here = ("data.root",)  # data may lie elsewhere on each machine
        identity = {
            "space": self.space.describe(),
            "objective": self.objectives,
            "configs": [digest(Path(config)) for config in self.configs],
            "set": {key: value for key, value in self.settings.items() if key not in here},
            "checkpoint": None if self.checkpoint is None else digest(self.checkpoint),
        }
        return json.loads(json.dumps(identity))  # as a storage gives it back


def digest(path: Path) -> str:
    """Digest of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def read_plan(path: Path) -> Plan:
    """Reads a sweep's file.

    Raises:
        InputError: if it is missing, no YAML, or says something that cannot be meant; the message names the key.
    """
    tree = _load(path)
    allow(tree, _KEYS, str(path))
    for key in ("study", "objective", "space"):
        if key not in tree:
            raise InputError(f"{path}: has no '{key}': add it, as in the files under sweeps/")
    study = tree["study"]
    if not isinstance(study, str) or not _NAME.fullmatch(study):  # it becomes a folder
        raise InputError(f"{path}: study: '{study}' is no name: write a word such as ulstm_loss")
    configs = tree.get("configs", [])
    if not isinstance(configs, list) or not all(isinstance(config, str) for config in configs):
        raise InputError(f"{path}: configs: is no list of files: write [conf/method/ulstm/tiny.yaml]")
    settings = tree.get("set") or {}
    if not isinstance(settings, dict):
        raise InputError(f"{path}: set: is no mapping: write {{trainer.max_epochs: 4}}")
    objectives = _objectives(tree["objective"], f"{path}: objective")
    pruner = None if tree.get("pruner") is None else _part(tree["pruner"], f"{path}: pruner")
    if pruner is not None and len(objectives) > 1:
        raise InputError(f"{path}: pruner: Optuna prunes by one objective, not {len(objectives)}: leave out the pruner")
    return Plan(
        path=path,
        study=study,
        configs=tuple(configs),
        settings={str(key): value for key, value in settings.items()},
        clustering="checkpoint" in tree,
        checkpoint=None if tree.get("checkpoint") is None else Path(tree["checkpoint"]),
        objectives=objectives,
        sampler=_part(tree.get("sampler", "optuna.samplers.TPESampler"), f"{path}: sampler"),
        pruner=pruner,
        trials=_count(tree.get("trials", 30), f"{path}: trials", 1),
        retries=_count(tree.get("retries", 1), f"{path}: retries", 0),
        cache_gigabytes=_amount(tree.get("cache_gigabytes", 20), f"{path}: cache_gigabytes"),
        space=read_space(tree["space"], f"{path}: space"),
    )


def adjusted(plan: Plan, trials: int | None, checkpoint: Path | None, settings: Iterable[str]) -> Plan:
    """A plan with what was given on the command line.

    Args:
        plan: as the file says.
        trials: ``--trials``.
        checkpoint: ``--checkpoint``.
        settings: ``OPTION=VALUE`` of each further option.

    Raises:
        InputError: if that does not fit.
    """
    if trials is not None:
        plan = replace(plan, trials=_count(trials, "--trials", 1))
    if checkpoint is not None:
        if not plan.clustering:
            raise InputError(f"--checkpoint: {plan.path} trains: a checkpoint is for a sweep with the key 'checkpoint'")
        plan = replace(plan, checkpoint=checkpoint)
    if plan.clustering and plan.checkpoint is None:
        raise InputError(f"{plan.path}: needs a trained method: give --checkpoint outputs/checkpoints/RUN/best.ckpt")
    if plan.checkpoint is not None and not plan.checkpoint.is_file():
        raise InputError(f"no checkpoint '{plan.checkpoint}': runs keep theirs under outputs/checkpoints/<run id>")
    own = dict(plan.settings)
    for setting in settings:
        path, _, value = setting.partition("=")
        own[path] = value
    for path in own:
        if path in (parameter.path for parameter in plan.space.parameters):
            raise InputError(f"{plan.path}: '{path}' is both set and varied: leave out one of them")
    found = tuple(config if Path(config).exists() else str(shipped(config)) for config in plan.configs)
    return replace(plan, settings=own, configs=found)


def _load(path: Path) -> dict[str, Any]:
    tree = read_yaml(path, "a sweep in YAML, as under sweeps/")
    if not isinstance(tree, dict):
        raise InputError(f"{path}: is no sweep: write 'study:', 'objective:', 'space:', ... in YAML")
    return tree


def _objectives(tree: Any, place: str) -> dict[str, Direction]:
    if not isinstance(tree, dict) or not tree:
        raise InputError(f"{place}: is no measure with a direction: write {{val/SEG: maximize}}")
    for name, direction in tree.items():
        if direction not in get_args(Direction):
            raise InputError(f"{place}.{name}: '{direction}' is no direction: write maximize or minimize")
    return {str(name): cast(Direction, direction) for name, direction in tree.items()}


def _part(tree: Any, place: str) -> Part:
    if isinstance(tree, str):
        tree = {"class_path": tree}
    if not isinstance(tree, dict) or not isinstance(tree.get("class_path"), str):
        raise InputError(f"{place}: has no class_path: write {{class_path: optuna.samplers.TPESampler}}")
    allow(tree, ("class_path", "init_args"), place)
    arguments = tree.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise InputError(f"{place}.init_args: is no mapping: write {{seed: 1}}")
    return Part(tree["class_path"], arguments)


def _count(value: Any, place: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{place} {value}: must be a whole number, at least {least}")
    return value


def _amount(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InputError(f"{place} {value}: must be a number above 0")
    return float(value)
