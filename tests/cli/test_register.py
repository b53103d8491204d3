"""Registering from the command line, tracking with what was registered, and a real server of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import registry_cases as cases
import torch
from cli_cases import complaint, say

from lightning_cells import tracking as engine
from lightning_cells.data.frames import Frames
from lightning_cells.loggers.registry import registered_checkpoint
from lightning_cells.methods import ULSTM

Capture = pytest.CaptureFixture[str]
Ask = Callable[[bytes], tuple[int, dict]]
LIMIT = 180  # seconds for a server to start on a busy machine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two runs. Not to be written to but by registering."""
    folder = tmp_path_factory.mktemp("made")
    cases.add_run(folder, "first run")
    torch.manual_seed(1)
    cases.add_run(folder, "second", ULSTM(channels=(4, 6), lstm_kernel=3))
    return folder


@pytest.fixture
def shared(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(made))
    return made


def checkpoint_of(home: Path, run: str) -> Path:
    (found,) = (r.info.run_id for r in cases.store(home).search_runs(["1"]) if r.info.run_name == run)
    return home / "checkpoints" / found / "best.ckpt"


def test_register_and_track(shared: Path, tmp_path: Path, capfd: Capture) -> None:
    said = say(capfd, "register", "first run", "nuclei")
    assert said.status == 0, said.err
    assert said.err == ""
    assert "ULSTM of run " in said.out
    assert "version 1 of nuclei" in said.out
    assert "lightning-cells track FRAMES --model models:/nuclei/1 --out DIR" in said.out
    assert f"MLFLOW_TRACKING_URI=sqlite:///{shared}/mlflow.db mlflow models serve -m models:/nuclei/1" in said.out
    checkpoint = checkpoint_of(shared, "first run")
    words = ["track", cases.write(tmp_path / "frames", cases.frames()), "--device", "cpu"]
    assert say(capfd, *words, "--model", "models:/nuclei/1", "--out", tmp_path / "a").status == 0
    assert say(capfd, *words, "--checkpoint", checkpoint, "--out", tmp_path / "b").status == 0
    assert cases.contents(tmp_path / "a") == cases.contents(tmp_path / "b")
    assert cases.read(tmp_path / "a")[0].any()
    assert "version 2 of nuclei" in say(capfd, "register", checkpoint.parent.name, "nuclei").out


def test_mistakes(shared: Path, tmp_path: Path, capfd: Capture) -> None:
    assert "no name of a model" in complaint(capfd, "register", "first run", "a/b")
    assert "run 'nobody'" in complaint(capfd, "register", "nobody", "nuclei")
    assert "none.ckpt" in complaint(capfd, "register", "second", "nuclei", "--checkpoint", tmp_path / "none.ckpt")
    words = ["track", cases.write(tmp_path / "frames", cases.frames(1)), "--out", tmp_path / "out"]
    line = complaint(capfd, *words, "--model", "models:/nuclei/1", "--checkpoint", checkpoint_of(shared, "second"))
    assert "not allowed with" in line
    assert "models:/nobody/3" in complaint(capfd, *words, "--model", "models:/nobody/3")
    assert "is no address" in complaint(capfd, *words, "--model", "models:/nuclei")
    assert not (tmp_path / "out").exists()


def test_tracking_goes_on_with_the_same_model_only(
    shared: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run, name in (("first run", "one"), ("second", "two")):
        assert say(capfd, "register", run, name).status == 0
    source, out = cases.write(tmp_path / "frames", cases.frames(20)), tmp_path / "out"
    read, seen = Frames.read, []

    def broken(self: Frames, index: int) -> np.ndarray:
        if index == 17:
            raise KeyboardInterrupt
        return read(self, index)

    def interrupt() -> None:
        with monkeypatch.context() as patch, registered_checkpoint("models:/one/1") as checkpoint:
            patch.setattr(Frames, "read", broken)
            with pytest.raises(KeyboardInterrupt):
                engine.Tracker(checkpoint, "cpu").track_to(source, out, interval=0.0)

    monkeypatch.setattr(Frames, "read", lambda self, index: seen.append(index) or read(self, index))
    for model, expected in (("models:/one/1", range(16, 20)), ("models:/two/1", range(20))):
        interrupt()
        seen.clear()
        assert say(capfd, "track", source, "--model", model, "--out", out, "--device", "cpu").status == 0
        assert seen == list(expected)


@pytest.fixture
def server(shared: Path, tmp_path: Path, capfd: Capture) -> Iterator[Ask]:
    """``mlflow models serve``, to be asked."""
    assert say(capfd, "register", "first run", "served").status == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served/1", "--env-manager", "local"]
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{shared / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # MLflow calls uvicorn by name
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env=os.environ | variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

    def ask(body: bytes) -> tuple[int, dict]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    try:
        until = time.monotonic() + LIMIT
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    pytest.fail(log.read_text()[-2000:])
                time.sleep(0.2)
        yield ask
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_server(server: Ask, shared: Path, tmp_path: Path, capfd: Capture) -> None:
    pixels = cases.frames(3)
    words = ["track", cases.write(tmp_path / "frames", pixels), "--model", "models:/served/1", "--device", "cpu"]
    assert say(capfd, *words, "--out", tmp_path / "RES").status == 0
    masks, tracks = cases.read(tmp_path / "RES")
    assert masks.any()
    named = {"inputs": {"frames": pixels.tolist()}}
    rows = {"instances": pixels.tolist()}
    for body in ({"inputs": pixels.tolist()}, named, rows):
        status, answer = server(json.dumps(body).encode())
        assert status == 200, answer
        assert answer.keys() == {"predictions"}
        np.testing.assert_array_equal(answer["predictions"]["labels"], masks)
        np.testing.assert_array_equal(answer["predictions"]["tracks"], tracks)
    status, answer = server(json.dumps({"inputs": [pixels[0].tolist()]}).encode())
    assert status == 200
    assert np.shape(answer["predictions"]["labels"]) == (1, *pixels.shape[1:])
    for wrong, expected in {
        '{"inputs": [[[-1]]]}': "frames: hold -1",
        '{"inputs": [[[NaN]]]}': "frames: hold values that are not finite",
        '{"inputs": [[[null]]]}': "frames: hold values that are not finite",
        '{"inputs": [[[]]]}': "frames: are empty",
        '{"inputs": [[["a"]]]}': "could not convert",
        '{"inputs": [[[1, 2], [3]]]}': "inhomogeneous shape",
        '{"inputs": [[1, 2], [3, 4]]}': "does not match expected shape (-1, -1, -1)",
        '{"pictures": [[[1]]]}': "must be a JSON dictionary",
        "garbage": "valid JSON",
    }.items():
        status, answer = server(wrong.encode())
        assert status == 400, wrong
        assert expected in answer["message"]
        assert "stack_trace" not in answer
        assert "Traceback" not in json.dumps(answer)
        if expected.startswith("frames: "):
            assert "\n" not in answer["message"]
            assert answer["message"].startswith(expected)
    assert server(json.dumps(named).encode())[0] == 200
