"""What ``lightning-cells dashboard`` prints before the server starts; `tests/browser` looks at its pages."""

import re
import socket

import pytest

from lightning_cells.cli import main
from lightning_cells.cli.dashboard import _show
from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that would take over."""
    words: list[str] = []
    monkeypatch.setattr("os.execve", lambda program, command, variables: words.extend(command))
    monkeypatch.setattr("lightning_cells.cli.dashboard._when_it_answers", lambda health, lines, opens: _show(lines))
    return words


def test_columns_and_charts_of_each_experiment_have_an_address(
    started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    client = open_store(tracking_uri())
    client.create_run(open_experiment(client, "folds").experiment_id, tags={"method": "ULSTM"})
    assert main(["dashboard", "--port", "54999"]) == 0
    printed = capsys.readouterr().out
    for name in ("lightning_cells", "folds"):
        place = client.get_experiment_by_name(name)
        for kind, mode in (("columns", "TABLE"), ("charts", "CHART")):
            (found,) = re.findall(rf"{name}, in {kind} +(\S+)", printed)
            assert found.startswith(f"http://127.0.0.1:54999/#/experiments/{place.experiment_id}/runs?")
            assert f"compareRunsMode={mode}" in found
        assert any(key.startswith("mlflow.sharedViewState.") for key in place.tags)
    assert started[started.index("--host") + 1] == "127.0.0.1"


def test_the_password_of_a_store_is_nowhere_to_be_seen(
    started: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_cells.cli.dashboard._prepare", lambda uri, server: [])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db.example/runs")
    assert main(["dashboard", "--port", "54999"]) == 0
    assert "Runs of postgresql://me:***@db.example/runs" in capsys.readouterr().out
    assert started
    assert not any("secret" in word for word in started)


def test_nothing_of_the_environment_moves_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ["MLFLOW_GUNICORN_OPTS", "GUNICORN_CMD_ARGS", "MLFLOW_UVICORN_OPTS", "MLFLOW_WAITRESS_OPTS"]
    elsewhere += ["UVICORN_HOST", "UVICORN_PORT", "UVICORN_UDS", "UVICORN_FD", "UVICORN_WORKERS", "WEB_CONCURRENCY"]
    for name in [*elsewhere, "MLFLOW_HOST"]:
        monkeypatch.setenv(name, "--bind 0.0.0.0:54999")
    monkeypatch.setenv("MLFLOW_KEPT", "yes")
    passed: dict[str, str] = {}
    monkeypatch.setattr("os.execve", lambda program, command, variables: passed.update(variables))
    assert main(["dashboard", "--port", "54999"]) == 0
    assert passed["MLFLOW_KEPT"] == "yes"
    assert not passed.keys() & {*elsewhere, "MLFLOW_HOST"}


def test_a_port_in_use_is_told_before_the_store_is_touched(
    started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["dashboard", "--port", str(port)]) == 2
    assert f"port {port} is not free" in capsys.readouterr().err
    assert started == []


def test_a_server_that_is_away_is_no_error(
    monkeypatch: pytest.MonkeyPatch, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["dashboard"]) == 0
    printed = capsys.readouterr().out
    assert f"open http://127.0.0.1:{port}" in printed
    assert "could not be prepared" in printed
    assert started == []
