"""Letters to the place where runs are kept: written down at once, delivered in the background."""

import atexit
import json
import shutil
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lightning_cells.data.atomic import writing
from lightning_cells.errors import first_line

LINGER_S = 5.0
"""Seconds that letters wait for others, to be delivered with them."""
PATIENCE_S = 20.0
"""Most seconds that the end of a run waits for its letters to be delivered."""
_LAST_S = 5.0  # most seconds that a delivery under way is waited for when it is given up
_PAUSE_S = (1.0, 60.0)  # first and longest after a failure; each is twice the one before
_REST_S = 1.0  # after a failure, when somebody waits
_TOGETHER = 200  # most letters that are delivered as one


class Letter(NamedTuple):
    """One thing to be logged.

    Attributes:
        call: what to do, by name.
        content: plain values.
        file: goes with it, if it has one.
    """

    call: str
    content: dict[str, Any]
    file: Path | None = None


class Refused(Exception):
    """Raised for a letter that will not be taken, however often it is tried."""


class Outbox:
    """Keeps letters on disk, in their order, until they are delivered.

    Writing a letter takes a fraction of a millisecond and never fails: where the disk has no room it is kept in memory.
    Delivery happens in a thread of its own, with growing pauses while it fails, which is said once. What a killed
    process could not deliver is delivered by the next that opens the folder; the last letters may then come twice.

    Args:
        folder: where letters are kept; made with the first of them.
        deliver: takes letters of one call. It raises `Refused`, or anything else if it should be tried again.
        merge: the call of which consecutive letters are delivered as one.
        place: what the user knows the receiver by.
    """

    def __init__(self, folder: Path, deliver: Callable[[list[Letter]], None], merge: str, place: str) -> None:
        self.folder = folder
        self._deliver = deliver
        self._merge = merge
        self._place = place
        self._changed = threading.Condition()
        self._waiting: deque[int] = deque(sorted(int(path.stem) for path in folder.glob("[0-9]*.json")))
        self._next = self._waiting[-1] + 1 if self._waiting else 0
        self._in_memory: dict[int, Letter] = {}
        self._hurry = False
        self._given_up = False
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()

    def __len__(self) -> int:
        """Letters that are not delivered yet."""
        return len(self._waiting)

    def put(self, call: str, content: dict[str, Any], file: Path | None = None) -> None:
        """Takes a letter. The file is copied."""
        with self._changed:
            number, self._next = self._next, self._next + 1
            try:
                self._write(number, Letter(call, content, file))
            except OSError as error:
                self._tell("disk", f"{self.folder}: {error.strerror}: what is logged is kept in memory for now")
                try:
                    self._in_memory[number] = Letter(call, content, file and _copy(file))
                except OSError:
                    self._tell("lost", f"no room to keep {file}: it is not logged")
                    return
            self._waiting.append(number)
            self._start()
            self._changed.notify_all()

    def flush(self, limit: float = PATIENCE_S) -> bool:
        """Waits until all is delivered, at most `limit` seconds; returns whether all is."""
        with self._changed:
            if self._waiting:
                self._hurry = True
                self._start()
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._waiting, timeout=limit)
                self._hurry = False
            return not self._waiting

    def close(self, limit: float = PATIENCE_S) -> bool:
        """As `flush`; then removes the folder, or says what is kept in it."""
        with self._changed:
            if self.flush(limit):
                shutil.rmtree(self.folder, ignore_errors=True)
                return True
            for number, letter in list(self._in_memory.items()):
                with suppress(OSError):
                    self._write(number, letter)
                    del self._in_memory[number]
            lost = f"{len(self._in_memory)} are lost, for which there is no room; " if self._in_memory else ""
            self._tell(
                "kept",
                f"{len(self)} entries of the log could not be delivered to {self._place}: {lost}{self.folder} keeps "
                "them; when it answers again: lightning-cells deliver",
            )
            self._given_up = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:  # others may deliver from now on
            thread.join(timeout=_LAST_S)
        return False

    def _at_exit(self) -> None:
        if "kept" not in self._told:
            self.close()

    def _entry(self, number: int) -> Path:
        return self.folder / f"{number:09d}.json"

    def _attachment(self, number: int, name: str) -> Path:
        return self.folder / f"{number:09d}" / name

    def _write(self, number: int, letter: Letter) -> None:
        name = None if letter.file is None else letter.file.name
        if letter.file is not None:
            with writing(self._attachment(number, letter.file.name)) as temporary:
                shutil.copyfile(letter.file, temporary)
        with writing(self._entry(number)) as temporary:
            temporary.write_text(json.dumps({"call": letter.call, "content": letter.content, "file": name}))

    def _read(self, number: int) -> Letter:
        if number in self._in_memory:
            return self._in_memory[number]
        try:
            entry = json.loads(self._entry(number).read_text())
            return Letter(entry["call"], entry["content"], entry["file"] and self._attachment(number, entry["file"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Letter("", {})  # damaged from outside: refused by every receiver

    def _first(self, count: int) -> list[int]:
        with self._changed:
            return list(islice(self._waiting, count))

    def _done(self, count: int) -> None:
        """Forgets the first letters."""
        for number in self._first(count):
            letter = self._in_memory.pop(number, None)
            if letter is None:
                self._entry(number).unlink(missing_ok=True)
                shutil.rmtree(self.folder / f"{number:09d}", ignore_errors=True)
            elif letter.file is not None:
                shutil.rmtree(letter.file.parent, ignore_errors=True)
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()

    def _start(self) -> None:
        self._given_up = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()
            atexit.register(self._at_exit)

    def _run(self) -> None:
        pause = 0.0
        while self._wait(pause):
            try:
                while self._waiting and not self._given_up:
                    self._send()
                pause = 0.0
            except Exception as error:
                first, longest = _PAUSE_S
                pause = min(longest, 2 * pause or first)
                reason = f"{self._place} does not answer ({first_line(error)})"
                self._tell("away", f"{reason}: what is logged is kept in {self.folder} until it does")

    def _wait(self, pause: float) -> bool:
        """Sleeps until it is time to deliver; False, and the thread ends, if nothing comes or all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._given_up, timeout=10 * LINGER_S)
            if pause:
                self._changed.wait_for(lambda: self._hurry or self._given_up, timeout=pause)
                pause = min(pause, _REST_S)  # even then not without one
            if self._waiting:
                self._changed.wait_for(lambda: (self._hurry and not pause) or self._given_up, timeout=pause or LINGER_S)
            if self._waiting and not self._given_up:
                return True
            self._thread = None
            atexit.unregister(self._at_exit)
            return False

    def _send(self) -> None:
        letters: list[Letter] = []
        for number in self._first(_TOGETHER):
            letter = self._read(number)
            if letters and (letter.call != self._merge or letters[0].call != self._merge):
                break
            letters.append(letter)
        try:
            self._deliver(letters)
            self._done(len(letters))
        except Refused:  # by one of them: one by one, it does not hold back the others
            for letter in letters:
                try:
                    self._deliver([letter])
                except Refused as error:
                    self._tell(str(error), f"{self._place} does not take what is logged: {first_line(error)}")
                self._done(1)

    def _tell(self, key: str, message: str) -> None:
        """Says it on stderr, once, above a progress bar."""
        if key not in self._told:
            self._told.add(key)
            tqdm.write(f"lightning-cells: {message}", file=sys.stderr)


def _copy(file: Path) -> Path:
    """Copies a file to where temporary files are, which may be another disk."""
    return Path(shutil.copy(file, tempfile.mkdtemp()))
