"""``lightning-cells compare``: where the page goes, and what is refused."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from lightning_cells.cli import main
from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri


@pytest.fixture
def client() -> MlflowClient:
    return open_store(tracking_uri())


def make(client: MlflowClient, *names: str) -> list[str]:
    place = open_experiment(client, "lightning_cells").experiment_id
    return [client.create_run(place, run_name=name).info.run_id for name in names]


def test_one_page_is_written_in_the_output_folder(
    client: MlflowClient, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = make(client, "../../../escape", "<b>")
    assert main(["compare", "../../../escape", "<b>"]) == 0
    (written,) = home.rglob("*.html")
    assert written == home / "comparisons" / f"{ids[0][:8]}-{ids[1][:8]}.html"
    assert f"Open {written.as_uri()}" in capsys.readouterr().out
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_or_where_the_user_wants_it(client: MlflowClient, tmp_path: Path) -> None:
    ids = make(client, "a", "b")
    out = tmp_path / "new folder" / "page.html"
    assert main(["compare", *ids, "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a"], "two or more"),
        (["a", "nobody"], "has no run 'nobody'"),
        (["a", "b", "--out", "page.txt"], "--out page.txt"),
        (["a", "b", "--out", "."], "--out ."),
        ([], "RUN"),
    ],
)
def test_mistakes_are_told_in_one_line(
    client: MlflowClient, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(client, "a", "b")
    assert main(["compare", *words]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
