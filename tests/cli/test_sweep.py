"""Sweeps as a user starts them: trainings and clusterings, what they leave, and how they end and go on."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from cli_cases import NO_RUN, QUIET, complaint, fit, printed, run_python, say
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.loggers.store import tracking_uri

pytestmark = pytest.mark.usefixtures("store")
Capture = pytest.CaptureFixture[str]
MEAN_SHIFT = "lightning_cells.instances.mean_shift.MeanShift"
HDBSCAN = "lightning_cells.instances.hdbscan.HDBSCAN"
TRAINING: dict[str, Any] = {
    "study": "trained",
    "configs": ["conf/method/ulstm/tiny.yaml", "conf/trainer/cpu.yaml"],
    "set": {
        "data.train": ["01", "02"],
        "data.val": ["03[0:6]"],
        "data.clip_length": 2,
        "data.batches_per_epoch": 3,
        "data.augmentation.crop": 32,
        "model.decoder.min_size": 4,
        "trainer.max_epochs": 3,
        "trainer.enable_progress_bar": False,
    },
    "objective": {"val/SEG": "maximize"},
    "sampler": {"class_path": "optuna.samplers.RandomSampler", "init_args": {"seed": 2}},
    "space": {
        "model.lr": {"float": [1e-4, 3e-2], "log": True},
        "model.loss": {"choices": ["three_class", "two_class"]},
    },
}
CLUSTERING: dict[str, Any] = {
    "study": "clustered",
    "configs": ["conf/method/rshn/tiny.yaml"],
    "checkpoint": None,
    "set": {"data.val": ["03[0:4]"], "model.tiling.tile": 48, "model.tiling.margin": 8, "data.chunk": 3},
    "objective": {"val/SEG": "maximize"},
    "sampler": {"class_path": "optuna.samplers.RandomSampler", "init_args": {"seed": 1}},
    "space": {
        "model.decoder.clustering": {"choices": [MEAN_SHIFT, HDBSCAN]},
        "model.decoder.clustering.bandwidth": {"float": [0.05, 0.5], "if": {"model.decoder.clustering": MEAN_SHIFT}},
        "model.decoder.clustering.min_cluster_size": {"int": [20, 99], "if": {"model.decoder.clustering": HDBSCAN}},
        "model.decoder.min_size": {"int": [1, 40]},
        "model.tiling.overlap": {"choices": [16, 32]},
        "model.linking.t_merge": {"int": [0, 5]},
    },
}


def write(folder: Path, tree: dict[str, Any], **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}, sort_keys=False))
    return path


def runs(home: Path) -> tuple[Run, dict[int, Run]]:
    """The study's run and those of its trials."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    everything = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [run for run in everything if "sweep.kind" in run.data.tags]
    children = [run for run in everything if "optuna.trial" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    numbers = [int(run.data.tags["optuna.trial"]) for run in children]
    assert len(set(numbers)) == len(numbers)
    return parent, dict(zip(numbers, children, strict=True))


def study(home: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{home / 'optuna.db'}")


@pytest.mark.slow
def test_clustering(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    checkpoint = fit(simulated, tmp_path / "trained", *NO_RUN, method=["-c", "conf/method/rshn/tiny.yaml"])
    path = write(tmp_path, CLUSTERING, trials=4)
    words = ["sweep", path, "--checkpoint", checkpoint, "--data.root", simulated]
    said = say(capfd, *words)
    assert (said.status, said.err) == (0, "")
    assert "4 trials: 4 complete" in said.out

    made = study(home, "clustered")
    trials = made.get_trials()
    overlaps = {trial.params["model.tiling.overlap"] for trial in trials}
    entries = sorted((home / "cache/embeddings").iterdir())
    assert len(entries) == len(overlaps), "one for each way to cut frames into tiles"
    parent, children = runs(home)
    assert (parent.info.status, sorted(children)) == ("FINISHED", [0, 1, 2, 3])
    for trial in trials:
        run = children[trial.number]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["val/SEG"] == trial.value
        assert run.data.params == {k: str(v) for k, v in trial.params.items()} | {"ckpt_path": str(checkpoint)}

    # Each trial has the score that the whole method has with its values, as printed; the best one's from its file.
    report = home / "sweeps/clustered"
    best = printed(capfd, "validate", "-c", report / "best_config.yaml", "--ckpt_path", checkpoint)
    assert best["model"]["init_args"]["decoder"]["min_size"] == made.best_params["model.decoder.min_size"]
    given = ["--ckpt_path", str(checkpoint), "--data.root", str(simulated), *QUIET, *NO_RUN]
    scores = [_score(capfd, "-c", str(report / "best_config.yaml"), *given)]
    for trial in trials[:2]:
        chosen = [f"--{name}={value}" for name, value in trial.params.items()]
        shared = [f"--{name}={value}" for name, value in CLUSTERING["set"].items()]
        scores.append(_score(capfd, *given, *shared, *chosen))
    assert scores == pytest.approx([made.best_value, trials[0].value, trials[1].value], abs=5.1e-4)
    assert say(capfd, "fit", "-c", report / "best_config.yaml", "--trainer.fast_dev_run", "true", *QUIET).status == 0

    # It needs a word to go on, and then computes no embeddings again.
    assert "study 'clustered' has 4 trial(s)" in complaint(capfd, *words, "--trials", "6")
    times = [entry.stat().st_ctime_ns for entry in entries for entry in entry.iterdir()]
    assert say(capfd, *words, "--trials", "6", "--resume").status == 0
    assert len(study(home, "clustered").get_trials()) == 6
    assert [entry.stat().st_ctime_ns for entry in entries for entry in entry.iterdir()] == times
    assert sorted(runs(home)[1]) == [0, 1, 2, 3, 4, 5]
    write(tmp_path, CLUSTERING, trials=4, set={**CLUSTERING["set"], "data.chunk": 4})
    assert "study 'clustered' in sqlite:///" in (line := complaint(capfd, *words, "--resume"))
    assert "has another for set.data.chunk" in line


def _score(capfd: Capture, *words: str) -> float:
    said = say(capfd, "validate", *words, "--verbose", "true")
    assert said.status == 0, said.err
    return float(re.search(r"val/SEG\W+([\d.e-]+)", said.out)[1])  # type: ignore[index]


@pytest.mark.slow
def test_training(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    pruner = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"lower": 0.99, "n_warmup_steps": 1}}
    space = {**TRAINING["space"], "data.batch_size": {"choices": [2]}}
    path = write(tmp_path, TRAINING, trials=2, space=space)
    words = ["sweep", path, "--data.root", simulated]
    said = say(capfd, *words)
    assert (said.status, said.err) == (0, "")
    parent, children = runs(home)
    assert parent.info.status == "FINISHED"
    trials = study(home, "trained").get_trials()
    client = MlflowClient(tracking_uri())
    for trial in trials:
        run = children[trial.number]
        assert (run.info.status, run.info.run_name) == ("FINISHED", f"trained {trial.number}")
        curve = [point.value for point in client.get_metric_history(run.info.run_id, "val/SEG")]
        assert len(curve) == 3
        assert list(trial.intermediate_values.values()) == pytest.approx(curve)
        assert trial.value == pytest.approx(max(curve))
        assert float(run.data.params["model.optimization.lr"]) == trial.params["model.lr"]
    best = max(trials, key=lambda trial: trial.value)
    curve = list(best.intermediate_values.values())
    (kept,) = (home / "checkpoints").iterdir()
    assert kept.name == children[best.number].info.run_id, "checkpoints of worse trials are not kept"
    artifacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"sweep.yaml", "best_config.yaml", "trials.csv", "study.html", "history.png"} <= artifacts

    again = tmp_path / "again"
    words_again = ["-m", "lightning_cells", "fit", "-c", home / "sweeps/trained/best_config.yaml"]
    assert run_python(*words_again, "--output_dir", again).status == 0  # in a process of its own, as the trial
    client = MlflowClient(f"sqlite:///{again / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert "mlflow.parentRunId" not in run.data.tags, "a run of its own"
    scores = [point.value for point in client.get_metric_history(run.info.run_id, "val/SEG")]
    assert scores == curve, "the same training, to the last bit"

    write(tmp_path, TRAINING, trials=3, space=space, pruner=pruner)
    assert say(capfd, *words, "--resume").status == 0
    trial = study(home, "trained").get_trials()[2]
    run = runs(home)[1][2]
    assert (trial.state.name, len(trial.intermediate_values)) == ("PRUNED", 2)
    assert (run.info.status, run.data.tags["optuna.state"]) == ("KILLED", "PRUNED")
    assert not (home / "checkpoints" / run.info.run_id).exists()


@pytest.mark.slow
def test_objective_that_is_never_logged(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    path = write(tmp_path, TRAINING, objective={"val/SEGG": "maximize"})
    line = complaint(capfd, "sweep", path, "--data.root", simulated)
    assert line.endswith("objective 'val/SEGG' is never logged: did you mean 'val/SEG'?")
    parent, children = runs(home)
    assert (parent.info.status, children[0].info.status) == ("FAILED", "FAILED")
    assert optuna.get_all_study_names(f"sqlite:///{home / 'optuna.db'}") == [], "the name is free for the next try"


@pytest.mark.slow
def test_objective_that_is_not_a_number(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    """Without tracks in the truth there is nothing to measure tracking by."""
    for video in ("01", "03"):
        shutil.copytree(simulated / video, tmp_path / "data" / video)
        shutil.copytree(simulated / f"{video}_GT/SEG", tmp_path / "data" / f"{video}_GT/SEG")
    path = write(tmp_path, TRAINING, objective={"val/TRA": "maximize"}, trials=1)
    settings = ["--data.train=['01']", "--trainer.max_epochs=1", "--data.root", tmp_path / "data"]
    line = complaint(capfd, "sweep", path, *settings)
    assert line.startswith("no trial of study 'trained' ended with a value: see ")
    _, children = runs(home)
    assert children[0].info.status == "FAILED"
    assert children[0].data.tags["optuna.reason"] == "objective val/TRA is not a number (NaN)"
    assert (home / "sweeps/trained/trials.csv").read_text().rstrip().endswith("objective val/TRA is not a number (NaN)")


@pytest.mark.slow
def test_interrupted_and_resumed(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    path = write(tmp_path, TRAINING, trials=1)
    words = ["sweep", str(path), "--data.root", str(simulated)]
    command = [sys.executable, "-m", "lightning_cells", *words, "--trainer.max_epochs=300"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 200
        while not list(home.glob("checkpoints/*/best.ckpt")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        assert len(_processes_of(home)) == 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "lightning-cells sweep: interrupted"
    assert f"The study can go on: lightning-cells sweep {path}" in out
    parent, children = runs(home)
    assert (parent.info.status, children[0].info.status) == ("KILLED", "KILLED")
    assert children[0].data.tags["optuna.state"] == "INTERRUPTED"
    assert not _processes_of(home)

    assert "has another for set.trainer.max_epochs" in complaint(capfd, *words, "--resume")
    made = study(home, "trained")
    identity = made.user_attrs["lightning_cells"]
    identity["set"]["trainer.max_epochs"] = "1"  # not for users: here it saves time
    made.set_user_attr("lightning_cells", identity)
    assert say(capfd, *words, "--resume", "--trainer.max_epochs=1").status == 0
    trials = study(home, "trained").get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert trials[0].params == trials[1].params
    parent, children = runs(home)
    assert (parent.info.status, sorted(children)) == ("FINISHED", [0, 1])


def _processes_of(home: Path) -> list[str]:
    """Processes of trials that write there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = ((folder / name).read_text().split("\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        if "lightning_cells.cli.job" in words and any(str(home) in variable for variable in variables):
            found.append(" ".join(words))
    return found


@pytest.mark.slow
def test_distributed_trial(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    """Two processes train each trial, and both are told that the second one is hopeless."""
    pruner = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"lower": 0.99, "n_warmup_steps": 1}}
    path = write(tmp_path, TRAINING, trials=1, pruner=pruner)
    words = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.root", simulated]
    said = say(capfd, "sweep", path, *words)
    assert said.status == 2, "nothing is left but a pruned trial"
    (trial,) = study(home, "trained").get_trials()
    log = (home / "sweeps/trained/logs/trial-0000.log").read_text()
    assert (trial.state.name, len(trial.intermediate_values)) == ("PRUNED", 2), log[-3000:]
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in log
    _, children = runs(home)
    assert list(children) == [0], "the two are one run"
    run = children[0]
    assert (run.info.status, run.data.tags["optuna.state"]) == ("KILLED", "PRUNED")
    client = MlflowClient(tracking_uri())
    assert len(client.get_metric_history(run.info.run_id, "val/SEG")) == 2
