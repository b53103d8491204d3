"""How far something is: what a log says of it, and that a terminal has its bar."""

import re
import sys
import threading

import pytest

from lightning_cells.progress import Progress


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def work(clock: Clock, total: int | None, steps: int, seconds: float, **options: object) -> None:
    with Progress("tracking", total, **options) as bar:
        for _ in range(steps):
            clock.now += seconds
            bar.update()


def test_a_line_for_every_tenth(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 200, 200, 0.75)
    said = capsys.readouterr()
    assert (said.out, said.err.count("\r")) == ("", 0)
    shares = [int(share) for share in re.findall(r"\((\d+)%\)", said.err)]
    assert shares == [*range(10, 101, 10)]
    assert said.err.splitlines()[1] == "tracking: 40 of 200 frames (20%), 00:30, 02:00 left"


def test_a_line_every_half_minute_where_a_tenth_takes_longer(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 1000, 30, 10.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10, "one in three steps of 10 s"


def test_what_is_quick_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 100, 100, 0.01)
    work(clock, 100, 100, 1.0, shown=False)
    assert capsys.readouterr().err == ""


def test_an_amount_that_is_not_known(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, None, 3, 20.0)
    assert capsys.readouterr().err == "tracking: 2 frames, 00:40\n"


def test_bytes_are_told_as_people_do(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("set", 10 * 2**20, "B", unit_scale=True, unit_divisor=1024) as bar:
        clock.now += 40
        bar.update(5 * 2**20)
    assert capsys.readouterr().err == "set: 5.00MB of 10.0MB (50%), 00:40, 00:40 left\n"


def test_what_was_there_before_does_not_count_for_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    work(clock, 100, 10, 1.0, initial=80)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "tracking: 90 of 100 frames (90%), 00:10, 00:10 left"


def test_at_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(Progress("evaluating", over=range(3))) == [0, 1, 2]
    assert "evaluating: 100%" in capsys.readouterr().err


def test_it_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with Progress("tracking", 10):
        assert threading.active_count() == before
