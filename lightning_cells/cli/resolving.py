"""The command line of a training, parsed but not run: to check options, and to write configurations."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import InputError, one_line, origin, without_passwords
from lightning_cells.loggers.models import trained_model


class _Ready(Exception):
    """The parsers are made."""


class Resolver(TrainingCLI):
    """Parses what `fit` would run with.

    Lightning's command line parses, builds and runs in its constructor; this one stops when it has its parsers.
    """

    def __init__(self) -> None:
        self._made = False
        with suppress(_Ready):
            super().__init__([])
        self._made = True

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, except in the constructor."""
        if not self._made:
            raise _Ready
        super().parse_arguments(parser, args)

    def resolve(self, words: list[str]) -> Any:
        """Returns the configuration of ``fit`` with these words.

        Raises:
            InputError: for a mistake in them.
        """
        self.parse_arguments(self.parser, ["fit", *words])
        return self.config.fit

    def text(self, words: list[str]) -> str:
        """The configuration as a file for ``fit -c``, without passwords."""
        config = self.resolve(words).clone()
        config.pop("resume", None)  # is no setting: other verbs do not have it
        return without_passwords(self._parser("fit").dump(config, skip_none=False))

    def describe(self, words: Sequence[str], verb: str) -> dict[str, Any]:
        """The configuration as plain values, and under ``contents`` the fingerprint of the data that a verb uses.

        A model that a training begins with is there by its name and the digest of its file.

        Raises:
            InputError: for a mistake in the words, and data or a model that are missing or broken.
        """
        config = yaml.safe_load(self.text([*words]))
        if config["init"] is not None:
            with trained_model(config["init"]) as path, path.open("rb") as file:
                config["init"] = [config["init"], hashlib.file_digest(file, "blake2b").hexdigest()]
        return {**config, "contents": self.data([*words], verb).fingerprint}

    def build(self, words: list[str]) -> Any:
        """Returns method and data of the configuration, the data set up for training.

        Raises:
            InputError: for values that do not go together, and data that are missing or broken.
        """
        parser = self._parser("fit")
        config = self.resolve(words).clone()
        config.trainer.logger = False  # no store is needed for this
        try:
            built = parser.instantiate_classes(config)
            built.data.setup("fit")
            built.model.check(built.data, "fit")
        except ValueError as error:
            raise InputError(one_line(origin(error))) from error
        return built

    def data(self, words: list[str], stage: str) -> SequenceDataModule:
        """Returns the data of the configuration, set up for a stage, without the method.

        Raises:
            InputError: for data that are missing or broken.
        """
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(SequenceDataModule, "data")
        built = parser.instantiate_classes(Namespace(data=self.resolve(words).data)).data
        built.setup(stage)
        return built
