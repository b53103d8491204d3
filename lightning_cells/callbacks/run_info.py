"""Writes into a run what is needed to understand and to repeat it: configuration, code, packages, machine."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities.model_summary import ModelSummary
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_GIT_COMMIT

from lightning_cells.data.atomic import writing
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import without_passwords
from lightning_cells.loggers.mlflow import LOCAL_NAME, RunLogger
from lightning_cells.loggers.run_folder import remember_job

_NAME, _VERSION = (re.compile(rf"^{field}: *(\S+)", re.MULTILINE) for field in ("Name", "Version"))
_MOST_DIFF = 2_000_000  # characters of a difference that are kept


class GitState(NamedTuple):
    """The code that runs.

    Attributes:
        commit: its 40 hexadecimal digits.
        dirty: whether files under version control differ from the commit.
        diff: how they differ, as ``git apply`` takes it; empty if they do not.
    """

    commit: str
    dirty: bool
    diff: str


def git_state() -> GitState | None:
    """The state of the checkout that this package lies in; None outside of one, or without git."""

    def git(*args: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, timeout=20, check=True)
        return done.stdout.decode(errors="replace")

    try:
        commit = git("rev-parse", "HEAD").strip()
        diff = git("diff", "--no-color", "--no-ext-diff", "--binary", "HEAD", "--", ":/")
    except (OSError, subprocess.SubprocessError):
        return None
    kept = diff if len(diff) <= _MOST_DIFF else f"{diff[:_MOST_DIFF]}\n# cut: {len(diff)} characters in all\n"
    return GitState(commit, bool(diff), kept)


def packages() -> str:
    """Installed packages, one ``name==version`` per line, as ``pip install -r`` takes them."""
    abouts = (each.read_text("METADATA") or each.read_text("PKG-INFO") or "" for each in distributions())
    # these two fields alone: to parse all of each file takes as long as some steps of a training
    known = ((_NAME.search(about), _VERSION.search(about)) for about in abouts)
    versions = {f"{name[1]}=={version[1]}" for name, version in known if name and version}
    return "\n".join(sorted(versions, key=str.lower)) + "\n"


def machine() -> dict[str, str | int | list[str]]:
    """Python, operating system, processors, memory and GPUs of this machine."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "host": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": gpus,
        "cuda": torch.version.cuda or "none",
        "torch_threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


_TRAINER_PARAMETERS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "max_epochs",
    "max_steps",
    "max_time",
    "gradient_clip_val",
    "accumulate_grad_batches",
)
_OF_ONE_CALL = ("ckpt_path", "output_dir", "weights_only")  # not of the run that goes on
_CONTEXTS = {"fit": "training", "validate": "validation", "test": "testing"}


class RunRecord(SaveConfigCallback):
    """Writes the run's record before its first step.

    Artifacts: ``config.yaml``, resolved, as ``fit -c`` takes it; ``environment.txt``, the installed versions;
    ``machine.json``; ``model.txt``, a summary of the network; and ``git.diff``, if the code is not that of a commit.
    Parameters: the options of model and data, named as on the command line. Tags: method, paper, preset, data set with
    its split, fold, seed, and the git commit. Input: the data set, with its fingerprint as digest.

    Args:
        words: the command line, by which a job that is started again finds its run.

    Attributes:
        command: the command line, as a shell takes it.
        text: ``config.yaml``; empty before it is logged.
    """

    def __init__(self, *args: Any, words: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self._words = words
        self.command = without_passwords(" ".join(map(_quoted, ["lightning-cells", *words])))
        self.text = ""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once on rank zero, when the data are set up and before the first step."""
        logger = trainer.logger
        if not isinstance(logger, RunLogger) or stage == "predict":
            return
        client, run = logger.experiment, str(logger.run_id)
        settings = self.config.clone()
        settings.pop("resume", None)
        config = self.text = without_passwords(self.parser.dump(settings, skip_none=False, skip_validation=True))
        if stage == "fit":
            self._remember(logger, config)
        client.log_text(run, config, "config.yaml")
        client.log_text(run, packages(), "environment.txt")
        client.log_text(run, json.dumps(machine(), indent=1), "machine.json")
        client.log_text(run, f"{ModelSummary(pl_module, max_depth=3)}\n", "model.txt")
        tags = {**self._tags(trainer, pl_module), **_code(client, run)}
        if logger.continued:
            logger.folder.write(continued=logger.folder.read().get("continued", 0) + 1)  # type: ignore[union-attr]
            tags["continued"] = str(logger.folder.read()["continued"])  # type: ignore[union-attr]
        else:  # a run that goes on keeps what it began with
            client.log_batch(run, params=self._parameters())
        if logger.unnamed:  # MLflow's own random names depend on our seed: all runs would have the same
            logger.run_name = _name(tags["method"], stage, run)
            client.update_run(run, name=logger.run_name)
        client.log_batch(run, tags=[RunTag(key, value[:5000]) for key, value in tags.items()])
        if isinstance(trainer.datamodule, SequenceDataModule):  # type: ignore[attr-defined]
            client.log_inputs(run, [_dataset(trainer.datamodule, stage)])  # type: ignore[attr-defined]

    def _remember(self, logger: RunLogger, config: str) -> None:
        """Keeps on this machine what `fit` needs to go on with the run."""
        settings = {key: value for key, value in yaml.safe_load(config).items() if key not in _OF_ONE_CALL}
        with writing(logger.folder.config) as temporary:  # type: ignore[union-attr]
            temporary.write_text(yaml.safe_dump(settings, sort_keys=False))
        remember_job(self._words, str(logger.run_id))

    def _tags(self, trainer: Trainer, method: LightningModule) -> dict[str, str]:
        tags = {"method": type(method).__name__, "stage": str(trainer.state.fn.value)}  # type: ignore[union-attr]
        if paper := getattr(method, "paper", ""):
            tags["paper"] = paper
        if presets := [Path(path).stem for path in map(str, self.config.config or []) if "/method/" in path]:
            tags["preset"] = presets[-1]
        tags["seed"] = str(self.config.seed_everything)
        if self.config.get("init"):
            tags["init"] = self.config.init
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, SequenceDataModule):
            tags |= {f"data.{key}": value for key, value in data.describe().items()}
            if data.folds:
                tags["fold"] = f"{data.fold} of {data.folds}"
        return tags

    def _parameters(self) -> list[Param]:
        flat = _flatten(self.config.as_dict())
        return [Param(key, str(value)[:6000]) for key, value in flat.items() if _interesting(key)]


def _name(method: str, stage: str, run: str) -> str:
    """Short, and for each run another one: ``ulstm-3f2c``, and ``ulstm-test-90ab`` for a test."""
    return "-".join([method.lower(), *([] if stage == "fit" else [stage]), run.removeprefix(LOCAL_NAME)[:4]])


def _code(client: MlflowClient, run: str) -> dict[str, str]:
    """Tags of the code that runs; its difference from the commit becomes an artifact."""
    state = git_state()
    if state is None:
        return {}
    if state.dirty:
        client.log_text(run, state.diff, "git.diff")
    return {MLFLOW_GIT_COMMIT: state.commit, "git.dirty": str(state.dirty).lower()}


def _dataset(data: SequenceDataModule, stage: str) -> DatasetInput:
    described = data.describe()
    parts = {part: described[part] for part in data.sequences}
    sizes = {f"{part}_frames": sum(map(len, sequences)) for part, sequences in data.sequences.items()}
    entity = Dataset(
        name=described["root"],
        digest=described["fingerprint"],
        source_type="local",
        source=json.dumps({"uri": str(data.root)}),
        profile=json.dumps({**sizes, **parts})[:16_000],
    )
    return DatasetInput(entity, [InputTag(MLFLOW_DATASET_CONTEXT, _CONTEXTS.get(stage, stage))])


def _quoted(word: str) -> str:
    """A word as a shell takes it; lists, which have single quotes within, in double ones."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _interesting(key: str) -> bool:
    if key.startswith("trainer."):
        return key.removeprefix("trainer.") in _TRAINER_PARAMETERS
    return key.startswith(("model.", "data.")) or key == "seed_everything"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted keys, without the ``init_args`` that the command line leaves out, too."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".strip(".")
        if isinstance(value, dict):
            flat |= _flatten(value, name)
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat
