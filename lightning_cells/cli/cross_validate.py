"""Cross-validate a method: train and test it once for each fold of the data.

Takes all options of 'lightning-cells fit'. What data.train selects, or all there is, is split into data.folds parts
(default: 5); each is held out once, and the others are trained on. data.val and data.test play no part. Folds that
are finished in the same store, with the same options and data, are not trained again.

  lightning-cells cross-validate -c conf/method/brightfield/tiny.yaml -c conf/data/wbc-nucleus-cytoplasm.yaml
"""

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PASSES_ON = True
"""What this verb does not know is for ``fit``."""
_FOLDS = 5
_OWN = ("--data.val=null", "--data.test=null")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--weights",
        choices=("last", "best"),
        default="last",
        help="checkpoint that is measured; the best one of each training was chosen by the held-out fold itself "
        "(default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the verb."""
    from lightning_cells.experiments.cross_validation import cross_validate
    from lightning_cells.loggers.mlflow import EXPERIMENT
    from lightning_cells.loggers.store import open_store, tracking_uri

    words = [*args.passed_on, *_OWN]
    config = resolved(words)
    if not config["data"]["folds"]:
        words.append(f"--data.folds={_FOLDS}")
        config["data"]["folds"] = _FOLDS
    fingerprint = _fingerprint(config["data"])
    method = config["model"]["class_path"].rpartition(".")[2]
    title = f"{method} {Path(config['data']['root']).name} {config['data']['folds']} folds"
    client = open_store(tracking_uri())
    table = cross_validate(client, EXPERIMENT, words, config, fingerprint, title, args.weights)
    print(f"\n{table}")


def resolved(words: Sequence[str]) -> dict[str, Any]:
    """The whole configuration that ``fit`` would run with.

    Raises:
        InputError: for a mistake in the options.
    """
    import yaml

    from lightning_cells.cli import training

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        training.run("fit", [*words, "--print_config"])
    return yaml.safe_load(said.getvalue())


def _fingerprint(settings: dict[str, Any]) -> str:
    """Opens the data, so that a mistake in them is told at once, and returns the digest of their contents."""
    import jsonargparse

    from lightning_cells.data.datamodule import SequenceDataModule

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SequenceDataModule, "data")
    data = parser.instantiate_classes(parser.parse_object({"data": settings})).data
    data.setup("fit")
    return data.fingerprint
