"""Every sweep that ships says what the command line takes, and mistakes in one are told before the first trial."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_cases import complaint, fit, say

import lightning_cells
from lightning_cells.cli.resolving import Resolver
from lightning_cells.experiments.tuning.study import make_pruner, make_sampler
from lightning_cells.experiments.tuning.study_file import StudyFile

Capture = pytest.CaptureFixture[str]
FOLDER = Path(lightning_cells.__file__).parents[1] / "sweeps"
SWEEPS = sorted(FOLDER.rglob("*.yaml"))


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    return Resolver()


def test_each_has_a_tiny_form() -> None:
    names = {path.name for path in FOLDER.glob("*.yaml")}
    assert names == {path.name for path in (FOLDER / "tiny").glob("*.yaml")}
    expected = {"ulstm_loss", "rshn_loss", "gruunet_focal", "adversarial", "rshn_clustering"}
    assert {Path(name).stem for name in names} == expected


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))
def test_shipped_sweep(path: Path, resolver: Resolver, tmp_path: Path) -> None:
    assert path.read_text().startswith("# ")
    checkpoint = None
    if "checkpoint" in yaml.safe_load(path.read_text()):
        checkpoint = tmp_path / "any.ckpt"
        checkpoint.touch()
    plan = StudyFile.read(path).adjusted(None, checkpoint, [])
    make_sampler(plan)
    make_pruner(plan)
    for chosen in plan.space.extremes():
        resolver.resolve(plan.words(chosen))
    config = resolver.resolve(plan.words(plan.space.lowest()))
    if not plan.clustering:
        assert config.checkpoint.monitor == next(iter(plan.objectives))
        assert plan.pruner is not None


def test_example_of_the_documentation(resolver: Resolver, tmp_path: Path) -> None:
    page = (FOLDER.parent / "docs/how-to/sweep.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "example.yaml").write_text(example)
    plan = StudyFile.read(tmp_path / "example.yaml").adjusted(None, None, [])
    make_sampler(plan)
    make_pruner(plan)
    for chosen in plan.space.extremes():
        resolver.resolve(plan.words(chosen))
    for path in SWEEPS:
        assert f"`sweeps/{path.name}`" in page


def test_resolver_writes_what_fit_and_validate_take(resolver: Resolver, tmp_path: Path) -> None:
    words = ["-c", "conf/method/ulstm/tiny.yaml", "--data.chunk=6", "--model.class_weights=[0.1, 0.2, 0.3]"]
    (tmp_path / "config.yaml").write_text(resolver.text(words))
    again = resolver.resolve(["-c", str(tmp_path / "config.yaml")])
    assert again.data.chunk == 6
    assert list(again.model.init_args.loss.init_args.class_weights) == [0.1, 0.2, 0.3]
    assert yaml.safe_load(resolver.text(["-c", str(tmp_path / "config.yaml")])) == yaml.safe_load(
        (tmp_path / "config.yaml").read_text()
    )


TREE: dict[str, Any] = {
    "study": "mine",
    "configs": ["conf/method/ulstm/tiny.yaml", "conf/trainer/cpu.yaml"],
    "set": {"data.val": ["03"]},
    "objective": {"val/SEG": "maximize"},
    "space": {"model.lr": {"float": [1e-4, 1e-2], "log": True}},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**TREE, **changes}, sort_keys=False))
    return path


MISTAKES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "path": (
        {"space": {"model.lstm_kernal": {"int": [3, 7]}}},
        [],
        "there is no option 'model.lstm_kernal': did you mean 'model.lstm_kernel'?",
    ),
    "path within an object": (
        {"space": {"model.decoder.seed_treshold": {"float": [0.1, 0.9]}}},
        [],
        "there is no option 'model.decoder.seed_treshold': did you mean 'model.decoder.seed_threshold'?",
    ),
    "choice": (
        {"space": {"model.loss": {"choices": ["three_class", "four_class"]}}},
        [],
        "model.loss: 'four_class' is no class: give its import path",
    ),
    "kind": ({"space": {"model.lstm_kernel": {"float": [2.5, 7.5]}}}, [], "model.lstm_kernel: Expected int"),
    "setting": (
        {"set": {"trainer.max_epoch": 3}},
        [],
        "there is no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?",
    ),
    "option": ({}, ["--data.btch_size", "3"], "there is no option 'data.btch_size': did you mean 'data.batch_size'?"),
    "config": ({"configs": ["conf/method/ulstm/tny.yaml"]}, [], "no file 'conf/method/ulstm/tny.yaml'"),
    "data": ({}, ["--data.root", "nowhere"], "no data folder 'nowhere'"),
    "video": ({"set": {"data.val": ["11"]}}, [], "data.val: no sequence matches '11'"),
    "sampler": ({"sampler": "optuna.samplers.TPE"}, [], "sampler: 'optuna.samplers.TPE' is no sampler"),
    "trials": ({}, ["--trials", "0"], "--trials 0: must be a whole number, at least 1"),
    "workers": ({}, ["--workers", "0"], "--workers 0: must be at least 1"),
    "storage": ({}, ["--storage", "sqlite:////proc/no/o.db"], "--storage sqlite:////proc/no/o.db: No such file"),
    "checkpoint": ({}, ["--checkpoint", "x.ckpt"], "a checkpoint is for a sweep with the key 'checkpoint'"),
    "no checkpoint": ({"checkpoint": None}, [], "needs a trained method: give --checkpoint"),
    "dry run": ({}, ["--dry-run"], "--dry-run: is for --slurm JOBS"),
    "slurm on sqlite": ({}, ["--slurm", "3"], "--slurm: workers on several machines share a server"),
    "typing": ({}, ["--trails", "3"], "there is no option 'trails': did you mean 'trials'?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_before_the_first_trial(name: str, simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    changes, words, expected = MISTAKES[name]
    line = complaint(capfd, "sweep", write(tmp_path, **changes), "--data.root", simulated, *words)
    assert expected in line
    assert not (home / "mlflow.db").exists()
    assert not (home / "sweeps").exists()


def test_file_that_there_is_not(capfd: Capture) -> None:
    assert "no file 'nowhere.yaml'" in complaint(capfd, "sweep", "nowhere.yaml")


def test_checkpoint_that_does_not_fit(simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    """One of a method that embeds no pixels, one that is none, and a space that would change the network."""
    clustering = {"model.decoder.clustering.bandwidth": {"float": [0.05, 0.3]}}
    path = write(tmp_path, configs=[], checkpoint=None, space=clustering)
    words = ["sweep", path, "--data.root", simulated, "--checkpoint"]
    ulstm = fit(simulated, home)
    assert "is of ULSTM, which embeds no pixels" in complaint(capfd, *words, ulstm)
    (tmp_path / "no.ckpt").write_text("my holiday diary")
    assert str(tmp_path / "no.ckpt") in complaint(capfd, *words, tmp_path / "no.ckpt")
    assert "no checkpoint" in complaint(capfd, *words, tmp_path / "none.ckpt")

    rshn = fit(simulated, tmp_path / "rshn", method=["-c", "conf/method/rshn/tiny.yaml"])
    write(tmp_path, configs=[], checkpoint=None, space={"model.levels": {"int": [2, 4]}})
    assert "space.model.levels: is part of the trained network or its data: with a checkpoint vary" in complaint(
        capfd, *words, rshn
    )
    write(tmp_path, configs=[], checkpoint=None, space=clustering, set={"data.val": ["03"], "model.features": 8})
    assert "does not fit the method of the sweep (size mismatch" in complaint(capfd, *words, rshn)
    write(tmp_path, configs=[], checkpoint=None, space={"model.decoder.clustering.bandwith": {"float": [0.05, 0.3]}})
    assert "did you mean 'model.decoder.clustering.bandwidth'?" in complaint(capfd, *words, rshn)


def test_array_for_slurm(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    path = write(tmp_path)
    words = ["sweep", path, "--slurm", "4", "--storage", "postgresql://me@db/optuna", "--trials", "100"]
    words += ["--sbatch=--gres=gpu:1", "--data.root", "my data"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://runs:5000")
    said = say(capfd, *words, "--dry-run")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in ("#SBATCH --array=0-3", "#SBATCH --gres=gpu:1", "export MLFLOW_TRACKING_URI=http://runs:5000"):
        assert line in lines
    assert any(line.startswith("#SBATCH --signal=B:TERM@") for line in lines), "trials are put back in time"
    assert lines[-1].endswith(
        f"-m lightning_cells sweep {path} --storage=postgresql://me@db/optuna --workers=1 --heartbeat=30 --trials=100 "
        "--data.root 'my data' --resume"
    )
    assert lines[-1].startswith("exec "), "the signal reaches the worker itself"

    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/sbatch"
    fake.write_text(f"#!/bin/bash\ncat > {tmp_path / 'submitted'}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert say(capfd, *words).status == 0
    assert (tmp_path / "submitted").read_text() == said.out
    fake.write_text("#!/bin/bash\nexit 3\n")
    assert "sbatch refused the jobs (status 3)" in complaint(capfd, *words)
    assert "--slurm 0: must be at least 1 job" in complaint(capfd, *words, "--slurm", "0")
    monkeypatch.setenv("PATH", "")
    assert "there is no sbatch here" in complaint(capfd, *words)
