"""Cross-validation: a training per fold, their measures, mean and standard deviation."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_cells.errors import InputError
from lightning_cells.experiments.processes import ProcessPool, places
from lightning_cells.experiments.runner import Job, Outcome, ParentRun, Weights, digest, run_jobs
from lightning_cells.metrics.ctc_measures import OPERATIONS
from lightning_cells.paths import output_dir

IDENTITY = "cross_validation"
"""Tag of the common run: digest of what is cross-validated."""


def cross_validate(
    words: Sequence[str],
    config: dict[str, Any],
    weights: Weights,
    workers: int,
    say: Callable[[str], None],
) -> str:
    """Trains and tests each fold that has not been before.

    All are children of one run, which is found again by what is cross-validated: configuration and contents of the
    data. So a call that was interrupted can be repeated.

    Args:
        words: options of ``fit``, without the verb.
        config: what ``fit`` makes of them, and under ``contents`` the fingerprint of the data.
        weights: the checkpoint that is measured on the held-out fold. The best one was chosen by it, so that its
            measures are too good.
        workers: folds at a time.
        say: told in one line about each fold.

    Returns:
        The measures of all folds as a text, their mean and standard deviation.

    Raises:
        InputError: if a training or a test fails.
    """
    count, method = config["data"]["folds"], config["model"]["class_path"].rpartition(".")[2]
    title = f"{method} {Path(config['data']['root']).name} {count} folds"
    identity = {**config, "weights": weights}
    tags = {
        "method": method,
        "stage": "cross-validate",
        "seed": str(config.get("seed_everything")),
        "data.fingerprint": config["contents"],
    }
    shares = places(workers, config["trainer"]["accelerator"], config["trainer"]["devices"])
    name = digest(identity)
    logs = output_dir() / "cross_validation" / name[:12]
    jobs = [_job(fold, count, words, weights, title) for fold in range(count)]

    def ended(outcome: Outcome) -> None:
        if outcome.error:
            log = logs / f"{outcome.job.name}.log"
            raise InputError(f"{outcome.job.name} failed: {outcome.error}: see {log}, mend it, and run this again")
        say(f"{outcome.job.name}: run {outcome.run}{', as it was' if outcome.ending == 'found' else ''}")

    with ParentRun.open(IDENTITY, name, tags, title, logs) as parent:
        parent.client.log_text(parent.run_id, json.dumps(identity, indent=1, default=str), "config.json")
        with ProcessPool(shares) as pool:
            outcomes = run_jobs(jobs, parent, pool, ended)
        table = fold_table([dict(outcome.measures["test"]) for outcome in outcomes.values()])
        for measure, values in table.iterrows():
            parent.client.log_metric(parent.run_id, f"test/{measure}", values["mean"])
            parent.client.log_metric(parent.run_id, f"test/{measure}_sd", values["sd"])
        text = f"{title}, {weights} checkpoint\n\n{printed(table)}"
        parent.client.log_text(parent.run_id, f"{text}\n", "folds.txt")
    return text


def _job(fold: int, count: int, words: Sequence[str], weights: Weights, title: str) -> Job:
    options = (*words, f"--data.fold={fold}")
    return Job(
        name=f"fold {fold} of {count}",
        fit=options,
        tests={"test": options},
        weights=weights,
        run_name=f"{title}, fold {fold}",
    )


def fold_table(folds: Sequence[dict[str, float]]) -> pd.DataFrame:
    """The measures that all folds have, Dice first, without counts, which grow with a fold's size.

    Args:
        folds: measures of each fold.

    Returns:
        A row for each measure: its value in folds 0, 1, ..., their ``mean``, and their standard deviation ``sd`` with
        n - 1.
    """
    table = pd.DataFrame(folds).T.dropna().drop(index=list(OPERATIONS), errors="ignore")
    order = sorted(table.index, key=lambda name: (not name.startswith("Dice"), name))
    return table.loc[order].assign(mean=table.mean(axis=1), sd=table.std(axis=1))


def printed(table: pd.DataFrame) -> str:
    """A table of folds as aligned text."""
    width = max(len("fold"), *map(len, table.index))
    lines = [f"{'fold':<{width}}" + "".join(f"{column:>8}" for column in table.columns)]
    lines += [f"{name:<{width}}" + "".join(f"{value:8.4f}" for value in row) for name, *row in table.itertuples()]
    return "\n".join(lines)
