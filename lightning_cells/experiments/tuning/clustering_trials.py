"""Sweeps over clusterings: trials that cluster, link and score what a trained network embeds.

The embeddings of the validation videos are kept on disk (`embeddings`), so that the network runs once. A worker's
processes take trial after trial: ``python -m lightning_cells.experiments.tuning.clustering_trials DESCRIPTOR``.
"""

import hashlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cells.data.atomic import writing
from lightning_cells.data.clips import Chunk
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import Sequence
from lightning_cells.errors import InputError, first_line, origin
from lightning_cells.experiments.processes import ParentLink, words
from lightning_cells.experiments.tuning.embeddings import (
    FORMAT,
    EmbeddingCache,
    HalvedRSHN,
    StoredEmbeddings,
    StudyMistake,
    Writer,
)
from lightning_cells.experiments.tuning.study_file import StudyFile, digest
from lightning_cells.experiments.tuning.work import Work, lasting_processes
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.hdbscan import HDBSCAN  # noqa: F401 - so that it can be chosen by its name
from lightning_cells.instances.link_options import LinkOptions
from lightning_cells.instances.tiling import Tiling
from lightning_cells.methods import CellMethod
from lightning_cells.methods.loading import PREPARATION, checkpoint_settings, misfit, read_checkpoint, weights_of
from lightning_cells.methods.rshn import RSHN
from lightning_cells.paths import cache_dir, output_dir

Report = Callable[[dict[str, float], int], bool]
_MODULE = "lightning_cells.experiments.tuning.clustering_trials"
_VARIED = ("model.decoder", "model.tiling", "model.linking", "model.window")  # the rest is the network's
_NETWORK = ("features", "levels", "embedding", "stacks", "temporal", "tile_batch")
_TRAINER = ("accelerator", "precision", "limit_val_batches")


class Stopped(Exception):
    """The worker ended the trial."""


class Parts(NamedTuple):
    """What is behind the network, and how the network is used."""

    window: int
    tiling: Tiling
    decoder: EmbeddingDecoder
    linking: LinkOptions


class Clusterer:
    """Scores clusterings of what a trained method embeds.

    Args:
        checkpoint: the trained method.
        config: the resolved configuration: its ``model``, ``data`` and ``trainer`` count.
        limit: most bytes of embeddings on disk.

    Raises:
        InputError: if checkpoint, configuration and data do not fit each other.
    """

    def __init__(self, checkpoint: Path, config: dict[str, Any], limit: int) -> None:
        self._checkpoint = checkpoint
        self._digest = digest(checkpoint)
        self._config = config
        self._trainer = {key: config["trainer"][key] for key in _TRAINER if config["trainer"].get(key) is not None}
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(SequenceDataModule, "data", instantiate=True)
        self._data = parser.instantiate_classes(parser.parse_object({"data": config["data"]})).data
        self._data.setup("validate")
        self._cache = EmbeddingCache(cache_dir() / "embeddings", limit)
        self._method: RSHN | None = None
        self._known: dict[tuple[int, int, int], list[StoredEmbeddings]] = {}
        self._parser = jsonargparse.ArgumentParser(exit_on_error=False)
        self._parser.add_argument("--model.window", type=int)
        self._parser.add_argument("--model.tiling", type=Tiling)
        self._parser.add_argument("--model.decoder", type=EmbeddingDecoder)
        self._parser.add_argument("--model.linking", type=LinkOptions)
        given = config["model"]["init_args"]
        self._base = self._parser.parse_object({"model": {name: given[name] for name in Parts._fields}})

    def parts(self, words: list[str]) -> Parts:
        """Builds what a trial varies.

        Args:
            words: options as on the command line.

        Raises:
            InputError: for values that do not go together.
        """
        try:
            chosen = self._parser.parse_args(words, namespace=self._base.clone())
            return Parts(**vars(self._parser.instantiate_classes(chosen).model))
        except (jsonargparse.ArgumentError, ValueError) as error:
            raise InputError(" ".join(str(origin(error)).split())) from error

    def score(self, words: list[str], report: Report) -> dict[str, float]:
        """Measures of one clustering, named as ``validate`` logs them.

        Args:
            words: what the trial varies, as on the command line.
            report: told the measures after each video and its number; returns whether to stop.

        Raises:
            InputError: for values that do not go together.
            Stopped: if it is to stop.
        """
        parts = self.parts(words)
        method = HalvedRSHN.make(self._stored(parts.window, parts.tiling), **parts._asdict())
        trainer = self._run(method, [_EachVideo(report)])
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _stored(self, window: int, tiling: Tiling) -> list[StoredEmbeddings]:
        """Embeddings of all videos, which are computed where they are not there."""
        view = (window, tiling.tile, tiling.overlap)
        known = self._known.get(view)
        if known is None or not all(stored.folder.exists() for stored in known):
            videos = self._data.sequences["val"]
            known = [self._video(number, window, tiling) for number in range(len(videos))]
            self._known[view] = known
            self._cache.make_room({stored.folder for stored in known})
        for stored in known:
            self._cache.use(stored)
        return known

    def _video(self, number: int, window: int, tiling: Tiling) -> StoredEmbeddings:
        sequence = self._data.sequences["val"][number]

        def compute(writer: Writer) -> None:
            self._data.sequences["val"], everything = [sequence], self._data.sequences["val"]
            try:
                trained = self._trained()
                options = {"window": window, "tiling": tiling, "tile_batch": trained.hparams["tile_batch"]}
                method = HalvedRSHN.make([writer], **options)
                method.network = trained.network
                self._run(method, [])
            finally:
                self._data.sequences["val"] = everything

        return self._cache.entry(self._key(sequence, window, tiling), compute)

    def _key(self, sequence: Sequence, window: int, tiling: Tiling) -> str:
        model, data = self._config["model"]["init_args"], self._config["data"]
        parts = [
            [FORMAT, torch.__version__, self._digest, {name: model.get(name) for name in _NETWORK}],
            [sequence.fingerprint, sequence.numbers, [data[name] for name in PREPARATION], data["chunk"]],
            [window, tiling.tile, tiling.overlap, self._trainer, torch.cuda.is_available()],
        ]
        return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=16).hexdigest()

    def _trained(self) -> RSHN:
        if self._method is None:
            self._method = load_trained(self._checkpoint, self._config["model"])
        return self._method

    def _run(self, method: RSHN, callbacks: list[Callback]) -> Trainer:
        trainer = Trainer(
            **self._trainer,
            devices=1,
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.validate(method, datamodule=self._data, verbose=False)
        return trainer


class _EachVideo(Callback):
    """Reports the pooled measures after each video but the last."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._videos = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(batch, Chunk)
        assert isinstance(pl_module, CellMethod)
        number = len(trainer.datamodule.sequences["val"])  # type: ignore[attr-defined]
        if batch.last and self._videos < number - 1:
            measures = pl_module.val_measures.compute()
            self._videos += 1
            if self._report({f"val/{name}": float(value) for name, value in measures.items()}, self._videos - 1):
                raise Stopped


def load_trained(checkpoint: Path, model: dict[str, Any]) -> RSHN:
    """Builds the method of a configuration with the weights of a checkpoint, for evaluation.

    Raises:
        InputError: if they do not fit each other.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(RSHN, "model")
    method = parser.instantiate_classes(parser.parse_object({"model": model})).model
    try:
        method.load_state_dict(weights_of(read_checkpoint(checkpoint), checkpoint))
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint}: does not fit the method of the sweep ({misfit(error)}): leave the network as it was trained"
        ) from error
    return method.eval()


def clusterings(plan: StudyFile, config: dict[str, Any], logs: Path) -> Work:
    """Returns the work of trials that cluster.

    Args:
        plan: the sweep.
        config: the configuration that all trials share.
        logs: folder for what the processes print.
    """
    shared = {
        "checkpoint": str(plan.checkpoint),
        "config": {part: config[part] for part in ("model", "data", "trainer")},
        "limit": int(plan.cache_gigabytes * 1e9),
    }
    return lasting_processes(_MODULE, logs, lambda _, chosen: {**shared, "words": words(chosen)})


def with_checkpoint(plan: StudyFile) -> StudyFile:
    """Adds what the checkpoint remembers of its training to a sweep, after its configurations.

    Raises:
        InputError: if the checkpoint is of a method that embeds no pixels, or the space varies what is trained.
    """
    assert plan.checkpoint is not None
    remembered = checkpoint_settings(plan.checkpoint)
    method = remembered["model"]["class_path"].rpartition(".")[2]
    if method != RSHN.__name__:
        raise InputError(
            f"{plan.checkpoint}: is of {method}, which embeds no pixels: the sweep clusters embeddings, so give a "
            f"checkpoint of {RSHN.__name__}"
        )
    for path in plan.space.options:
        if not any(path == part or path.startswith(f"{part}.") for part in _VARIED):
            raise InputError(
                f"{plan.path}: space.{path}: is part of the trained network or its data: with a checkpoint vary "
                f"{', '.join(_VARIED)}"
            )
    file = output_dir() / "sweeps" / plan.study / "checkpoint.yaml"
    with writing(file) as temporary:
        temporary.write_text(yaml.safe_dump(remembered))
    return plan.model_copy(update={"configs": (*plan.configs, str(file))})


def main() -> None:
    """Scores clusterings until the worker has no more."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    link = ParentLink(int(sys.argv[1]))
    clusterer: Clusterer | None = None

    def report(measures: dict[str, float], step: int) -> bool:
        link.send({"step": step, "measures": measures})
        return link.receive()["stop"]

    while True:
        task = link.receive()
        try:
            if clusterer is None:
                clusterer = Clusterer(Path(task["checkpoint"]), task["config"], task["limit"])
            link.send({"ending": "finished", "logged": clusterer.score(task["words"], report)})
        except Stopped:
            link.send({"ending": "stopped"})
        except InputError as error:
            spoils = clusterer is None or isinstance(error, StudyMistake)
            link.send({"ending": "mistake", "error": str(error), "spoils": spoils})
        except Exception as error:
            traceback.print_exc()
            link.send({"ending": "crash", "error": f"{type(error).__name__}: {first_line(error)}"})


if __name__ == "__main__":
    main()
