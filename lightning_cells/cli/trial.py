"""The process of one trial of a sweep: a training that reports to the worker that started it.

Not a verb: a sweep runs ``python -m lightning_cells.cli.trial DESCRIPTOR``.
"""

import json
import os
import sys
import traceback
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_cells.cli.training import TrainingCLI, run
from lightning_cells.errors import InputError, first_line
from lightning_cells.experiments.tuning.link import Message, WorkerLink
from lightning_cells.experiments.tuning.mistakes import StudyMistake
from lightning_cells.experiments.tuning.reporter import Reporter

_TASK = "LIGHTNING_CELLS_TRIAL"  # for the other processes of a distributed trial


class TrialCLI(TrainingCLI):
    """A training whose run is a child of the study's, and which reports.

    Args:
        words: the command line.
        logger: further arguments of the logger: name and tags of the run. They are not part of its configuration, so
            that one who repeats the training does not repeat the trial.
        reporter: reports.
    """

    def __init__(self, words: list[str], logger: dict[str, Any], reporter: Reporter) -> None:
        self._logger = logger
        self._reporter = reporter
        super().__init__(words)

    def before_instantiate_classes(self) -> None:
        """Has the run belong to the study."""
        super().before_instantiate_classes()
        self._own = self._arguments()
        self._before = {name: self._own[name] for name in self._logger}
        for name, value in self._logger.items():
            self._own[name] = value

    def after_instantiate_classes(self) -> None:
        """Gives back the configuration as the user meant it."""
        for name, value in self._before.items():
            self._own[name] = value

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the reporter, behind the callbacks that write checkpoints."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(self._reporter)  # type: ignore[attr-defined]
        return trainer

    def _arguments(self) -> Namespace:
        logger = self.config.fit.trainer.logger
        if isinstance(logger, Namespace) and str(logger.class_path).endswith("RunLogger"):
            return logger.init_args
        return Namespace(dict.fromkeys(self._logger))


def main() -> int:
    """Runs a trial; returns the exit status."""
    link = None
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        link = WorkerLink(int(sys.argv[1]))
        os.environ[_TASK] = json.dumps(link.receive())
    task: Message = json.loads(os.environ[_TASK])
    reporter = Reporter(task["objectives"], link)
    answer: Message
    status = 0
    try:
        run("fit", task["words"], lambda words: TrialCLI(words, task["logger"], reporter))
        answer = {"done": reporter.best, "pruned": reporter.pruned}
    except StudyMistake as error:
        answer, status = {"failed": str(error), "kind": "mistake"}, 2
    except InputError as error:
        answer, status = {"failed": str(error), "kind": "input"}, 2
    except BaseException as error:
        traceback.print_exc()
        answer, status = {"failed": f"{type(error).__name__}: {first_line(error)}", "kind": "crash"}, 1
    if link is not None:
        if status:
            print(answer["failed"], file=sys.stderr)
        link.send(answer)
        link.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
