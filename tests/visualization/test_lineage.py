import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.visualization import lineage as module
from lightning_cells.visualization.drawing import track_colours
from lightning_cells.visualization.lineage import (
    MOST_SPURIOUS,
    MOST_TRUE,
    LineageRow,
    arrange,
    lineage_figure,
    lineage_picture,
)
from lightning_cells.visualization.montage import KINDS

PAPER = to_rgb(module._PAPER)


def lineage(*rows: tuple[int, int, int, int]) -> Lineage:
    return {row[0]: Track(*row) for row in rows}


TRUTH = lineage((1, 0, 4, 0), (2, 5, 9, 1), (3, 5, 9, 1), (4, 0, 9, 0))
# 11 is 1 until it divides into 12 and 13; 14 is 4 until frame 2, then 15 is; 16 is nothing
RESULT = lineage((11, 0, 4, 0), (12, 5, 9, 11), (13, 5, 9, 11), (14, 0, 2, 0), (15, 3, 9, 0), (16, 1, 3, 0))
PARTNERS = {f: ({1: 11} if f < 5 else {2: 12, 3: 13 if f < 8 else 0}) | {4: 14 if f < 3 else 15} for f in range(10)}


def test_a_mother_is_between_her_daughters_and_the_result_beside_them():
    rows = arrange(TRUTH, RESULT, PARTNERS)
    assert rows.rows == [
        LineageRow(2, [12]),
        LineageRow(1, [11]),
        LineageRow(3, [13]),
        LineageRow(4, [14, 15]),
        LineageRow(0, [16]),
    ]
    assert (rows.families, rows.families_shown, rows.spurious, rows.spurious_shown) == (2, 2, 1, 1)


def test_tracks_that_follow_one_at_the_same_time_lie_below_each_other():
    both = {f: {1: 7 if f < 6 else 8} for f in range(10)}
    rows = arrange(lineage((1, 0, 9, 0)), lineage((7, 0, 9, 0), (8, 2, 9, 0)), both)
    assert rows.rows == [LineageRow(1, [7]), LineageRow(0, [8])]


def test_of_many_families_those_with_errors_are_shown_and_of_one_its_beginning():
    many = lineage(*((k, 0, 9, 0) for k in range(1, 101)))
    rows = arrange(many, lineage((200, 0, 9, 0)), {f: {k: 0 if k > 60 else 200 for k in many} for f in range(10)})
    assert [row.truth for row in rows.rows if row.truth] == list(range(61, 101))
    assert (rows.families, rows.families_shown) == (100, MOST_TRUE)
    deep = lineage(*((k, k, k, k // 2) for k in range(1, 128)))
    rows = arrange(deep, {}, {})
    assert {row.truth for row in rows.rows} == set(range(1, MOST_TRUE + 1))
    assert all(deep[row.truth].parent in {0, *(other.truth for other in rows.rows)} for row in rows.rows)


def test_spurious_tracks_are_bounded():
    alone = lineage(*((k, 0, k, 0) for k in range(1, 31)))
    rows = arrange(lineage((1, 0, 30, 0)), alone, {f: {1: 0} for f in range(31)})
    assert [row.result for row in rows.rows] == [[], *([30 - k] for k in range(MOST_SPURIOUS))]
    assert (rows.spurious, rows.spurious_shown) == (30, MOST_SPURIOUS)


def test_without_truth_there_is_the_result():
    rows = arrange({}, RESULT, {})
    assert [row.result for row in rows.rows] == [[12], [11], [13], [14], [15], [16]]
    assert lineage_picture({}, RESULT, {}).shape[1] < lineage_picture(TRUTH, RESULT, PARTNERS).shape[1]
    assert lineage_picture({}, {}, {}).dtype == np.uint8


class Drawn:
    """A figure, and the pixel of a time in a row of one of its trees."""

    def __init__(self, *what) -> None:
        self.figure = lineage_figure(*what)
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        self.image = np.asarray(canvas.buffer_rgba())[..., :3] / 255

    def at(self, side: int, row: int, frame: float, above: int = 0) -> np.ndarray:
        x, y = self.figure.axes[side].transData.transform((frame, row))
        return self.image[round(self.image.shape[0] - y) - above, round(x)]


def test_lines_have_the_colour_of_the_true_track_where_they_match():
    drawn = Drawn(TRUTH, RESULT, PARTNERS)
    for row, truth in enumerate((2, 1, 3, 4)):
        for side in (0, 1):
            frame = 2.5 if truth == 1 else 6.5
            assert np.allclose(drawn.at(side, row, frame), track_colours(np.array(truth)), atol=0.02)
    assert np.allclose(drawn.at(1, 3, 1.5), track_colours(np.array(4)), atol=0.02)  # 14 as 15
    for side, row, frame in ((0, 2, 8.5), (1, 2, 8.5), (1, 4, 2.5)):  # missed, and nothing there: thin and grey
        assert np.ptp(drawn.at(side, row, frame)) < 0.05
        assert np.allclose(drawn.at(side, row, frame, above=2), PAPER)
    assert not np.allclose(drawn.at(0, 2, 6.5, above=2), PAPER)


def test_divisions_are_marked_in_both():
    found = Drawn(TRUTH, RESULT, PARTNERS)
    for side in (0, 1):
        assert np.allclose(found.at(side, 1, 5), KINDS["matched"], atol=0.02)
    alone = {label: track._replace(parent=0) for label, track in RESULT.items()}
    missed = Drawn(TRUTH, alone, PARTNERS)
    assert np.allclose(missed.at(0, 1, 5), KINDS["missed"], atol=0.02)
    false = Drawn({1: TRUTH[1], 2: TRUTH[2]._replace(parent=0)} | {3: TRUTH[3]._replace(parent=0)}, RESULT, PARTNERS)
    assert np.allclose(false.at(1, 0, 5), KINDS["spurious"], atol=0.02)


def test_one_cell_over_two_true_ones_is_thinner():
    truth = lineage((1, 0, 9, 0), (2, 0, 9, 0))
    drawn = Drawn(truth, lineage((5, 0, 9, 0)), {f: {1: 5, 2: 5 if f > 4 else 0} for f in range(10)})
    assert not np.allclose(drawn.at(0, 0, 2.5, above=2), PAPER)
    assert np.allclose(drawn.at(0, 0, 7.5, above=2), PAPER)
    assert np.allclose(drawn.at(1, 0, 7.5, above=2), PAPER)
    assert np.ptp(drawn.at(0, 0, 7.5)) > 0.3
