"""kill -9 at the moments that matter: nothing is lost but the steps since the last checkpoint."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from run_cases import NO_RUN, assert_same, client, die, in_child, the_run, words

from lightning_cells.callbacks.checkpoint import AtomicCheckpointIO, Checkpoints
from lightning_cells.cli import main
from lightning_cells.loggers.delivery import Delivery
from lightning_cells.loggers.outbox import Outbox
from lightning_cells.methods import ULSTM

EVERY = ["--checkpoint.every_n_batches", "1"]
Chosen = Callable[..., bool]


def at_call(number: int) -> Chosen:
    """Whether this is that call of a function."""
    calls = 0

    def chosen(*args: object) -> bool:
        nonlocal calls
        calls += 1
        return calls == number

    return chosen


def dies(owner: object, name: str, chosen: Chosen, after: bool = False) -> None:
    """Has a function kill its process, before or after it has done its work."""
    work = getattr(owner, name)

    def deadly(*args: object, **kwargs: object) -> object:
        now = chosen(*args)
        if now and not after:
            die()
        done = work(*args, **kwargs)
        if now:
            die()
        return done

    setattr(owner, name, deadly)


def is_last(*args: object) -> bool:
    """A rename to last.ckpt of the second epoch: the fifth."""
    return str(args[1]).endswith("last.ckpt") and fifth()


fifth = at_call(5)

MOMENTS = {
    "in a step": lambda: dies(ULSTM, "training_step", at_call(6)),
    "before a checkpoint gets its name": lambda: dies(os, "replace", is_last),
    "between the best and the last checkpoint": lambda: dies(Checkpoints, "_save_topk_checkpoint", at_call(1), True),
    "in the middle of a checkpoint's bytes": lambda: dies(os, "fsync", at_call(3)),
    "after a checkpoint, before its number is told": lambda: dies(
        AtomicCheckpointIO, "save_checkpoint", at_call(4), True
    ),
    "before something is written down": lambda: dies(Outbox, "_write", at_call(20)),
    "before something is delivered": lambda: dies(Delivery, "__call__", at_call(4)),
    "after something is delivered": lambda: dies(Delivery, "__call__", at_call(4), True),
    "in the validation": lambda: dies(ULSTM, "validation_step", at_call(2)),
}


@pytest.fixture(scope="module")
def unbroken(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(folder))
        assert main(words(simulated, *NO_RUN)) == 0
    return folder / "checkpoints/unlogged/last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_kill(moment: str, simulated: Path, unbroken: Path, home: Path) -> None:
    def killed() -> int:
        MOMENTS[moment]()
        return main(words(simulated, *EVERY))

    assert in_child(killed) == -9
    run_id = the_run(home).info.run_id
    assert the_run(home).info.status == "RUNNING", "it could not say goodbye"
    assert in_child(lambda: main(["fit", "--resume", run_id])) == 0
    folder = home / "checkpoints" / run_id
    assert_same(folder / "last.ckpt", unbroken)
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    run = the_run(home)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    points = client(home).get_metric_history(run_id, "train/loss_step")
    # a checkpoint is written before the loss of its last step is logged: a kill between the two costs that point
    lost = 1 if moment == "before something is written down" else 0
    assert len({point.step for point in points} & set(range(8))) >= 8 - lost, "the whole curve"
    twice = {p.step: {q.value for q in points if q.step == p.step} for p in points}
    assert all(len(values) == 1 for values in twice.values()), "steps that were done again gave the same"
    assert {"config.yaml", "environment.txt", "machine.json", "model.txt"} <= {
        artifact.path for artifact in client(home).list_artifacts(run_id)
    }
    assert not (home / f"runs/{run_id}/outbox").exists()
