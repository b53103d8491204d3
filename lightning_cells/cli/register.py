"""Puts the best checkpoint of a run into MLflow's model registry, as the next version of a model.

RUN is the id or the name of a run, which the dashboard shows. NAME is a new model, or one that is there. The model
takes frames and gives labels and tracks; it holds the checkpoint and no code, so lightning-cells must be installed
where it is used.

lightning-cells register RUN nuclei
lightning-cells track my_frames --model models:/nuclei/1 --out my_RES
"""

import argparse
import os
import shlex
from pathlib import Path

from lightning_cells.trust import ALLOW_HELP, allow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("run", metavar="RUN", help="id or name of a run")
    parser.add_argument("name", metavar="NAME", help="name of the model: letters, digits, '_', '.' and '-'")
    parser.add_argument("--checkpoint", type=Path, metavar="F", help="another checkpoint of the run than its best")
    parser.add_argument("--allow", metavar="PACKAGES", help=ALLOW_HELP)


def run(args: argparse.Namespace) -> None:
    """Registers."""
    import logging

    from lightning_cells.errors import without_passwords
    from lightning_cells.loggers.registry import register
    from lightning_cells.loggers.store import tracking_uri

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    allow(args.allow)
    made = register(args.run, args.name, args.checkpoint)
    address = f"models:/{made.name}/{made.version}"
    store = f"MLFLOW_TRACKING_URI={shlex.quote(without_passwords(made.store))} "
    ours = "" if made.store == tracking_uri() else store
    mlflows = "" if made.store == os.environ.get("MLFLOW_TRACKING_URI") else store
    print(f"{made.method} of run {made.run} is version {made.version} of {made.name}")
    print(f"track: {ours}lightning-cells track FRAMES --model {address} --out DIR")
    print(f"serve: {mlflows}mlflow models serve -m {address} --env-manager local --port 5001")
