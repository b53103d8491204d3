"""Opens MLflow's pages on the project's runs, on this machine only.

lightning-cells dashboard --port 5001
"""

import argparse
import os
import socket
import sys

_OF_SERVERS = ("GUNICORN_", "UVICORN_", "WAITRESS_", "MLFLOW_GUNICORN_", "MLFLOW_UVICORN_", "MLFLOW_WAITRESS_")
_OF_THE_SERVER = ("MLFLOW_HOST", "MLFLOW_PORT", "MLFLOW_WORKERS", "WEB_CONCURRENCY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--port", type=int, default=5000, metavar="P", help="(default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Prepares the view of the runs, and runs MLflow's server, bound to 127.0.0.1, until it is interrupted."""
    from lightning_cells.errors import InputError, without_passwords
    from lightning_cells.loggers.store import artifact_root, tracking_uri

    if not 1 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: must be 1 to 65535")
    uri = tracking_uri()
    if uri.startswith(("http:", "https:")):
        print(f"MLFLOW_TRACKING_URI is a server that already shows its runs: open {without_passwords(uri)}")
        _prepare(uri, uri)
        return
    _check_free(args.port)
    print(f"Runs of {without_passwords(uri)}")
    _prepare(uri, f"http://127.0.0.1:{args.port}")
    print("Stop with Ctrl-C", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(args.port)]
    command += ["--default-artifact-root", artifact_root(), "--workers", "1"]
    # not on the command line, which everybody on the machine can read: it may hold a password
    os.execve(sys.executable, command, _environment(uri))


def _environment(uri: str) -> dict[str, str]:
    """What the server inherits: nothing by which it would listen elsewhere, and no processes for jobs, which idle."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_SERVERS)}
    for name in _OF_THE_SERVER:
        kept.pop(name, None)
    return {**kept, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _prepare(uri: str, server: str) -> None:
    """Puts the project's view into the store and prints where it is; without it MLflow shows its own."""
    from mlflow.exceptions import MlflowException

    from lightning_cells.errors import first_line
    from lightning_cells.loggers.store import open_store
    from lightning_cells.loggers.views import address, prepare_views

    try:
        for experiment in prepare_views(open_store(uri)):
            print(f"{experiment.name}, in columns  {address(server, experiment, 'list')}")
            print(f"{experiment.name}, in charts   {address(server, experiment, 'charts')}")
    except (MlflowException, OSError) as error:
        print(f"Columns and charts could not be prepared: {first_line(error)}")


def _check_free(port: int) -> None:
    """Raises InputError if another program listens at the port."""
    from lightning_cells.errors import InputError

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"port {port} is not free ({error.strerror}): choose another with --port") from None
