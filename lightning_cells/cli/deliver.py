"""Delivers to the MLflow store what trainings logged while it was away.

A training tries by itself for as long as it lasts; this is for what was left at its end. Runs that are still at work
are left alone.

lightning-cells deliver
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="S", help="most seconds for each run (default: %(default)s)"
    )
    parser.add_argument("--uri", help="address of the store, if it is no longer that of the training")


def run(args: argparse.Namespace) -> None:
    """Delivers.

    Raises:
        InputError: if something is left.
    """
    from lightning_cells.errors import InputError, without_passwords
    from lightning_cells.loggers.delivery import open_outbox
    from lightning_cells.loggers.run_folder import undelivered
    from lightning_cells.loggers.store import open_store

    folders = undelivered()
    if not folders:
        print("All is delivered")
    left = 0
    for folder in folders:
        try:
            folder.claim()
        except InputError:
            print(f"run {folder.name} is at work and delivers by itself")
            continue
        uri = args.uri or folder.uri
        open_store(uri)
        outbox = open_outbox(uri, folder)
        count = len(outbox)
        outbox.close(args.wait)
        print(f"run {folder.run_id}: {count - len(outbox)} of {count} entries delivered to {without_passwords(uri)}")
        left += len(outbox)
        folder.release()
    if left:
        raise InputError(f"{left} entries are still not delivered: is the server up? At another address: --uri")
