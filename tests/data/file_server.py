"""A web server on this machine that has one file, and every bad habit a download may meet."""

import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class FileServer:
    """What the server does with the next requests; set from the test while it runs."""

    def __init__(self) -> None:
        self.content = b""
        self.ignores_range = False
        self.sends_other_range = False
        self.tells_length = True
        self.chunked = False
        self.resets = False  # break off by a reset instead of an orderly end
        self.statuses: list[int] = []  # answered, one a request, before the file is
        self.headers: dict[str, str] = {}  # of those answers
        self.breaks: list[int | None] = []  # bytes of the body after which each request is broken off
        self.requests: list[dict[str, str]] = []  # headers of each request
        self.served: list[int] = []  # bytes of the body sent to each
        self.gate: threading.Event | None = None  # holds the body back until it is set
        self.url = ""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state: FileServer = self.server.state
        state.requests.append({name.lower(): value for name, value in self.headers.items()})
        if state.statuses:
            state.served.append(0)
            self.send_response(state.statuses.pop(0))
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = state.content
        start = self._start(state)
        if start is not None and start >= len(content):
            state.served.append(0)
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if start is not None and state.sends_other_range:
            start += 1
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        body = content[start or 0 :]
        if state.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif state.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if state.gate:
            state.gate.wait(20)
        stop = state.breaks.pop(0) if state.breaks else None
        sent = body if stop is None else body[:stop]
        state.served.append(len(sent))
        self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if state.chunked else sent)
        if state.chunked and stop is None:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        self.close_connection = True
        if stop is not None and state.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _start(self, state: FileServer) -> int | None:
        """First byte asked for, or None if the whole file is to be sent."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked and not state.ignores_range else None


@contextmanager
def serving(content: bytes = b"") -> Iterator[FileServer]:
    """Runs a server in a thread for the length of a `with` block."""
    state = FileServer()
    state.content = content
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.state = state  # type: ignore[attr-defined]
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    state.url = f"http://127.0.0.1:{server.server_address[1]}/set.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
