"""A training that goes on ends as an unbroken one does, in the same run."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from run_cases import NO_RUN, PRESETS, ULSTM, assert_same, client, the_run, words

from lightning_cells.cli import main
from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.simulate import simulate

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
EVERY = ["--checkpoint.every_n_batches", "1"]


class Copies(Callback):
    """Keeps each checkpoint that is there when a step begins, by the number of batches before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        done = trainer.fit_loop.total_batch_idx
        last = self.folder / "last.ckpt"
        if last.exists():
            shutil.copy(last, self.folder / f"{done}.ckpt")


class Stop(Exception):
    """As if the process were killed, without the price of a new one."""


class StopAt(Callback):
    """Ends the process, so to speak, at the beginning of a step."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise Stop


def run(line: list[str], callback: Callback | None = None) -> TrainingCLI:
    with pytest.MonkeyPatch.context() as patch:
        if callback is not None:
            make = TrainingCLI._instantiate_trainer
            patch.setattr(
                TrainingCLI, "_instantiate_trainer", lambda cli, config, own: make(cli, config, [callback, *own])
            )
        return TrainingCLI(line)


def broken(line: list[str], batch: int) -> None:
    with pytest.raises(Stop):
        run(line, StopAt(batch))


def compare(line: list[str], folder: Path, batches: list[int]) -> None:
    """Goes on after each of these batches of an unbroken training, and compares the ends."""
    run([*line, *EVERY, "--checkpoint.folder", str(folder)], Copies(folder))
    for batch in batches:
        other = folder.with_name(f"after {batch}")
        run([*line, "--checkpoint.folder", str(other), "--ckpt_path", str(folder / f"{batch}.ckpt")])
        assert_same(other / "last.ckpt", folder / "last.ckpt")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that have truth of all kinds: each method finds its own."""
    folder = tmp_path_factory.mktemp("classes") / "classes"
    return simulate(folder, "brightfield", sequences=3, frames=12, size=(64, 64), cells=3)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.parent.name)
def test_every_method_goes_on_exactly(preset: Path, classes: Path, tmp_path: Path) -> None:
    """From the middle of an epoch and from its end, bit by bit; adversarial ones within a cycle."""
    line = words(classes, *NO_RUN, "--data.batches_per_epoch", "3", method=["-c", str(preset)])
    compare(line, tmp_path / "unbroken", [1, 3])


TIRAMISU = ["-c", "conf/method/gruunet/tiny.yaml", "--model.network", "Tiramisu", "--model.network.width", "0.1"]
VARIANTS = {
    "dropout": [*TIRAMISU, "--model.network.layers", "[1, 1]", "--model.network.bottleneck", "1"],
    "steps": ["--trainer.max_steps", "7", "--trainer.max_epochs", "-1"],
    "validation within epochs": ["--trainer.val_check_interval", "0.5"],
    "accumulated gradients": ["--trainer.accumulate_grad_batches", "3"],
    "workers": ["--data.num_workers", "1"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_ways_of_training_go_on_exactly(variant: str, simulated: Path, tmp_path: Path) -> None:
    line = words(simulated, *NO_RUN, *VARIANTS[variant])
    compare(line, tmp_path / "unbroken", [3, 4])


@pytest.fixture(scope="module")
def unbroken(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(folder))
        run(words(simulated, *NO_RUN))
    return folder / "checkpoints/unlogged/last.ckpt"


def test_resume_continues_the_run(simulated: Path, unbroken: Path, home: Path) -> None:
    """In the middle of an epoch: with its configuration, in the same run, with all steps in the curves."""
    broken(words(simulated, *EVERY), batch=6)
    (folder,) = (home / "checkpoints").iterdir()
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 6
    before = the_run(home)
    assert before.info.status == "FAILED"
    assert main(["fit", "--resume", folder.name]) == 0
    assert_same(folder / "last.ckpt", unbroken)
    after = the_run(home)
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert after.data.params == before.data.params
    assert after.data.tags["continued"] == "1"
    assert after.data.tags["preset"] == "tiny", "that is not asked again"
    steps = [point.step for point in client(home).get_metric_history(after.info.run_id, "train/loss_step")]
    assert sorted(steps) == list(range(8))
    assert len(list((home / "checkpoints").iterdir())) == 1


def test_users_words_win(simulated: Path, home: Path) -> None:
    """For longer, at another rate; the next time, too."""
    run(words(simulated, "--model.schedule", "constant", "--model.warm_up", "0"))
    (folder,) = (home / "checkpoints").iterdir()
    longer = ["fit", "--resume", folder.name, "--trainer.max_epochs", "4", "--model.lr", "0.125"]
    broken(longer, batch=9)
    cli = run(["fit", f"--resume={folder.name}"])
    assert (cli.trainer.current_epoch, cli.trainer.global_step) == (4, 16)
    (optimizer,) = cli.trainer.optimizers
    assert [group["lr"] for group in optimizer.param_groups] == [0.125]
    assert cli.trainer.lr_scheduler_configs[0].scheduler.base_lrs == [0.125]
    assert the_run(home).data.tags["continued"] == "2"
    assert the_run(home).data.params["trainer.max_epochs"] == "2", "what it began with"
    config = yaml.safe_load((home / f"runs/{folder.name}/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 4
    assert not {"resume", "ckpt_path", "output_dir"} & config.keys()


def test_rate_of_a_schedule_keeps_its_place(simulated: Path, home: Path) -> None:
    line = words(simulated, *NO_RUN, "--model.schedule", "decay", "--model.lr", "0.5")
    run([*line, "--trainer.max_epochs", "1"])
    last = home / "checkpoints/unlogged/last.ckpt"
    cli = run([*line, "--ckpt_path", str(last), "--model.lr", "0.25"])
    fresh = run([*line, "--model.lr", "0.25"])
    for ours, theirs in zip(cli.trainer.optimizers, fresh.trainer.optimizers, strict=True):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])


def test_before_the_first_checkpoint(simulated: Path, unbroken: Path, home: Path) -> None:
    broken(words(simulated), batch=2)
    run_id = the_run(home).info.run_id
    assert not (home / "checkpoints").exists()
    assert main(["fit", "--resume", run_id]) == 0
    assert the_run(home).info.run_id == run_id
    assert_same(home / f"checkpoints/{run_id}/last.ckpt", unbroken)


def test_other_folders(simulated: Path, unbroken: Path, home: Path, tmp_path: Path) -> None:
    """Outputs and checkpoints where the user wants them."""
    out, folder = tmp_path / "out", tmp_path / "mine"
    broken(words(simulated, *EVERY, "--output_dir", str(out), "--checkpoint.folder", str(folder)), batch=5)
    os.environ["LIGHTNING_CELLS_HOME"] = str(home)  # `main` would put it back
    run_id = the_run(out).info.run_id
    assert main(["fit", "--resume", run_id, "--output_dir", str(out)]) == 0
    assert_same(folder / "last.ckpt", unbroken)
    assert the_run(out).info.status == "FINISHED"
    assert not list(home.iterdir())


def test_mistakes(home: Path, capfd: Capture) -> None:
    def complaint(*line: str) -> str:
        capfd.readouterr()
        assert main(list(line)) == 2
        return capfd.readouterr().err

    assert "has no training of that id" in complaint("fit", "--resume", "0123abc")
    assert "is no id of a run" in complaint("fit", "--resume", "../../etc")
    assert "use it with fit" in complaint("test", "--resume", "0123abc")
    assert not list(home.iterdir())


def fake_slurm(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A job, and an scontrol that notes what it is asked for."""
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n')
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return folder / "asked"


class Signal(Callback):
    """SLURM's signal in the middle of a step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_requeued_job_goes_on_by_itself(
    simulated: Path, unbroken: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake_slurm(monkeypatch, tmp_path / "bin")
    line = words(simulated)
    with pytest.raises(SystemExit) as leaving:
        run(line, Signal())
    assert leaving.value.code == 0
    assert asked.read_text() == "requeue 4711\n"
    first = the_run(home)
    assert first.info.status == "SCHEDULED"
    last = home / f"checkpoints/{first.info.run_id}/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 6, "the step is finished"

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(line) == 0
    second = the_run(home)
    assert (second.info.run_id, second.info.status) == (first.info.run_id, "FINISHED")
    assert_same(last, unbroken)


def test_job_that_cannot_be_requeued_says_how_to_go_on(
    simulated: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    fake_slurm(monkeypatch, tmp_path / "bin")
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\necho 'no permission' >&2\nexit 1\n")
    with pytest.raises(SystemExit):
        run(words(simulated, *NO_RUN), Signal())
    assert "job 4711 could not be queued again (no permission)" in capfd.readouterr().err


def test_job_begins_with_the_users_checkpoint_once(
    simulated: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that starts from other weights, and is interrupted, goes on from its own."""
    run(words(simulated, *NO_RUN, "--trainer.max_epochs", "1"))
    start = tmp_path / "start.ckpt"
    shutil.copy(home / "checkpoints/unlogged/last.ckpt", start)
    fake_slurm(monkeypatch, tmp_path / "bin")
    line = words(simulated, "--ckpt_path", str(start), "--trainer.max_epochs", "3", *EVERY)
    broken(line, batch=10)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(line) == 0
    steps = [p.step for p in client(home).get_metric_history(the_run(home).info.run_id, "train/loss_step")]
    assert sorted(steps) == list(range(4, 12)), "none twice: it began where it was"


def test_presets_are_found() -> None:
    assert any("ulstm" in str(path) for path in PRESETS)
    assert ULSTM[1].endswith("tiny.yaml")
