"""What a training leaves in its MLflow run, in a real store: curves, options, configuration, pictures."""

import json
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.cli import main
from lightning_cells.cli.training import TrainingCLI
from lightning_cells.errors import InputError
from lightning_cells.loggers.mlflow import EXPERIMENT, RunLogger
from lightning_cells.loggers.store import open_experiment, tracking_uri

TINY = ["-c", "conf/method/ulstm/tiny.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
TINY += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
TINY += ["--data.train", "['01', '02']", "--data.val", "['03']", "--data.clip_length", "2"]
TINY += ["--data.augmentation.crop", "32", "--data.batches_per_epoch", "3", "--trainer.max_epochs", "2"]
TINY += ["--trainer.log_every_n_steps", "1", "--model.decoder.min_size", "4"]


@dataclass
class Fitted:
    """A training of two epochs of three batches, in a working directory of its own."""

    home: Path
    work: Path
    root: Path
    trainer: Trainer
    environment: tuple[str | None, str | None]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        return list(self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts" / self.runs()[0].info.run_id / "artifacts"


def store() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI")


@pytest.fixture(scope="module")
def fitted(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fitted]:
    home, work = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(work)
        before = store()
        trainer = TrainingCLI(["fit", *TINY, "--data.root", str(simulated)]).trainer
        yield Fitted(home, work, simulated, trainer, (before, store()))


def test_one_training_is_one_run(fitted: Fitted) -> None:
    (experiment,) = [e for e in fitted.client.search_experiments() if e.name != "Default"]
    assert experiment.name == EXPERIMENT
    (run,) = fitted.runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_id == fitted.trainer.logger.run_id


def test_run_has_a_name_that_tells_it_from_others(fitted: Fitted) -> None:
    """MLflow draws its names from Python's generator, which we seed: they would all be the same."""
    (run,) = fitted.runs()
    assert run.info.run_name == f"ulstm-{run.info.run_id[:4]}"


def test_parameters_are_named_as_on_the_command_line(fitted: Fitted) -> None:
    parameters = fitted.runs()[0].data.params
    expected = {
        "model.class_path": "lightning_cells.methods.ULSTM",
        "model.lstm_kernel": "3",
        "model.channels": "[8, 16, 32, 64]",
        "model.decoder.min_size": "4",
        "data.clip_length": "2",
        "data.augmentation.crop": "32",
        "data.root": str(fitted.root),
        "trainer.max_epochs": "2",
        "seed_everything": "1",
    }
    assert {key: parameters.get(key) for key in expected} == expected
    undotted = {key for key in parameters if "." not in key}
    assert undotted == {"seed_everything"}, "none twice"


def test_tags_tell_code_and_data(fitted: Fitted) -> None:
    tags = fitted.runs()[0].data.tags
    folder = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        assert len(tags["mlflow.source.git.commit"]) == 40  # the lead may commit while this runs
        assert tags["git.dirty"] in ("true", "false")
    assert tags["method"] == "ULSTM"
    assert tags["stage"] == "fit"
    assert tags["data.root"] == "nuclei"
    assert (tags["data.train"], tags["data.val"]) == ("01[0:12] 02[0:12]", "03[0:12]")
    assert tags["data.fingerprint"] == fitted.trainer.datamodule.fingerprint
    assert len(tags["data.fingerprint"]) == 16


def test_fingerprint_follows_the_pixels(fitted: Fitted, simulated: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(simulated, tmp_path / "copy")

    def fingerprint() -> str:
        words = ["--data.root", str(tmp_path / "copy"), "--trainer.fast_dev_run", "true"]
        return TrainingCLI(["fit", *TINY, *words]).datamodule.fingerprint

    assert fingerprint() == fitted.trainer.datamodule.fingerprint, "wherever they lie"
    shutil.copy(tmp_path / "copy/01/t001.tif", tmp_path / "copy/01/t002.tif")
    assert fingerprint() != fitted.trainer.datamodule.fingerprint


def test_tags_tell_the_experiment(fitted: Fitted) -> None:
    tags = fitted.runs()[0].data.tags
    assert (tags["preset"], tags["seed"]) == ("tiny", "1")
    assert tags["paper"] == "Arbelle & Riklin Raviv, ISBI 2019"
    assert "fold" not in tags, "there are none"


def test_data_set_is_an_input(fitted: Fitted) -> None:
    (entry,) = fitted.runs()[0].inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("nuclei", fitted.trainer.datamodule.fingerprint)
    assert json.loads(entry.dataset.source) == {"uri": str(fitted.root)}
    profile = json.loads(entry.dataset.profile)
    assert (profile["train"], profile["train_frames"], profile["val_frames"]) == ("01[0:12] 02[0:12]", 24, 12)
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_speed_is_logged_once_per_epoch(fitted: Fitted) -> None:
    (run,) = fitted.runs()
    for name in ("speed/frames_per_second", "speed/data_wait"):
        assert len(fitted.client.get_metric_history(run.info.run_id, name)) == 2
    assert run.data.metrics["speed/frames_per_second"] > 0
    assert 0 < run.data.metrics["speed/data_wait"] < 1, "without workers the time in which batches are prepared"


def test_machine_is_measured(fitted: Fitted) -> None:
    metrics = fitted.runs()[0].data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] < 100
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    machine = json.loads((fitted.artifacts / "machine.json").read_text())
    assert machine["python"] == platform.python_version()
    assert machine["cores"] == os.cpu_count()


def test_model_is_summarised(fitted: Fitted) -> None:
    parameters = sum(p.numel() for p in fitted.trainer.lightning_module.parameters())
    assert f"{parameters // 1000} K" in (fitted.artifacts / "model.txt").read_text()


def test_curves(fitted: Fitted) -> None:
    (run,) = fitted.runs()

    def steps(name: str) -> list[int]:
        return [point.step for point in fitted.client.get_metric_history(run.info.run_id, name)]

    assert len(steps("train/loss_step")) == 6
    assert len(steps("train/loss_epoch")) == 2
    for name in ("val/SEG", "val/DET", "val/TRA"):
        assert len(steps(name)) == 2, "once per epoch"
        assert len(set(steps(name))) == 2
        assert 0 <= run.data.metrics[name] <= 1
    assert run.data.metrics["val/SEG"] == pytest.approx(float(fitted.trainer.callback_metrics["val/SEG"]))


def test_pictures(fitted: Fitted) -> None:
    pictures = sorted((fitted.artifacts / "images").glob("val*frame_1*.png"))
    assert len(pictures) == 2, "one per epoch"
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_environment_is_recorded(fitted: Fitted) -> None:
    versions = dict(line.split("==") for line in (fitted.artifacts / "environment.txt").read_text().splitlines())
    from importlib.metadata import version

    # Not torch.__version__, which names the CUDA build, too, where the wheel does not.
    assert versions["torch"] == version("torch")
    assert {"lightning", "mlflow", "numpy", "lightning-cells"} <= set(versions)


def test_everything_lies_in_the_output_folder(fitted: Fitted) -> None:
    assert list(fitted.work.iterdir()) == [], "no mlruns, lightning_logs or checkpoints in the working directory"
    names = {path.name for path in fitted.home.iterdir() if not path.name.startswith(".")}
    assert names == {"mlflow.db", "artifacts", "checkpoints", "cache", "runs"}
    (folder,) = (path for path in (fitted.home / "runs").iterdir())
    assert folder.name == fitted.runs()[0].info.run_id
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "run.json", ".lock"}, "all is delivered"


def test_checkpoints_lie_in_the_runs_own_folder(fitted: Fitted) -> None:
    folder = fitted.home / "checkpoints" / fitted.runs()[0].info.run_id
    assert fitted.trainer.checkpoint_callback.dirpath == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_environment_of_the_process_is_left_alone(fitted: Fitted) -> None:
    """MLflow would set the variable, and so send a later training of the same process to this store."""
    assert fitted.environment == (None, None)


def test_logged_configuration_repeats_the_training(fitted: Fitted, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fitted.artifacts / "config.yaml"
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["decoder"]["init_args"]["min_size"] == 4
    assert main(["fit", "-c", str(config)]) == 0
    client = MlflowClient(tracking_uri())
    (again,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    (run,) = fitted.runs()
    assert again.data.params == run.data.params
    for name, value in run.data.metrics.items():
        if not name.startswith(("speed/", "system/")):
            assert again.data.metrics[name] == pytest.approx(value, abs=1e-6), name
    (picture, *_) = home.glob("artifacts/*/artifacts/config.yaml")
    assert yaml.safe_load(picture.read_text()) == yaml.safe_load(config.read_text())


def test_test_and_predict_with_a_store(fitted: Fitted, simulated: Path, home: Path) -> None:
    """Measuring is a run with measures and pictures; predicting is none."""
    words = ["--ckpt_path", fitted.trainer.checkpoint_callback.best_model_path, "--data.root", str(simulated)]
    words += TINY[2:10]
    assert main(["predict", *words, "--data.predict", "['03']"]) == 0
    assert sorted(path.name for path in home.iterdir()) == ["cache", "predictions"]
    assert main(["test", *words, "--data.test", "['03']"]) == 0
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.data.tags["stage"] == "test"
    best = max(point.value for point in fitted.client.get_metric_history(fitted.runs()[0].info.run_id, "val/SEG"))
    assert run.data.metrics["test/SEG"] == pytest.approx(best, abs=1e-6)
    assert list(home.glob("artifacts/*/artifacts/images/test*frame_1*.png"))
    assert not (home / "checkpoints").exists()


def test_fast_dev_run_leaves_nothing(simulated: Path, home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.root", str(simulated), "--trainer.fast_dev_run", "true"]
    assert main(["fit", *TINY, *words]) == 0
    assert main(["fit", *TINY, *words, "--data.val", "null"]) == 0
    assert [path.name for path in home.iterdir()] == ["cache"]
    assert list(tmp_path.iterdir()) == []


def test_failed_training_is_marked(simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_cells.methods import ULSTM

    def broken(*args: object) -> None:
        raise RuntimeError("the lamp went out")

    monkeypatch.setattr(ULSTM, "training_step", broken)
    with pytest.raises(RuntimeError, match="the lamp went out"):
        main(["fit", *TINY, "--data.root", str(simulated)])
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize("uri", ["file:./mlruns", "mlruns", "nonsense://host/runs"])
def test_store_that_cannot_be_used(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=f"runs cannot be kept in {uri} .*MLFLOW_TRACKING_URI") as error:
        RunLogger()
    assert "\n" not in str(error.value)


def test_users_store_wins(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mine.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    logger = RunLogger(run_name="mine", tags={"a": "b"})
    run = MlflowClient(uri).get_run(logger.run_id)
    assert (run.info.run_name, run.data.tags["a"]) == ("mine", "b")
    assert run.info.artifact_uri.startswith((home / "artifacts").as_uri())
    assert not (home / "mlflow.db").exists()
    assert store() == uri

    logger.log_metrics({"val/SEG": 0.5, "val/LNK": float("nan")}, step=3)
    logger.finalize()
    assert MlflowClient(uri).get_run(logger.run_id).data.metrics == {"val/SEG": 0.5}, "what is not a number is left out"

    continued = RunLogger(run_id=logger.run_id)
    continued.log_metrics({"val/SEG": 0.75}, step=4)
    continued.finalize("failed")
    assert MlflowClient(uri).get_run(logger.run_id).info.status == "FAILED"
    assert [point.value for point in MlflowClient(uri).get_metric_history(logger.run_id, "val/SEG")] == [0.5, 0.75]
    experiment = MlflowClient(uri).get_experiment_by_name(EXPERIMENT)
    MlflowClient(uri).delete_experiment(experiment.experiment_id)
    assert open_experiment(MlflowClient(uri), EXPERIMENT).experiment_id == experiment.experiment_id
    restored = MlflowClient(uri).get_experiment(experiment.experiment_id)
    assert restored.lifecycle_stage == "active", "deleted in the dashboard"


@pytest.mark.slow
def test_runs_have_colours_that_differ() -> None:
    loggers = [RunLogger() for _ in range(3)]
    colours = {logger.experiment.get_run(logger.run_id).data.tags["mlflow.runColor"] for logger in loggers}
    for logger in loggers:
        logger.finalize()
    assert len(colours) == 3
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_processes_that_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    """Each is held back until all have imported everything, then they start together."""
    code = (
        "import sys; from lightning_cells.loggers.mlflow import RunLogger; print('ready', flush=True); "
        "sys.stdin.readline(); print(RunLogger().run_id, flush=True)"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) for _ in range(2)]
    killer = threading.Timer(120, lambda: [process.kill() for process in processes])
    killer.start()
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2  # type: ignore[union-attr]
        for process in processes:
            process.stdin.write("go\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        said = [process.communicate() for process in processes]
    finally:
        killer.cancel()
    assert [process.returncode for process in processes] == [0, 0], said
    client = MlflowClient(tracking_uri())
    assert len([e for e in client.search_experiments() if e.name == EXPERIMENT]) == 1
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert {run.info.run_id for run in runs} == {out.strip() for out, _ in said}
