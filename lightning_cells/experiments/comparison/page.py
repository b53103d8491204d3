"""The page of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.colors import to_hex
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.experiments.comparison.pictures import (
    COLOURS,
    Curve,
    Strips,
    draw_curves,
    draw_intervals,
    read_curves,
    read_strips,
    side_by_side,
)
from lightning_cells.experiments.comparison.runs import ABSENT, Selected, differences, read_config
from lightning_cells.experiments.comparison.statistics import (
    MEASURES,
    Cells,
    Measure,
    measured,
    read_cells,
    same_data,
    verdicts,
)
from lightning_cells.visualization.montage import KINDS
from lightning_cells.visualization.page import render

_TAGS = {
    "method": "method",
    "preset": "preset",
    "data.root": "data",
    "data.test": "test videos",
    "seed": "seed",
    "mlflow.source.git.commit": "commit",
}


_Row = list[str | None]  # a name, and the value of each run


class _Member(NamedTuple):
    """All that is known of one run."""

    chosen: Selected
    measures: dict[str, Measure]
    cells: Cells | None
    strips: Strips
    curves: dict[str, Curve]
    configs: dict[str, dict[str, Any] | None]  # of training and test


def comparison_page(client: MlflowClient, runs: Sequence[Selected]) -> str:
    """Returns the page as HTML that needs nothing but itself.

    What a run does not have is said on the page.

    Args:
        client: of the store.
        runs: two or more.
    """
    members = [_gather(client, chosen) for chosen in runs]
    same = [number for number, member in enumerate(members) if _same_data(members, member)]
    frames, more = side_by_side({number: (members[number].strips, members[number].cells) for number in same})
    curves = [member.curves for member in members]
    measures = [member.measures for member in members]
    return render(
        "compare.html.j2",
        {
            "labels": [member.chosen.label for member in members],
            "colours": [COLOURS[number % len(COLOURS)] for number in range(len(members))],
            "facts": _facts(members),
            "differences": _differences(members),
            "curves": draw_curves(curves),
            "measures": _measures(measures),
            "intervals": draw_intervals("SEG", measures),
            "verdicts": verdicts([(m.chosen.label, m.cells) for m in members if m.cells is not None]),
            "frames": frames,
            "more_frames": more,
            "kinds": [(kind, to_hex(colour), None) for kind, colour in KINDS.items()],
            "notes": _notes(members, same),
        },
    )


def _measures(runs: Sequence[Mapping[str, Measure]]) -> list[tuple[str, list[Measure | None]]]:
    """A row for each measure that any of the runs has."""
    known = [name for name in MEASURES if any(name in run for run in runs)]
    return [(name, [run.get(name) for run in runs]) for name in known]


def _gather(client: MlflowClient, chosen: Selected) -> _Member:
    training, test = chosen.training, chosen.test
    cells = None if test is None else read_cells(client, test)
    return _Member(
        chosen,
        {} if test is None else measured(test.data.metrics, cells),
        cells,
        {} if test is None else read_strips(client, test),
        {} if training is None else read_curves(client, training),
        {
            half: None if run is None else read_config(client, run)
            for half, run in (("training", training), ("test", test))
        },
    )


def _same_data(members: Sequence[_Member], member: _Member) -> bool:
    """Whether the frames of a run can stand beside those of the first one that has any."""
    reference = next((other for other in members if other.strips), None)
    if reference is None or not member.strips:
        return False
    if member.cells is not None and reference.cells is not None and member.cells.truth and reference.cells.truth:
        return same_data(reference.cells, member.cells)
    return _tag(member.chosen.test, "data.fingerprint") == _tag(reference.chosen.test, "data.fingerprint")


def _facts(members: Sequence[_Member]) -> list[_Row]:
    """What the runs are, a row for each fact that any of them has."""
    rows: list[_Row] = [
        ["training", *(_id(member.chosen.training) for member in members)],
        ["test", *(_id(member.chosen.test) for member in members)],
    ]
    for tag, name in _TAGS.items():
        values = [_either(member.chosen, tag, last="test" in tag) for member in members]
        if any(values):
            rows.append([name, *(value and value[:12] if name == "commit" else value for value in values)])
    return rows


def _either(chosen: Selected, tag: str, last: bool) -> str | None:
    """A tag of the training, or of the test where that has none; the other way round with `last`."""
    runs = (chosen.test, chosen.training) if last else (chosen.training, chosen.test)
    return next((value for run in (*runs, chosen.run) if (value := _tag(run, tag))), None)


def _differences(members: Sequence[_Member]) -> dict[str, tuple[list[_Row], list[_Row]]]:
    """For trainings and tests, a row for each option that differs among those whose configuration is known.

    A test has the method's options from the checkpoint: what differs between trainings is not told again.

    Returns:
        The rows of options that all have, and of those that only some have, as runs of different methods do.
    """
    parted: dict[str, tuple[list[_Row], list[_Row]]] = {}
    told: set[str] = set()
    for half in ("training", "test"):
        known = [number for number, member in enumerate(members) if member.configs[half] is not None]
        table = differences([members[number].configs[half] or {} for number in known])
        rows: list[_Row] = [
            [name, *(values[known.index(number)] if number in known else None for number in range(len(members)))]
            for name, values in table.items()
            if name not in told
        ]
        parted[half] = [row for row in rows if ABSENT not in row], [row for row in rows if ABSENT in row]
        told |= table.keys()
    return parted


def _notes(members: Sequence[_Member], same: Sequence[int]) -> list[str]:
    """What is missing, a sentence for each."""
    notes = []
    for number, member in enumerate(members):
        label, chosen = member.chosen.label, member.chosen
        if chosen.training is None:
            notes.append(f"{label}: the training whose checkpoint it tested is not in this store: no curves.")
        elif member.configs["training"] is None:
            notes.append(f"{label}: its training kept no configuration: its options are not compared.")
        if chosen.test is None:
            notes.append(f"{label}: no checkpoint of it was tested: no measures and no frames.")
            continue
        if member.cells is None:
            notes.append(f"{label}: its test kept no table of cells (test/cells.json): no intervals.")
        if not all(measure.whole for measure in member.measures.values()):
            notes.append(
                f"{label}: its table of cells does not hold the whole test: the intervals are of the cells in it."
            )
        if not member.strips:
            notes.append(f"{label}: its test kept no pictures (test/frames): its frames are not shown.")
        elif number not in same:
            notes.append(f"{label}: it was tested on other data than the first run: its frames are not shown.")
    return notes


def _tag(run: Run | None, name: str) -> str | None:
    return None if run is None else run.data.tags.get(name)


def _id(run: Run | None) -> str | None:
    return None if run is None else run.info.run_id
