"""Ctrl-C and SIGTERM as something that is waited for, beside other things, instead of breaking in anywhere."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether the process was asked to end.

    Attributes:
        asked: whether it was.
        descriptor: of a pipe that can be read from then on; to be waited for.
    """

    def __init__(self) -> None:
        self.asked = False
        self.descriptor, self._write = os.pipe()

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self.descriptor)
        os.close(self._write)

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Takes a signal; a second one acts as ever."""
        self.asked = True
        os.write(self._write, b"!")
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.default_int_handler)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Takes the signals for the length of a `with` block; in a thread that is not the main one none come."""
    interruption = Interruption()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {one: signal.signal(one, interruption.ask) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        interruption.close()
