"""The file of a sweep: what varies, what is better, who proposes, and how many trials there are."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from lightning_cells.errors import InputError
from lightning_cells.experiments.processes import words
from lightning_cells.experiments.tuning.space import AnySpace, Chosen
from lightning_cells.paths import shipped
from lightning_cells.yaml_file import Strict, checked, or_else, read_yaml

Direction = Annotated[Literal["maximize", "minimize"], or_else("'{value}' is no direction: write maximize or minimize")]
_Mapping = Annotated[dict[str, Any], BeforeValidator(lambda tree: {} if tree is None else tree)]


class ByClass(Strict):
    """An object by its class and arguments, such as a sampler; in YAML also the class alone."""

    class_path: str
    init_args: Annotated[_Mapping, or_else("is no mapping: write {{seed: 1}}")] = Field(default={})


_ByClass = Annotated[ByClass, BeforeValidator(lambda tree: {"class_path": tree} if isinstance(tree, str) else tree)]


class StudyFile(Strict):
    """What a sweep does.

    Attributes:
        study: name of the study, in Optuna's storage and in MLflow.
        configs: configuration files that all trials share.
        settings: options of the command line that all trials share.
        checkpoint: the trained method of which clusterings are compared. A file without this key compares trainings.
        objectives: measures and whether more or less of them is better. The first decides which epoch of a training
            counts.
        sampler: proposes trials.
        pruner: ends hopeless ones; None lets all run to their end.
        trials: how many the study is to have.
        retries: how often a trial that crashed is run again.
        cache_gigabytes: most room for embeddings on disk.
        space: what varies.
    """

    study: Annotated[  # it becomes a folder
        str, Field(pattern=r"^\w[\w .+-]{0,99}$"), or_else("'{value}' is no name: write a word such as ulstm_loss")
    ]
    configs: Annotated[tuple[str, ...], or_else("is no list of files: write [conf/method/ulstm/tiny.yaml]")] = ()
    settings: Annotated[_Mapping, or_else("is no mapping: write {{trainer.max_epochs: 4}}")] = Field(
        default={}, alias="set"
    )
    checkpoint: Path | None = None
    objectives: Annotated[
        dict[str, Direction],
        Field(min_length=1),
        or_else("is no measure with a direction: write {{val/SEG: maximize}}"),
    ] = Field(alias="objective")
    sampler: _ByClass = ByClass(class_path="optuna.samplers.TPESampler")
    pruner: _ByClass | None = None
    trials: Annotated[int, Field(ge=1, strict=True), or_else("{value}: must be a whole number, at least 1")] = 30
    retries: Annotated[int, Field(ge=0, strict=True), or_else("{value}: must be a whole number, at least 0")] = 1
    cache_gigabytes: Annotated[float, Field(gt=0, strict=True), or_else("{value}: must be a number above 0")] = 20.0
    space: AnySpace
    _path: Path = PrivateAttr(Path())

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def clustering(self) -> bool:
        """Whether each trial clusters what a trained method embeds, instead of training."""
        return "checkpoint" in self.model_fields_set

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a sweep's file.

        Raises:
            InputError: if it is missing, no YAML, or says something that cannot be meant; the message names each key.
        """
        tree = read_yaml(path, "a sweep in YAML, as under sweeps/")
        if not isinstance(tree, dict):
            raise InputError(f"{path}: is no sweep: write 'study:', 'objective:', 'space:', ... in YAML")
        made: Self = checked(cls, tree, str(path))
        made._path = path
        return made

    @model_validator(mode="after")
    def _prunable(self) -> Self:
        if self.pruner is not None and len(self.objectives) > 1:
            number = len(self.objectives)
            raise ValueError(f"pruner: Optuna prunes by one objective, not {number}: leave out the pruner")
        return self

    def adjusted(self, trials: int | None, checkpoint: Path | None, settings: Iterable[str]) -> Self:
        """The same with what was given on the command line.

        Args:
            trials: ``--trials``.
            checkpoint: ``--checkpoint``.
            settings: ``OPTION=VALUE`` of each further option.

        Raises:
            InputError: if that does not fit.
        """
        if trials is not None and trials < 1:
            raise InputError(f"--trials {trials}: must be a whole number, at least 1")
        if checkpoint is not None and not self.clustering:
            raise InputError(f"--checkpoint: {self.path} trains: a checkpoint is for a sweep with the key 'checkpoint'")
        checkpoint = checkpoint or self.checkpoint
        if self.clustering and checkpoint is None:
            raise InputError(
                f"{self.path}: needs a trained method: give --checkpoint outputs/checkpoints/RUN/best.ckpt"
            )
        if checkpoint is not None and not checkpoint.is_file():
            raise InputError(f"no checkpoint '{checkpoint}': runs keep theirs under outputs/checkpoints/<run id>")
        own = self.settings | {option: value for option, _, value in (one.partition("=") for one in settings)}
        for option in self.space.options:
            if option in own:
                raise InputError(f"{self.path}: '{option}' is both set and varied: leave out one of them")
        found = tuple(config if Path(config).exists() else str(shipped(config)) for config in self.configs)
        changes = {"trials": trials or self.trials, "settings": own, "configs": found}
        return self.model_copy(update=changes | ({"checkpoint": checkpoint} if self.clustering else {}))

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
