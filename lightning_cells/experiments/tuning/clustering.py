"""The process that clusters: trial after trial on embeddings of the validation videos.

A sweep runs ``python -m lightning_cells.experiments.tuning.clustering DESCRIPTOR``.
"""

import logging
import math
import sys
import traceback
import warnings
from pathlib import Path

from lightning_cells.errors import InputError, first_line
from lightning_cells.experiments.tuning.clusterer import Clusterer, Stopped
from lightning_cells.experiments.tuning.link import Message, WorkerLink
from lightning_cells.experiments.tuning.mistakes import StudyMistake, never_logged


def _answer(clusterer: Clusterer, task: Message, link: WorkerLink) -> Message:
    def report(measures: dict[str, float], step: int) -> bool:
        link.send({"report": measures, "step": step})
        return link.receive()["stop"]

    try:
        measures = clusterer.score(task["words"], report)
    except Stopped:
        return {"done": {}}
    for name in task["objectives"]:
        if name not in measures:
            raise never_logged(name, measures)
    return {"done": {name: value for name, value in measures.items() if not math.isnan(value)}}


def main() -> None:
    """Runs trials until the worker has none left."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    link = WorkerLink(int(sys.argv[1]))
    clusterer: Clusterer | None = None
    while True:
        task = link.receive()
        try:
            if clusterer is None:
                clusterer = Clusterer(Path(task["checkpoint"]), task["config"], task["limit"])
            link.send(_answer(clusterer, task, link))
        except StudyMistake as error:
            link.send({"failed": str(error), "kind": "mistake"})
        except InputError as error:
            link.send({"failed": str(error), "kind": "mistake" if clusterer is None else "input"})
        except Exception as error:
            traceback.print_exc()
            link.send({"failed": f"{type(error).__name__}: {first_line(error)}", "kind": "crash"})


if __name__ == "__main__":
    main()
