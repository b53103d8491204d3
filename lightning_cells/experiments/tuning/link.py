"""What a worker and the process of its trial say to each other."""

import json
import os
import queue
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

Message = dict[str, Any]


class Link:
    """One end of a pair of pipes, for messages of plain values."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, message: Message) -> None:
        """Sends a message; nothing happens if the other side is gone."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> Message | None:
        """Waits for a message; None if the other side is gone."""
        try:
            return json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return None


class WorkerLink(Link):
    """The end of a trial's process, which must not outlive its worker.

    Args:
        descriptor: of the pipe that the worker has opened.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(Connection(descriptor))
        self._messages: queue.Queue[Message] = queue.Queue()
        self._done = False
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Message:
        """Waits for a message."""
        return self._messages.get()

    def close(self) -> None:
        """Says that nothing more will come, and that the process ends by itself."""
        self._done = True

    def _listen(self) -> None:
        while (message := super().receive()) is not None:
            self._messages.put(message)
        if not self._done:  # the worker is gone: so are we, with what we have started
            os.killpg(os.getpgid(0), signal.SIGKILL)
