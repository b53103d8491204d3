"""What a training verb says at its end: what it has left, and the commands that go on from there."""

import json
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_only

from lightning_cells.callbacks.checkpoint import Checkpoints
from lightning_cells.callbacks.narration import short
from lightning_cells.callbacks.result_writer import ResultFolders
from lightning_cells.callbacks.test_report import report_path
from lightning_cells.cli.words import readable, shown
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.trust import allow_words

if TYPE_CHECKING:
    from lightning_cells.cli.training import TrainingCLI

_OPTIONS = {"layout": "ctc", "truth": "gold", "label_kind": "instances", "folds": 0, "fold": 0}
"""What says which data are meant, beside root and videos, with its default."""


def next_steps(cli: "TrainingCLI") -> list[str]:
    """Returns the lines that a verb ends with; none where there is nothing to go on from."""
    if cli.trainer.fast_dev_run or rank_zero_only.rank:  # type: ignore[attr-defined]
        return []
    return {"fit": _fitted, "test": _tested, "predict": _predicted}.get(str(cli.subcommand), _nothing)(cli)


def _nothing(cli: "TrainingCLI") -> list[str]:
    return []


def _fitted(cli: "TrainingCLI") -> list[str]:
    told, checkpoints, run = cli.narration, cli.trainer.checkpoint_callback, _run(cli)
    if not isinstance(checkpoints, Checkpoints) or not checkpoints.best_model_path:
        return []
    checkpoint = readable(checkpoints.best)
    head = f"{told.epochs} epoch{'s' * (told.epochs != 1)} in {_duration(told.seconds)}"
    if told.best is not None:
        head += f"; the best is epoch {told.best.epoch}: {short(told.best.measures)}"
    lines = ["", f"Run {run}: {head}" if run else head, f"  best checkpoint  {checkpoint}"]
    if words := _data_words(cli.datamodule):
        lines.append(f"  measure it       {_command(cli, 'test', *words, '--ckpt_path', checkpoint, *allow_words())}")
    tracking = ("track", "FRAMES", "--checkpoint", checkpoint, "--out", "RES", "--preview", *allow_words())
    lines.append(f"  track with it    {shown(*tracking)}")
    if isinstance(cli.trainer.logger, RunLogger):
        longer = (cli.trainer.max_epochs or 0) * 2
        if longer > 0:
            go_on = ("--resume", str(cli.trainer.logger.run_id), "--trainer.max_epochs", str(longer))
            lines.append(f"  train longer     {_command(cli, 'fit', *go_on)}")
        lines.append(f"  look at it       {_command(cli, 'dashboard')}")
    return lines


def _tested(cli: "TrainingCLI") -> list[str]:
    if not isinstance(cli.trainer.logger, RunLogger):
        return []
    run = str(cli.trainer.logger.run_id)
    report = report_path(run)
    lines = ["", f"Run {_run(cli)}"]
    if report.is_file():
        lines.append(f"  report           {readable(report)}")
    lines.append(f"  beside others    {_command(cli, 'compare', run, 'RUN')}")
    lines.append(f"  look at it       {_command(cli, 'dashboard')}")
    return lines


def _predicted(cli: "TrainingCLI") -> list[str]:
    folder = next(c.folder(cli.trainer) for c in cli.trainer.callbacks if isinstance(c, ResultFolders))  # type: ignore[attr-defined]
    lines = [f"Results are in {readable(folder)}"]
    for sequence in cli.datamodule.sequences["predict"]:
        masks = [*sequence.files.tra.values(), *sequence.files.seg.values()]
        if masks and cli.datamodule.layout == "ctc":
            result, truth = folder / f"{sequence.name}_RES", masks[0].parent.parent
            return [*lines, f"  measure one      {shown('evaluate', readable(result), readable(truth))}"]
    return lines


def _run(cli: "TrainingCLI") -> str:
    logger = cli.trainer.logger
    return f"{logger.run_id}, {logger.run_name}" if isinstance(logger, RunLogger) else ""


def _data_words(data: SequenceDataModule) -> list[str]:
    """The options that name the data of a test; none if there is nothing to test on."""
    if not data.sequences.get("test"):
        return []
    words = ["--data.root", str(data.root)]
    for name, default in _OPTIONS.items():
        if getattr(data, name) != default:
            words += [f"--data.{name}", str(getattr(data, name))]
    parts = ("train", "test") if data.folds else ("test",)
    for part in parts:
        chosen = data.selectors[part] or (data.selectors["val"] if part == "test" and not data.folds else None)
        if chosen:
            words += [f"--data.{part}", json.dumps(chosen)]
    return words


def _command(cli: "TrainingCLI", *words: str) -> str:
    """A command that finds what this one has left."""
    place = cli.config[cli.subcommand].output_dir
    return shown(*words, *(("--output_dir", place) if place else ()))


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
