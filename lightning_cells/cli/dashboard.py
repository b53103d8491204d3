"""Opens MLflow's pages on the project's runs, on this machine only.

lightning-cells dashboard --port 5001
"""

import argparse
import os
import socket
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--port", type=int, default=5000, metavar="P", help="(default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Runs MLflow's server in the foreground, bound to 127.0.0.1, until it is interrupted."""
    from lightning_cells.errors import InputError
    from lightning_cells.experiments.mlflow import EXPERIMENT
    from lightning_cells.experiments.store import artifact_root, open_experiment, open_store, tracking_uri

    if not 1 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: must be 1 to 65535")
    uri = tracking_uri()
    if uri.startswith(("http:", "https:")):
        print(f"MLFLOW_TRACKING_URI is a server that already shows its runs: open {uri}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", args.port))
        except OSError as error:
            raise InputError(f"port {args.port} is not free ({error.strerror}): choose another with --port") from None
    experiment = open_experiment(open_store(uri), EXPERIMENT).experiment_id
    page = f"http://127.0.0.1:{args.port}/#/experiments/{experiment}/runs?viewMode=chart&compareRunsMode=CHART"
    print(f"Runs of {uri}\nOpen {page}\nStop with Ctrl-C", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(args.port)]
    command += ["--backend-store-uri", uri, "--default-artifact-root", artifact_root(), "--workers", "1"]
    os.execv(sys.executable, command)
