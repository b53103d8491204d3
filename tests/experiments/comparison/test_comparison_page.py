"""The page: read as a browser's parser reads it."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from compare_cases import HOSTILE, a_test, store, strip, training
from PIL import Image

from lightning_cells.experiments.comparison.page import comparison_page
from lightning_cells.experiments.comparison.runs import select


class Page(HTMLParser):
    """Tags, words, and images of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th")
        if self._cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._cell:
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        """The other cells of the first row that begins so."""
        return next(row[1:] for row in self.rows if row and row[0] == first)

    def pictures(self) -> list[np.ndarray]:
        """Those of frames."""
        codes = [link.partition(",")[2] for link in self.links if link.startswith("data:image/webp")]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB")) for code in codes]


def page(*runs: str) -> Page:
    client = store()
    return Page(comparison_page(client, select(client, runs)))


def test_two_tested_trainings_are_compared() -> None:
    client = store()
    good, bad = training(client, "good", lr=0.003), training(client, "bad", lr=0.1)
    a_test(client, "t1", good, [0.9, 0.8, 0.85], grey=40, lr=0.003)
    a_test(client, "t2", bad, [0.6, 0.5, 0.0], grey=120, lr=0.1)
    found = page("good", "bad")
    assert found.row("model.optimization.lr") == ["0.003", "0.1"]
    options = [row[0] for row in found.rows if row]
    assert "trainer.max_epochs" not in options, "the same in both"
    assert options.count("model.optimization.lr") == 1, "the tests have it from the checkpoints"
    assert found.row("SEG")[0].startswith("0.850 [0.8")
    assert found.row("DET") == ["0.970", "0.970"]
    assert "good beats bad" in found.words
    assert "SEG 0.367 of 3 cells" in found.words
    assert all(link.startswith("data:image/") for link in found.links), "it needs nothing but itself"
    truth, first, second = (picture[10, [5, -5], 0].astype(int) for picture in found.pictures())
    assert truth == pytest.approx([40, 50], abs=3)
    assert first == pytest.approx([60, 70], abs=3)
    assert second == pytest.approx([140, 150], abs=3)


def test_options_that_not_all_runs_have_are_folded_away() -> None:
    client = store()
    first, second = training(client, "first", lr=0.003, gates=2), training(client, "second", lr=0.1)
    found = page(first, second)
    assert found.tags.index("details") > found.tags.index("table"), "what both have is first, and open"
    assert "1 that not all of the runs have" in found.words
    assert found.row("model.gates") == ["2", "not an option"]
    assert "details" not in page(first, training(client, "third", lr=0.1, gates=1)).tags


def test_what_is_missing_is_said() -> None:
    client = store()
    whole, bare = training(client, "whole"), training(client, "bare")
    a_test(client, "t", whole, [0.9, 0.8], grey=None)
    lonely = a_test(client, "lonely", "0" * 32, [0.9, 0.8], seg=0.1)
    found = page(whole, bare, lonely)
    for sentence in (
        "bare: no checkpoint of it was tested",
        "whole: its test kept no pictures",
        "lonely: the training whose checkpoint it tested is not in this store",
        "lonely: its table of cells does not hold the whole test",
    ):
        assert sentence in found.words
    assert "whole beats" not in found.words
    assert page(bare, training(client, "bare too")).words.count("no checkpoint of it was tested") == 2


def test_frames_of_other_data_do_not_stand_beside() -> None:
    client = store()
    runs = [a_test(client, name, "none", ious) for name, ious in (("A", [0.9] * 4), ("B", [0.8] * 4))]
    other = a_test(client, "C", "none", [0.7] * 4, video="02", grey=200)
    found = page(*runs, other)
    assert len(found.pictures()) == 3
    assert "C: it was tested on other data" in found.words
    assert "cannot be compared" in found.words


def test_nobody_writes_html_or_formulas_into_the_page() -> None:
    client = store()
    runs = [training(client, f"{HOSTILE}{number}", **{f"<b>{number}": HOSTILE}) for number in (1, 2)]
    for number, run in enumerate(runs):
        client.set_tag(run, "method", "<img src=x onerror=alert(1)>")
        client.log_metric(run, "val/SEG", 0.5, step=number)
        a_test(client, "t", run, [0.9, 0.8], video="<i>.._ video")
    found = page(*runs)
    assert not {"script", "b", "i"} & set(found.tags)
    assert found.tags.count("img") == len(found.links)
    assert HOSTILE in found.words


@pytest.mark.parametrize("count", [4, 9])
def test_more_runs_than_colours(count: int) -> None:
    client = store()
    names = [training(client, f"run {number}", lr=number) for number in range(count)]
    assert page(*names).row("model.optimization.lr") == [str(number) for number in range(count)]


def test_a_page_shows_a_few_frames_from_first_to_last() -> None:
    client = store()
    runs = [a_test(client, name, "none", [0.9, 0.8], grey=None) for name in "AB"]
    for number in range(20):
        for run in runs[: 2 if number < 19 else 1]:
            client.log_image(run, strip(60), artifact_file=f"test/frames/01/{number}.png")
    found = page(*runs)
    assert found.words.count("Frame and truth") == 8
    assert "01, frame 0" in found.words
    assert "01, frame 18" in found.words, "the last that both have"
    assert "12 more" in found.words


def test_the_same_runs_give_the_same_page() -> None:
    client = store()
    runs = [training(client, name) for name in "AB"]
    for run in runs:
        a_test(client, "t", run, [0.9, 0.8])
    chosen = select(client, runs)
    assert comparison_page(client, chosen) == comparison_page(client, chosen)
