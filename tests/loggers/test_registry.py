"""Registered models: what is stored, that nothing of it is executed, and what they answer."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import registry_cases as cases
import seeing
import yaml
from mlflow.exceptions import MlflowException

from lightning_cells.cli import main
from lightning_cells.data.frames import check_frames
from lightning_cells.errors import InputError
from lightning_cells.loggers import registry, served_model
from lightning_cells.loggers.registry import Registered, register, registered_checkpoint
from lightning_cells.tracking import Tracker

MODEL = {"ulstm": "models:/ulstm/1", "rshn": "models:/rshn/1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run of each of two methods. Not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    for name, method in seeing.methods().items():
        cases.add_run(folder, name, method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in MODEL:
            register(name, name)
    return folder


@pytest.fixture
def shared(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of `made`, and MLflow's default store."""
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(made))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made / 'mlflow.db'}")
    return made


@pytest.fixture
def own(made: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a store of its own, to be changed."""
    shutil.copy(made / "mlflow.db", home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    return home


def files(home: Path, name: str, version: str = "1") -> Path:
    """The folder of a model in a store under `home`."""
    address = cases.store(home).get_model_version_download_uri(name, version)
    return Path(address.removeprefix("file://"))


@pytest.fixture
def unpickled() -> Iterator[list]:
    """What Python's unpickler was asked to import while this was in use."""
    asked: list = []
    active = True
    sys.addaudithook(lambda event, what: asked.append(what) if active and event == "pickle.find_class" else None)
    yield asked
    active = False


def test_the_model_holds_a_checkpoint_and_no_code(shared: Path) -> None:
    folder = files(shared, "ulstm")
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    described = {"MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml"}
    assert held - {"registered_model_meta"} == described | {
        "data/best.ckpt",
        "input_example.json",
        "serving_input_example.json",
    }
    run = cases.store(shared).get_model_version("ulstm", "1").run_id
    assert (folder / "data/best.ckpt").read_bytes() == (shared / "checkpoints" / run / "best.ckpt").read_bytes()


def test_requirements_are_versions_that_an_index_has(shared: Path) -> None:
    lines = (files(shared, "ulstm") / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith("lightning-cells==")
    assert {"torch", "lightning", "numpy", "mlflow"} <= {line.split("==")[0] for line in lines}
    assert not any(sign in line for line in lines for sign in ("+", "@", "file:", "pytest"))


@pytest.mark.parametrize("name", MODEL)
def test_answers_what_track_writes(
    shared: Path, name: str, tmp_path: Path, unpickled: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    pixels = cases.frames()
    model = mlflow.pyfunc.load_model(MODEL[name])
    answer = model.predict(pixels.astype(np.float32))
    assert unpickled == []
    words = ["track", cases.write(tmp_path / "frames", pixels), "--model", MODEL[name], "--out", tmp_path / "RES"]
    assert main([*map(str, words), "--device", "cpu"]) == 0
    masks, tracks = cases.read(tmp_path / "RES")
    assert masks.any()
    np.testing.assert_array_equal(answer["labels"], masks)
    np.testing.assert_array_equal(answer["tracks"], tracks)
    assert answer["labels"].dtype == answer["tracks"].dtype == np.int32
    np.testing.assert_array_equal(model.predict({"frames": pixels.astype(np.float32)})["labels"], masks)


def test_one_frame(shared: Path) -> None:
    pixels = cases.frames(1).astype(np.float32)
    answer = mlflow.pyfunc.load_model(MODEL["ulstm"]).predict(pixels)
    assert answer["labels"].shape == pixels.shape
    seen = np.unique(answer["labels"][answer["labels"] > 0])
    np.testing.assert_array_equal(answer["tracks"], [[label, 0, 0, 0] for label in seen])


def test_volumes_plane_after_plane(shared: Path) -> None:
    pixels = cases.frames(6).astype(np.float32)
    model = mlflow.pyfunc.load_model(MODEL["ulstm"])
    answer = model.predict(pixels, params={"planes": 3, "voxel": [4.0, 1.0, 1.0]})
    assert answer["labels"].shape == pixels.shape
    tracker = Tracker(files(shared, "ulstm") / "data/best.ckpt", "cpu")
    expected = tracker.track(pixels.reshape(2, 3, *pixels.shape[1:]), progress=False, voxel=(4, 1, 1))
    np.testing.assert_array_equal(answer["labels"].reshape(expected.labels.shape), expected.labels)
    with pytest.raises(MlflowException, match="6 frames are no volumes of 4"):
        model.predict(pixels, params={"planes": 4})


def test_nothing_to_see(shared: Path) -> None:
    answer = served_model.ServedModel(files(shared, "rshn") / "data/best.ckpt").predict(
        {"frames": np.zeros((1, 1, 1), np.float32)}
    )
    assert answer["tracks"].shape == (len(np.unique(answer["labels"])) - (0 in answer["labels"]), 4)


REFUSED = {
    "empty": (np.zeros((2, 0, 5)), "empty (2 x 0 x 5)"),
    "no frames": (np.zeros((0, 8, 8)), "empty"),
    "NaN": (np.full((1, 8, 8), np.nan), "not finite"),
    "infinite": (np.full((1, 8, 8), np.inf), "not finite"),
    "negative": (np.full((1, 8, 8), -1), "hold -1: give whole numbers from 0 to 65535"),
    "bright": (np.full((1, 8, 8), 65536), "hold 65536:"),
    "normalised": (np.full((1, 8, 8), 0.25), "hold 0.25:"),
    "colours": (np.zeros((64, 64, 3)), "image with channels"),
    "large": (np.broadcast_to(np.float32(1), (65, 512, 512)), "at most 16777216"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_frames_in_one_line(shared: Path, case: str) -> None:
    pixels, expected = REFUSED[case]
    model = mlflow.pyfunc.load_model(MODEL["ulstm"])
    with pytest.raises(MlflowException) as refusal:
        model.predict(pixels.astype(np.float32))
    assert refusal.value.get_http_status_code() == 400
    refusal.value.message = "what a server makes of it, with all the frames"
    message = json.loads(refusal.value.serialize_as_json())["message"]
    assert message.startswith("frames: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.float32), np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8), np.uint8)],
    ids=["one frame", "colours", "another type"],
)
def test_the_signature_refuses_other_shapes_and_types(shared: Path, pixels: np.ndarray) -> None:
    with pytest.raises(MlflowException, match="schema") as refusal:
        mlflow.pyfunc.load_model(MODEL["ulstm"]).predict(pixels)
    assert refusal.value.get_http_status_code() == 400


def test_16_bit_frames_are_whole(shared: Path) -> None:
    extremes = np.array([[[0, 65535]]], np.float32)
    checked = check_frames(extremes)
    assert checked.dtype == np.uint16
    np.testing.assert_array_equal(checked, extremes)


def test_the_version_says_where_it_comes_from(shared: Path) -> None:
    client = cases.store(shared)
    version = client.get_model_version("ulstm", "1")
    run = client.get_run(version.run_id)
    assert run.info.run_name == "ulstm"
    assert run.info.status == "FINISHED"
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert version.source == f"models:/{output.model_id}"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "ulstm", "version": "1"}]
    assert logged.status == "READY"
    assert version.tags["method"] == "ULSTM"
    assert version.tags["data.root"] == "simulated"
    assert version.tags["val/SEG"] == "0.2"  # of the checkpoint, not the last
    assert "SEG 0.2" in version.description
    described = yaml.safe_load((files(shared, "ulstm") / "MLmodel").read_text())
    assert described["run_id"] == version.run_id


def test_the_next_version(own: Path) -> None:
    run = cases.add_run(own, "another")
    assert register(run, "ulstm") == Registered("ulstm", "2", "ULSTM", run, f"sqlite:///{own / 'mlflow.db'}")
    with registered_checkpoint("models:/ulstm/latest") as latest:
        assert latest.read_bytes() == (own / "checkpoints" / run / "best.ckpt").read_bytes()
    assert not latest.exists()
    with registered_checkpoint("models:/ulstm/1") as first:
        assert first.read_bytes() == (files(own, "ulstm") / "data/best.ckpt").read_bytes()


def test_alias(own: Path) -> None:
    cases.store(own).set_registered_model_alias("rshn", "good", "1")
    with registered_checkpoint("models:/rshn@good") as checkpoint:
        assert checkpoint.read_bytes() == (files(own, "rshn") / "data/best.ckpt").read_bytes()


def test_a_store_that_is_not_the_default_one(own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run = cases.add_run(own, "another")
    assert register(run, "ulstm").version == "2"
    assert list(tmp_path.iterdir()) == []  # where MLflow would put a store by itself
    with registered_checkpoint("models:/ulstm/2") as checkpoint:
        assert checkpoint.is_file()


@pytest.mark.parametrize(
    "name", ["", " ", "../../etc", "a/b", "a:b", "a@b", "<script>", "a b", "-a", ".", "..", "a" * 101, "a\nb", "é"]
)
def test_names(own: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name of a model") as refusal:
        register("ulstm", name)
    assert "letters" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_runs_that_are_not_there(own: Path) -> None:
    for run in ("nobody", "0" * 32, "a'b\"c", "it's"):
        with pytest.raises(InputError, match="run"):
            register(run, "new")
    other = cases.add_run(own, "ulstm")
    with pytest.raises(InputError, match=f"several have this name.*{other}"):
        register("ulstm", "new")
    (own / "checkpoints" / other / "best.ckpt").unlink()
    with pytest.raises(InputError, match=r"no checkpoint here .*--checkpoint"):
        register(other, "new")


def test_a_checkpoint_of_another_place(own: Path, tmp_path: Path) -> None:
    run = cases.add_run(own, "another")
    elsewhere = tmp_path / "epoch=3.ckpt"
    (own / "checkpoints" / run / "best.ckpt").rename(elsewhere)
    assert register(run, "elsewhere", elsewhere).version == "1"
    with registered_checkpoint("models:/elsewhere/1") as checkpoint:
        assert checkpoint.read_bytes() == elsewhere.read_bytes()
    foreign = seeing.save(seeing.methods()["rshn"], tmp_path / "rshn.ckpt")
    with pytest.raises(InputError, match="is of RSHN, the run of ULSTM"):
        register(run, "elsewhere", foreign)
    with pytest.raises(InputError, match=f"{tmp_path}/none.ckpt"):
        register(run, "elsewhere", tmp_path / "none.ckpt")


def test_a_run_that_keeps_its_checkpoints_elsewhere(own: Path, tmp_path: Path) -> None:
    run = cases.add_run(own, "another")
    (own / "checkpoints" / run).rename(tmp_path / "mine")
    (own / "runs" / run).mkdir(parents=True)
    (own / "runs" / run / "config.yaml").write_text(yaml.safe_dump({"checkpoint": {"folder": str(tmp_path / "mine")}}))
    assert register("another", "elsewhere").run == run


def test_a_payload_is_not_registered(own: Path, tmp_path: Path) -> None:
    run = cases.add_run(own, "hostile")
    cases.poison(own / "checkpoints" / run / "best.ckpt", tmp_path / "executed")
    with pytest.raises(InputError, match=f"checkpoints/{run}/best.ckpt holds more than weights"):
        register(run, "hostile")
    assert not (tmp_path / "executed").exists()
    assert cases.store(own).search_model_versions("name = 'hostile'") == []


def test_a_payload_in_the_registry_is_not_executed(
    own: Path, tmp_path: Path, unpickled: list, capfd: pytest.CaptureFixture[str]
) -> None:
    run = cases.add_run(own, "hostile")
    register(run, "hostile")
    cases.poison(files(own, "hostile") / "data/best.ckpt", tmp_path / "executed")
    with pytest.raises(InputError, match="holds more than weights"):
        mlflow.pyfunc.load_model("models:/hostile/1")
    words = ["track", cases.write(tmp_path / "f", cases.frames(2)), "--out", tmp_path / "R", "--device", "cpu"]
    capfd.readouterr()
    assert main([*map(str, words), "--model", "models:/hostile/1"]) == 2
    said = capfd.readouterr().err
    assert said.startswith("lightning-cells track: error: models:/hostile/1 holds more than weights")
    assert said.count("\n") == 1
    assert not (tmp_path / "executed").exists()
    assert unpickled == []


def test_a_store_that_fails_keeps_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cases.add_run(own, "another")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(registry.MlflowClient, "create_model_version", fail)
    with pytest.raises(InputError, match="gone"):
        register(run, "new")
    client = cases.store(own)
    experiment = client.get_run(run).info.experiment_id
    assert [model for model in client.search_logged_models([experiment]) if model.name == "new"] == []
    assert client.get_run(run).outputs is None or not client.get_run(run).outputs.model_outputs


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("models:/nobody/1", "not found.*check the name"),
        ("models:/nobody/latest", "no such model"),
        ("models:/ulstm/99", "not found"),
        ("models:/ulstm@nobody", "not found"),
        ("models:/ulstm", "no address"),
        ("models:/ulstm/0", "no address"),
        ("models:/ulstm/1/../../x", "no address"),
        ("runs:/ulstm/1", "no address"),
        ("", "no address"),
        ("models:/it's/latest", "models:/it's/latest"),
    ],
)
def test_models_that_are_not_there(shared: Path, model: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as refusal, registered_checkpoint(model):
        pass
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "sqlite:////dev/null/mlflow.db", "postgresql://nobody.invalid/x"]
)
def test_a_store_that_is_away(shared: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    with pytest.raises(InputError) as refusal, registered_checkpoint("models:/ulstm/1"):
        pass
    assert "\n" not in str(refusal.value)
    assert uri in str(refusal.value)


def test_a_model_that_is_not_ours(own: Path, tmp_path: Path) -> None:
    client = cases.store(own)
    for name, description in (("code", {"loader_module": "os", "data": "data/best.ckpt"}), ("odd", None)):
        place = tmp_path / name
        shutil.copytree(files(own, "ulstm"), place)
        (place / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": description}}))
        client.create_registered_model(name)
        client.create_model_version(name, place.as_uri())
        with pytest.raises(InputError, match="not made by lightning-cells"), registered_checkpoint(f"models:/{name}/1"):
            pass


def test_a_model_whose_files_are_gone(own: Path) -> None:
    run = cases.add_run(own, "another")
    register(run, "gone")
    (files(own, "gone") / "data/best.ckpt").unlink()
    with pytest.raises(InputError, match="models:/gone/1"), registered_checkpoint("models:/gone/1"):
        pass
    shutil.rmtree(files(own, "gone"))
    with pytest.raises(InputError, match="models:/gone/1"), registered_checkpoint("models:/gone/1"):
        pass
