"""Plans of sweeps over clusterings: what a checkpoint adds to them, and whether they can be run."""

from typing import Any

import yaml

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.clusterer import Clusterer, load_trained
from lightning_cells.experiments.tuning.study_file import StudyFile
from lightning_cells.methods.loading import checkpoint_settings
from lightning_cells.methods.rshn import RSHN
from lightning_cells.paths import output_dir

_VARIED = ("model.decoder", "model.tiling", "model.linking", "model.window")  # the rest is the network's


def with_checkpoint(plan: StudyFile) -> StudyFile:
    """Adds what the checkpoint remembers of its training to a plan, after its configurations.

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


def check_clustering(plan: StudyFile, config: dict[str, Any]) -> None:
    """Checks that checkpoint, configuration, data and space fit each other.

    Raises:
        InputError: if they do not.
    """
    assert plan.checkpoint is not None
    load_trained(plan.checkpoint, config["model"])
    Clusterer(plan.checkpoint, config, limit=0)
