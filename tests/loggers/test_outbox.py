"""Letters are delivered in their order, whatever happens to the receiver, the disk and the process."""

import json
import os
import threading
from pathlib import Path

import pytest

from lightning_cells.loggers import outbox as module
from lightning_cells.loggers.outbox import Letter, Outbox, Refused

Capture = pytest.CaptureFixture[str]


class Receiver:
    """Takes letters while it is up, and notes them."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()
        self.got: list[tuple[int, ...]] = []
        self.files: dict[int, str] = {}
        self.attempts = 0

    def __call__(self, letters: list[Letter]) -> None:
        self.attempts += 1
        if not self.up.is_set():
            raise ConnectionError("nobody there\nat all")
        numbers = tuple(letter.content["n"] for letter in letters)
        if -1 in numbers:
            raise Refused("number -1 is not wanted")
        for letter in letters:
            if letter.file is not None:
                self.files[letter.content["n"]] = letter.file.read_text()
        self.got.append(numbers)

    @property
    def numbers(self) -> list[int]:
        return [number for numbers in self.got for number in numbers]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.02)
    monkeypatch.setattr(module, "_PAUSE_S", (0.01, 0.04))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def box(tmp_path: Path, receiver: Receiver) -> Outbox:
    return Outbox(tmp_path / "outbox", receiver, merge="add", place="the store")


def test_letters_arrive_in_their_order(box: Outbox, receiver: Receiver, tmp_path: Path) -> None:
    for number in range(50):
        box.put("add", {"n": number})
    assert box.flush(20)
    assert receiver.numbers == list(range(50))
    assert receiver.attempts < 50, "several together"
    assert box.close()
    assert not (tmp_path / "outbox").exists()


def test_only_one_call_is_merged(box: Outbox, receiver: Receiver) -> None:
    receiver.up.clear()
    for number, call in enumerate(["add", "add", "file", "file", "add", "add"]):
        box.put(call, {"n": number})
    receiver.up.set()
    assert box.flush(20)
    assert receiver.got == [(0, 1), (2,), (3,), (4, 5)]


def test_files_are_copied(box: Outbox, receiver: Receiver, tmp_path: Path) -> None:
    receiver.up.clear()
    picture = tmp_path / "picture.txt"
    picture.write_text("first")
    box.put("file", {"n": 0}, picture)
    picture.write_text("second")
    box.put("file", {"n": 1}, picture)
    picture.unlink()
    receiver.up.set()
    assert box.close(20)
    assert receiver.files == {0: "first", 1: "second"}


def test_receiver_that_goes_away_and_comes_back(
    box: Outbox, receiver: Receiver, tmp_path: Path, capfd: Capture
) -> None:
    box.put("add", {"n": 0})
    assert box.flush(20)
    receiver.up.clear()
    for number in range(1, 30):
        box.put("add", {"n": number})
    assert not box.flush(0.3), "waits no longer than it may"
    assert receiver.attempts > 3
    assert len(box) == 29
    receiver.up.set()
    assert box.flush(20)
    assert receiver.numbers == list(range(30))
    said = capfd.readouterr().err
    assert said.count("\n") == 1, "once"
    assert "the store does not answer (nobody there)" in said
    assert str(tmp_path / "outbox") in said


def test_letters_come_without_being_waited_for(box: Outbox, receiver: Receiver) -> None:
    arrived = threading.Event()
    monkey = receiver.__call__

    def note(letters: list[Letter]) -> None:
        monkey(letters)
        arrived.set()

    box._deliver = note
    box.put("add", {"n": 0})
    assert arrived.wait(20)


def test_end_without_the_receiver_says_what_is_kept_where(
    box: Outbox, receiver: Receiver, tmp_path: Path, capfd: Capture
) -> None:
    receiver.up.clear()
    for number in range(3):
        box.put("add", {"n": number})
    assert not box.close(0.1)
    said = capfd.readouterr().err.splitlines()[-1]
    assert "3 entries of the log could not be delivered to the store" in said
    assert str(tmp_path / "outbox") in said
    assert "lightning-cells deliver" in said
    receiver.up.set()
    other = Outbox(tmp_path / "outbox", receiver, merge="add", place="the store")
    assert len(other) == 3, "what another process finds"
    other.put("add", {"n": 3})
    assert other.close(20)
    assert set(receiver.numbers) == {0, 1, 2, 3}
    assert not (tmp_path / "outbox").exists()


def test_refused_letter_holds_back_no_other(box: Outbox, receiver: Receiver, capfd: Capture) -> None:
    receiver.up.clear()
    for number in (0, 1, -1, 2, -1, 3):
        box.put("add", {"n": number})
    receiver.up.set()
    assert box.flush(20)
    assert receiver.numbers == [0, 1, 2, 3]
    said = [line for line in capfd.readouterr().err.splitlines() if "does not take" in line]
    assert len(said) == 1
    assert "number -1 is not wanted" in said[0]


def test_full_disk(
    box: Outbox, receiver: Receiver, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.up.clear()
    file = tmp_path / "file.txt"
    file.write_text("kept elsewhere")
    with monkeypatch.context() as patch:

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(module.Outbox, "_write", full)
        box.put("add", {"n": 0})
        box.put("file", {"n": 1}, file)
    file.unlink()
    box.put("add", {"n": 2})
    assert not box.flush(0.1)
    said = capfd.readouterr().err
    assert said.count("No space left on device") == 1
    receiver.up.set()
    assert box.close(20)
    assert receiver.numbers == [0, 1, 2]
    assert receiver.files == {1: "kept elsewhere"}


def test_what_is_in_memory_alone_is_written_at_the_end(
    box: Outbox, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.up.clear()
    with monkeypatch.context() as patch:

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(module.Outbox, "_write", full)
        box.put("add", {"n": 0})
    assert not list(tmp_path.glob("outbox/*.json"))
    assert not box.close(0.05)
    assert len(list(tmp_path.glob("outbox/*.json"))) == 1


def test_half_written_letters_of_a_killed_process(receiver: Receiver, tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    (folder / "000000001").mkdir(parents=True)
    (folder / "000000001" / "picture.png").write_bytes(b"without its letter")
    (folder / ".000000002.json.77-abc.tmp").write_text('{"call": "add", "conte')
    (folder / "000000000.json").write_text(json.dumps({"call": "add", "content": {"n": 0}, "file": None}))
    box = Outbox(folder, receiver, merge="add", place="the store")
    assert len(box) == 1
    box.put("add", {"n": 1})
    assert box.close(20)
    assert receiver.numbers == [0, 1]
    assert not folder.exists()


def test_damaged_letter_is_left_out(tmp_path: Path) -> None:
    seen = []

    def deliver(letters: list[Letter]) -> None:
        for letter in letters:
            if letter.call != "add":
                raise Refused("damaged")
            seen.append(letter.content["n"])

    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / "000000000.json").write_text("{")
    box = Outbox(folder, deliver, merge="add", place="the store")
    box.put("add", {"n": 1})
    assert box.close(20)
    assert seen == [1]


def test_many_threads(box: Outbox, receiver: Receiver) -> None:
    def put(start: int) -> None:
        for number in range(start, start + 25):
            box.put("add", {"n": number})

    threads = [threading.Thread(target=put, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.close(20)
    assert sorted(receiver.numbers) == sorted(100 * k + n for k in range(4) for n in range(25))


def test_letters_of_a_killed_process_are_not_lost(receiver: Receiver, tmp_path: Path) -> None:
    """Those that it has put, up to the last one."""
    child = os.fork()
    if child == 0:
        receiver.up.clear()
        box = Outbox(tmp_path / "outbox", receiver, merge="add", place="the store")
        for number in range(20):
            box.put("add", {"n": number})
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    box = Outbox(tmp_path / "outbox", receiver, merge="add", place="the store")
    assert box.close(20)
    assert receiver.numbers == list(range(20))
