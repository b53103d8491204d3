"""The password of a store is written down nowhere; who goes on with a run gives it again."""

from pathlib import Path

import pytest
from run_cases import words

from lightning_cells.cli import main
from lightning_cells.errors import InputError
from lightning_cells.loggers import outbox
from lightning_cells.loggers.run_folder import RunFolder

AWAY = "http://me:secret@127.0.0.1:9"
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("way", ["environment", "option"])
def test_what_a_training_leaves_holds_no_password(
    way: str, simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(outbox.Outbox.close, "__defaults__", (0.5,))
    more = ["--trainer.max_epochs", "1", "--pictures.samples", "1", "--system.interval", "0"]
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    else:
        more += ["--trainer.logger.init_args.uri", AWAY]
    assert main(words(simulated, *more)) == 0
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err
    assert "http://me:***@127.0.0.1:9" in said.err, "it is told that the store is away"
    left = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in left)
    assert [path for path in left if b"secret" in path.read_bytes()] == []
    (folder,) = (home / "runs").glob("local-*")
    known = RunFolder(folder.name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"its password is not kept: give the whole address"):
        known.uri  # noqa: B018
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    assert known.uri == AWAY
    assert main(["fit", "--resume", folder.name, "--trainer.max_epochs", "2"]) == 0
