"""Opens MLflow's pages on the project's runs, on this machine only.

The addresses are printed when the pages can be opened; --open opens the first one in a browser.

lightning-cells dashboard --open
lightning-cells dashboard --port 5001
"""

import argparse
import os
import signal
import socket
import sys
import time
import urllib.request
import webbrowser
from contextlib import suppress
from typing import Literal

_OF_SERVERS = ("GUNICORN_", "UVICORN_", "WAITRESS_", "MLFLOW_GUNICORN_", "MLFLOW_UVICORN_", "MLFLOW_WAITRESS_")
_OF_THE_SERVER = ("MLFLOW_HOST", "MLFLOW_PORT", "MLFLOW_WORKERS", "WEB_CONCURRENCY")
_LEFT_OUT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "PYTHONWARNINGS": "ignore",
}
_PAGES: dict[str, Literal["list", "charts"]] = {"columns": "list", "charts": "charts"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--port", type=int, default=5000, metavar="P", help="(default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="open the list of runs in a browser")


def run(args: argparse.Namespace) -> None:
    """Prepares the view of the runs, and runs MLflow's server, bound to 127.0.0.1, until it is interrupted."""
    from lightning_cells.errors import InputError, without_passwords
    from lightning_cells.loggers.store import artifact_root, tracking_uri

    if not 1 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: must be 1 to 65535")
    uri = tracking_uri()
    if uri.startswith(("http:", "https:")):
        print(f"MLFLOW_TRACKING_URI is a server that already shows its runs: open {without_passwords(uri)}")
        found = _prepare(uri, uri)
        _show(found)
        if args.open:
            webbrowser.open(found[0][1] if found else uri)
        return
    _check_free(args.port)
    print(f"Runs of {without_passwords(uri)}: the pages take some seconds to start", flush=True)
    server = f"http://127.0.0.1:{args.port}"
    _when_it_answers(f"{server}/health", [*_prepare(uri, server), ("Stop with", "Ctrl-C")], args.open)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(args.port)]
    command += ["--default-artifact-root", artifact_root(), "--workers", "1", "--uvicorn-opts", "--log-level=warning"]
    # not on the command line, which everybody on the machine can read: it may hold a password
    os.execve(sys.executable, command, _environment(uri))


def _environment(uri: str) -> dict[str, str]:
    """What the server inherits: nothing by which it would listen elsewhere, and nothing that is of no use here.

    Those are processes for jobs, which idle; a gateway to language models; and warnings of the server's own code.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_SERVERS)}
    for name in _OF_THE_SERVER:
        kept.pop(name, None)
    return {**kept, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri, **_LEFT_OUT}


def _when_it_answers(health: str, lines: list[tuple[str, str]], opens: bool) -> None:
    """Has a process of its own, which ends with this one, tell the addresses as soon as they can be opened."""
    sys.stdout.flush()
    server = os.getpid()
    if os.fork():
        return
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while os.getppid() == server:
            with suppress(OSError), urllib.request.urlopen(health, timeout=2):
                _show(lines)
                if opens:
                    webbrowser.open(lines[0][1])
                break
            time.sleep(0.3)
    finally:
        os._exit(0)


def _show(lines: list[tuple[str, str]]) -> None:
    for what, where in lines:
        print(f"{what:<32} {where}", flush=True)


def _prepare(uri: str, server: str) -> list[tuple[str, str]]:
    """Puts the project's view into the store, for each experiment with runs of this project.

    Returns:
        What there is to open, and where; nothing if MLflow shows its own view alone.
    """
    from mlflow.exceptions import MlflowException

    from lightning_cells.errors import first_line
    from lightning_cells.loggers.store import open_store
    from lightning_cells.loggers.views import address, prepare_views

    try:
        return [
            (f"{experiment.name}, in {kind}", address(server, experiment, page))
            for experiment in prepare_views(open_store(uri))
            for kind, page in _PAGES.items()
        ]
    except (MlflowException, OSError) as error:
        print(f"Columns and charts could not be prepared: {first_line(error)}")
        return []


def _check_free(port: int) -> None:
    """Raises InputError if another program listens at the port."""
    from lightning_cells.errors import InputError

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"port {port} is not free ({error.strerror}): choose another with --port") from None
