import base64
import hashlib
import html
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import seeing
from PIL import Image
from run_cases import QUIET, client, the_run

from lightning_cells.callbacks import test_report as module
from lightning_cells.callbacks.findings import Findings, VideoFindings
from lightning_cells.callbacks.report_page import About, report_page
from lightning_cells.callbacks.test_report import Report
from lightning_cells.cli import main
from lightning_cells.networks.ulstm import ULSTM

NAME = "../../<script>alert('run')</script>"
FOLDER = "a <b>bold</b> set"


@pytest.fixture(scope="module")
def tested(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of one test, of two videos by a network that sees what is bright, with hostile names."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("given")
    version = {"pytorch-lightning_version": lightning.__version__}
    checkpoint = seeing.save(seeing.methods()["ulstm"], folder / "bright.ckpt", **version)
    shutil.copytree(simulated, folder / FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ULSTM, "forward", seeing._classes)
        patch.setenv("LIGHTNING_CELLS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        words = ["--data.root", str(folder / FOLDER), "--data.test", "['02', '03']", "--trainer.logger.run_name", NAME]
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*no report.*")
            assert main(["test", *QUIET, "--ckpt_path", str(checkpoint), *words]) == 0
        yield home


def artifact(home: Path, name: str) -> Path:
    return Path(client(home).download_artifacts(the_run(home).info.run_id, name))


def test_what_a_test_leaves(tested):
    store, run = client(tested), the_run(tested).info.run_id

    def names(folder: str = "") -> list[str]:
        found = store.list_artifacts(run, folder)
        return [name for f in found for name in (names(f.path) if f.is_dir else [f.path])]

    found = {name for name in names() if name.startswith(("test/", "report"))}
    frames = {name for name in found if name.startswith("test/frames/")}
    videos = {f"test/{kind}" for name in ("02", "03") for kind in (f"tracks/{name}.gif", f"lineage/{name}.png")}
    assert found - frames == {"report.html", "test/cells.json", *videos}
    assert len(frames) == 12
    assert {Path(name).parent.name for name in frames} == {"02", "03"}
    images = {Path(name).name.split("+")[0] for name in names("images")}
    videos = {f"test~{kind}~{name}" for name in ("02", "03") for kind in ("tracks", "lineage")}
    frames = [*(f"test~frame_{n}" for n in (1, 2, 3)), *(f"test~worst_{n}" for n in (1, 2, 3, 4))]
    assert images == {*frames, *videos}


def test_the_table_holds_the_measures(tested):
    table = json.loads(artifact(tested, "test/cells.json").read_text())
    assert table["columns"] == ["video", "frame", "truth_label", "label", "area", "iou", "kind"]
    true = [row for row in table["data"] if row[2]]
    measures = the_run(tested).data.metrics
    assert np.mean([row[5] for row in true]) == pytest.approx(measures["test/SEG"], abs=1e-5)
    assert sum(row[5] > 0.5 for row in true) / len(true) == pytest.approx(measures["test/R"], abs=1e-5)
    assert {row[0] for row in table["data"]} == {"02", "03"}
    assert len({(row[0], row[1], row[2]) for row in true}) == len(true)


def test_the_pictures_are_what_they_say(tested):
    with Image.open(artifact(tested, "test/tracks/02.gif")) as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (12, (320, 320), 0)
    strips = list(artifact(tested, "test/frames").rglob("*.png"))
    for path in strips:
        assert Image.open(path).size == (4 * 320 + 3 * 8, 320)
        assert 0 <= int(path.stem) < 12
    assert np.ptp(np.asarray(Image.open(artifact(tested, "test/lineage/03.png")))) > 200


def test_the_report_needs_nothing_but_itself(tested):
    text = artifact(tested, "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.lower().count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text), "this one alone may run"
    assert "javascript" not in text.lower()
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]*)", text)
    assert addresses
    assert {address.split(";")[0] for address in addresses} == {"data:image/png", "data:image/webp"}
    assert "default-src 'none'" in text
    assert len(text) < 4_000_000


def test_the_report_tells_the_whole_story(tested):
    text = html.unescape(
        re.sub("<[^>]*>", " ", re.sub(r"data:image[^\"]*", "", artifact(tested, "report.html").read_text()))
    )
    run = the_run(tested)
    for said in (NAME, FOLDER, run.info.run_id, "ULSTM", "Worst frames first", "Divisions missed", "spurious"):
        assert said in text
    assert f"SEG {run.data.metrics['test/SEG']:.3f}" in " ".join(text.split())
    assert f"NS {run.data.metrics['test/NS']:.0f}" in " ".join(text.split())
    assert "lightning-cells test" in text
    assert "\"['02', '03']\"" in text  # in the command
    assert "normalisation: percentile" in text  # in the configuration


def test_the_page_lies_under_the_run_and_nowhere_else(tested):
    run = the_run(tested).info.run_id
    pages = [path.relative_to(tested) for path in tested.rglob("report.html")]
    assert sorted(map(str, pages)) == [f"artifacts/{run}/artifacts/report.html", f"reports/{run}/report.html"]
    assert (tested / pages[0]).read_bytes() == (tested / pages[1]).read_bytes()
    assert not list(tested.rglob("*script*"))


EVIL = "\"'><img src=x onerror=alert(1)><script>"


def test_all_that_others_wrote_is_escaped(tmp_path):
    findings = Findings(tmp_path)
    findings.videos.append(VideoFindings(EVIL))
    about = About(EVIL, EVIL, {EVIL: 1.0, "SEG": float("nan")}, {EVIL: EVIL}, EVIL, EVIL, [EVIL], {EVIL: EVIL})
    text = report_page(about, findings, [])
    assert text.count("<script") == 1
    assert "<img" not in text
    assert text.count("&lt;script&gt;") >= 10
    assert "nan" not in text
    assert "No frame has segmentation truth" in text


def trainer(**changes):
    return SimpleNamespace(**{"is_global_zero": True, "loggers": ["one"], "global_step": 3, **changes})


@pytest.fixture
def _any_logger(monkeypatch):
    monkeypatch.setattr(module, "mlflow_loggers", lambda trainer: trainer.loggers)


@pytest.mark.usefixtures("_any_logger")
def test_a_failure_is_one_warning_and_the_test_goes_on():
    report = Report()
    report.on_test_epoch_start(trainer(), None)
    folder = Path(report._folder.name)
    with pytest.warns(UserWarning, match="no report of this test: AssertionError"):
        report.on_test_batch_end(trainer(), None, None, None, 0)
    assert not folder.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.on_test_batch_end(trainer(), None, None, None, 1)
        report.on_test_end(trainer(), None)
    report.on_test_epoch_start(trainer(), None)  # another test is another chance
    with pytest.warns(UserWarning, match="no report of this test"):
        report.on_test_end(trainer(), None)


@pytest.mark.usefixtures("_any_logger")
@pytest.mark.parametrize("changes", [{"is_global_zero": False}, {"loggers": []}], ids=str)
def test_other_processes_and_tests_without_mlflow_do_nothing(changes):
    report = Report()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.on_test_epoch_start(trainer(**changes), None)
        report.on_test_batch_end(trainer(**changes), None, None, None, 0)
        report.on_test_end(trainer(**changes), None)
    assert report._folder is None


@pytest.mark.usefixtures("_any_logger")
def test_nothing_is_left_of_a_test_that_ends_with_an_error():
    report = Report()
    report.on_test_epoch_start(trainer(), None)
    folder = Path(report._folder.name)
    assert folder.is_dir()
    report.on_exception(trainer(), None, KeyboardInterrupt())
    assert not folder.exists()


def test_videos_of_other_processes_are_spoken_of():
    findings = SimpleNamespace(cells_left_out=7)
    notes = module._notes(SimpleNamespace(world_size=2), findings)
    assert "first of 2 processes" in notes[0]
    assert notes[1].startswith("7 cells")
    assert module._notes(SimpleNamespace(world_size=1), SimpleNamespace(cells_left_out=0)) == []
