"""The dashboard and its pages as a person sees them: a real server, a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from lightning_cells.data.simulate import simulate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]

LIMIT = 180  # seconds for a process to be done, on a busy machine
NAMES = ("short", "../../<img src=x onerror=alert(1)>")
SHORT = ["--data.train", "['01']", "--data.val", "['02']", "--data.test", "['02']", "--data.clip_length", "2"]
SHORT += ["--data.num_workers", "0", "--data.augmentation.crop", "32", "--data.batches_per_epoch", "2"]
SHORT += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"]
SHORT += ["--trainer.enable_model_summary", "false", "--trainer.num_sanity_val_steps", "0"]


class Store(NamedTuple):
    """Two trainings with their tests, and the dashboard on them."""

    home: Path
    printed: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")

    def address(self, kind: str) -> str:
        return re.search(rf"lightning_cells, in {kind} +(\S+)", self.printed)[1]

    def run_id(self, stage: str, number: int = 0) -> str:
        experiment = self.client.get_experiment_by_name("lightning_cells").experiment_id
        order = ["attributes.start_time ASC"]
        return self.client.search_runs([experiment], f"tags.stage = '{stage}'", order_by=order)[number].info.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("dashboard")
    videos = simulate(folder / "nuclei", sequences=2, frames=6, size=(48, 48), seed=5)
    environment = {**os.environ, "LIGHTNING_CELLS_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    script = folder / "trainings.py"  # in one process: most of the time goes into imports
    script.write_text(f"""
from pathlib import Path
from lightning_cells.cli import main
for epochs, name in enumerate({NAMES!r}, start=1):
    words = [*{SHORT!r}, "--data.root", {str(videos)!r}]
    logger = ["--trainer.logger.class_path", "lightning_cells.loggers.mlflow.RunLogger"]
    logger += ["--trainer.logger.init_args.run_name", name]
    before = set(Path("home/checkpoints").glob("*"))
    fit = ["fit", "-c", "conf/method/ulstm/tiny.yaml", *words, *logger, "--trainer.max_epochs", str(epochs)]
    assert main(fit) == 0
    (new,) = set(Path("home/checkpoints").glob("*")) - before
    assert main(["test", *words, "--ckpt_path", str(new / "best.ckpt")]) == 0
""")
    done = subprocess.run([sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_cells", "dashboard", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", log)
        while "Stop with" not in log.read_text():  # told when the server answers
            time.sleep(0.1)
        yield Store(folder / "home", log.read_text())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as kit:
        started = kit.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: "playwright.Browser") -> Iterator["playwright.Page"]:
    """A window that stays on this machine, with the assistant closed that MLflow opens in a new browser."""
    window = browser.new_page(viewport={"width": 1700, "height": 1000})
    window.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    window.set_default_timeout(LIMIT * 1000)
    said: list[str] = []
    window.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    yield window
    window.close()
    assert said == [], "a script of a run's name ran"


def test_the_list_has_the_columns_of_the_view(store: Store, page: "playwright.Page", tmp_path: Path) -> None:
    page.goto(store.address("columns"))
    for name in NAMES:
        playwright.expect(page.get_by_role("link", name=name, exact=True)).to_be_visible(timeout=LIMIT * 1000)
    page.screenshot(path=tmp_path / "list.png")
    for column in ("test/SEG", "test/DET", "test/TRA", "val/SEG", "method", "preset", "data.root", "stage"):
        playwright.expect(page.get_by_test_id(f"sort-header-{column}")).to_be_visible()
    assert page.get_by_test_id("sort-header-Source").count() == 0, "one of MLflow's own"


def test_charts_of_seg_come_first_and_then_the_pictures_of_both_runs(
    store: Store, page: "playwright.Page", tmp_path: Path
) -> None:
    page.goto(store.address("charts"))
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="val/SEG").first
    playwright.expect(card.locator(".js-line").first).to_be_attached(timeout=LIMIT * 1000)
    page.screenshot(path=tmp_path / "charts.png")
    page.set_viewport_size({"width": 1700, "height": 2600})  # cards outside of the window are not drawn
    pictures = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="test/frame_1").first
    images = pictures.locator("img")
    playwright.expect(images).to_have_count(2, timeout=LIMIT * 1000)
    for place in range(2):
        images.nth(place).evaluate("image => image.decode()")
        assert images.nth(place).evaluate("image => image.naturalWidth") > 100
    page.screenshot(path=tmp_path / "pictures.png")


def test_the_report_of_a_test_is_shown_in_its_run_and_by_itself(
    store: Store, page: "playwright.Page", tmp_path: Path
) -> None:
    run = store.run_id("test")
    server = store.address("columns").partition("#")[0]
    experiment = store.client.get_run(run).info.experiment_id
    page.goto(f"{server}#/experiments/{experiment}/runs/{run}/artifacts/report.html")
    inside = page.frame_locator("iframe")
    playwright.expect(inside.locator("h1")).to_be_visible(timeout=LIMIT * 1000)
    page.screenshot(path=tmp_path / "artifact.png")
    report = store.client.download_artifacts(run, "report.html", str(tmp_path))
    _opened_alone(page, Path(report))
    page.set_viewport_size({"width": 800, "height": 900})  # narrower than the pictures of a frame side by side
    frame = page.locator(".full img").first
    assert frame.evaluate("image => image.clientWidth") < frame.evaluate("image => image.naturalWidth")
    frame.click()
    assert frame.evaluate("image => image.clientWidth") == frame.evaluate("image => image.naturalWidth")
    player = page.locator(".player").first
    player.get_by_role("button", name="Pause").click()
    player.get_by_role("slider").fill("3")
    playwright.expect(player.locator("img").nth(3)).to_be_visible()
    playwright.expect(player.locator("img").nth(2)).to_be_hidden()
    table = page.locator("table:has(th:text-is('IoU'))")
    areas = "table => [...table.tBodies[0].rows].map(row => Number(row.cells[4].textContent))"
    for falling in (True, False):
        table.locator("th:text-is('pixels')").click()
        found = table.evaluate(areas)
        assert found == sorted(found, reverse=falling)


def test_the_comparison_opens_without_network(store: Store, page: "playwright.Page", tmp_path: Path) -> None:
    out = tmp_path / "comparison.html"
    environment = {**os.environ, "LIGHTNING_CELLS_HOME": str(store.home)}
    command = [sys.executable, "-m", "lightning_cells", "compare", *NAMES, "--out", str(out)]
    subprocess.run(command, env=environment, check=True, timeout=LIMIT)
    _opened_alone(page, out)
    playwright.expect(page.get_by_role("cell", name="trainer.max_epochs", exact=True)).to_be_visible()
    for heading in ("Options that differ", "Measures of the tests", "Who beats whom", "Curves", "The same frames"):
        playwright.expect(page.get_by_role("heading", name=heading)).to_be_visible()
    page.screenshot(path=tmp_path / "comparison.png", full_page=True)


def _opened_alone(page: "playwright.Page", file: Path) -> None:
    """Opens a file; nothing is asked of the network, and all its pictures are there."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert widths
    assert all(widths)


def _wait(url: str, log: Path) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(log.read_text()[-2000:])
