"""Child processes on shares of this machine: their messages, what they died of, and how all of them end.

A parent process opens a `ProcessPool` for its places and starts processes in it::

    with ProcessPool(places(workers, accelerator, devices)) as pool:
        with pool.start("lightning_cells.cli.job", log) as child:  # waits for a free place
            child.send({"words": [...]})
            answer = child.receive()  # None: it has ended; child.end() says of what

and the started module talks through `ParentLink`.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Self

from lightning_cells.errors import InputError

Message = dict[str, Any]
"""What two processes say to each other: plain values."""
_END_S = 60  # that a process may take to end by itself
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Place:
    """What a process may use.

    Attributes:
        cores: numbers of the cores that it is pinned to; none where the system cannot pin.
        gpus: names of its GPUs, as ``CUDA_VISIBLE_DEVICES`` has them; None leaves that variable alone.
        processes: how many processes share it.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None
    processes: int = 1

    def environment(self) -> dict[str, str]:
        """Variables of the process."""
        variables = dict(os.environ)
        for name in list(variables):  # the process is no task of its own for Lightning
            if name.startswith("SLURM_"):
                del variables[name]
        variables.setdefault("OMP_NUM_THREADS", str(max(1, len(self.cores) // self.processes)))
        if self.gpus is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        return variables

    def pin(self, process: int) -> None:
        """Binds a process that was just started, and so all that it will start, to the cores."""
        if self.cores:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(process, self.cores)


def places(workers: int, accelerator: Any, devices: Any) -> list[Place]:
    """Divides this machine.

    Args:
        workers: processes at a time.
        accelerator: their ``trainer.accelerator``.
        devices: their ``trainer.devices``.

    Raises:
        InputError: if there are too few GPUs.
    """
    if workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")
    each = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdecimal() else 1
    gpus = [] if accelerator in ("cpu", "mps", "tpu") else _gpus()
    if gpus and workers * each > len(gpus):
        raise InputError(
            f"--workers {workers}: need {workers * each} GPUs at {each} for each training, but there are {len(gpus)}: "
            f"give --workers {max(1, len(gpus) // each)}" + (" or fewer trainer.devices" if each > len(gpus) else "")
        )
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [
        Place(
            _share(cores, number, workers),
            tuple(gpus[number * each : (number + 1) * each]) if gpus else None,
            each,
        )
        for number in range(workers)
    ]


def _gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def _share(cores: list[int], number: int, workers: int) -> tuple[int, ...]:
    if not cores:
        return ()
    if workers >= len(cores):
        return (cores[number % len(cores)],)
    return tuple(cores[number * len(cores) // workers : (number + 1) * len(cores) // workers])


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


class ParentLink(Link):
    """The child's end: the child is killed, with all that it has started, when its parent is gone.

    Args:
        descriptor: of the pipe that the parent has opened; the last argument of the child's command line.
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
        if not self._done:
            os.killpg(os.getpgid(0), signal.SIGKILL)


class Child(Link):
    """A process in a group of its own: what is typed at the terminal does not reach it. See `ProcessPool.start`.

    Args:
        module: run by Python, with the descriptor of its end of the link as argument.
        place: what it may use.
        log: file that gets what it prints.

    Attributes:
        log: that file.
        pid: its number, which is also that of its group.
    """

    def __init__(self, module: str, place: Place, log: Path) -> None:
        ours, theirs = Pipe()
        super().__init__(ours)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=place.environment(),
                start_new_session=True,
            )
        theirs.close()
        self.pid = self._process.pid
        place.pin(self.pid)

    def end(self) -> str:
        """Waits for a process that has said its last; returns what it died of."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            status = 0
        if status < 0:
            name = signal.Signals(-status).name
            return f"killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
        return f"ended with status {status}: {last_line(self.log)}"

    def kill(self) -> None:
        """Kills the process and all that it has started; for the signal handler, too: waits for nothing."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills what is left of it, and waits until it is gone."""
        self.kill()
        self._process.wait()
        self.connection.close()


class ProcessPool:
    """Child processes, at most one at each place; they end with the ``with`` block.

    Within the block Ctrl-C and SIGTERM do not break in anywhere. They kill all processes, so that every `Child.receive`
    returns None, and no process is started any more: `start` and `check` raise KeyboardInterrupt. A second signal acts
    as ever. Of a pool that is opened outside of the main thread the owner of that thread calls `close`.

    Args:
        places: from `places`.

    Attributes:
        size: how many processes run at a time.
        closed: whether the processes were told to end.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.size = len(places)
        self.closed = False
        self._free: queue.SimpleQueue[Place] = queue.SimpleQueue()
        for place in places:
            self._free.put(place)
        self._living: set[Child] = set()
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {one: signal.signal(one, self._interrupt) for one in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        for child in list(self._living):
            child.close()
        for one, handler in self._handlers.items():
            signal.signal(one, handler)

    @contextmanager
    def start(self, module: str, log: Path) -> Iterator[Child]:
        """Waits for a free place and starts a process there, which is killed at the end of the block if it still runs.

        May be called from several threads.

        Args:
            module: run by Python, with the descriptor for its `ParentLink` as argument.
            log: file that gets what it prints.

        Raises:
            KeyboardInterrupt: if the pool is closed.
        """
        place = self._free.get()
        try:
            self.check()
            child = Child(module, place, log)
            self._living.add(child)
            try:
                self.check()  # a signal may have come before it was one of the living
                yield child
            finally:
                child.close()
                self._living.discard(child)
        finally:
            self._free.put(place)

    def check(self) -> None:
        """Raises KeyboardInterrupt if the pool is closed."""
        if self.closed:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Kills all processes and starts no more."""
        self.closed = True
        for child in list(self._living):
            child.kill()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        for one in _SIGNALS:
            signal.signal(one, signal.default_int_handler)
        self.close()


def last_line(log: Path) -> str:
    """The last line of a file that says anything."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def words(settings: Mapping[str, Any]) -> list[str]:
    """Options by their dotted names, as they are written on the command line."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()]
