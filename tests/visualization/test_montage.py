import re

import numpy as np
import pytest
from PIL import Image

from lightning_cells.data.tracks import Track
from lightning_cells.visualization import montage as module
from lightning_cells.visualization import video
from lightning_cells.visualization.drawing import grey, panel_size, resample, rims, save_png, track_colours
from lightning_cells.visualization.montage import KINDS, PANELS, Sample, montage, strip
from lightning_cells.visualization.video import track_picture

FOUR, SIDE = 4, 5  # panels in a row; a frame of 64 pixels is enlarged five times, to 320
LEFT = [module.MARGIN + k * (320 + module.GAP) for k in range(FOUR)]
TOP = module.HEADER + module.CAPTION


def blocks(*boxes: tuple[int, int, int, int, int], size=(64, 64), background=0) -> np.ndarray:
    """Labels with a rectangle for each (label, top, left, bottom, right)."""
    labels = np.full(size, background, np.int32)
    for label, top, left, bottom, right in boxes:
        labels[top:bottom, left:right] = label
    return labels


def shown(image: np.ndarray, panel: int, row: float, column: float) -> np.ndarray:
    """What a panel shows of a 64 x 64 frame; (3, 4) is the upper left corner of a pixel, (3.5, 4.5) its middle."""
    return image[TOP + int(row * SIDE), LEFT[panel] + int(column * SIDE)] / 255


def looks(image: np.ndarray, row: float, column: float) -> str:
    """What the errors panel says of a pixel over a black frame: the kind by its filled or full colour, or nothing."""
    pixel = shown(image, 3, row, column)
    for kind, colour in KINDS.items():
        if np.allclose(pixel, colour, atol=0.01):
            return f"{kind} outline"
        if np.allclose(pixel, 0.45 * np.array(colour), atol=0.01):
            return kind
    return "nothing" if not pixel.any() else str(pixel)


def write_down(monkeypatch) -> list[str]:
    """Collects the text that is put on pictures from now on."""
    texts: list[str] = []
    original = module.write

    def write(page, text, at, **options):
        texts.append(text)
        original(page, text, at, **options)

    monkeypatch.setattr(module, "write", write)
    return texts


TRUTH = blocks(
    (1, 4, 4, 14, 14),  # matched by 11
    (2, 4, 24, 14, 34),  # missed
    (3, 24, 4, 34, 24),  # split into 13 and 14
    (4, 44, 4, 54, 14),  # merged with 5 into 15
    (5, 44, 14, 54, 24),
)
RESULT = blocks(
    (11, 5, 5, 14, 14),
    (13, 24, 4, 34, 13),
    (14, 24, 13, 34, 24),
    (15, 44, 4, 54, 24),
    (16, 44, 44, 54, 54),  # spurious
)


def test_the_errors_have_their_colours(monkeypatch):
    texts = write_down(monkeypatch)
    image = montage([Sample("01", 7, np.zeros((64, 64)), RESULT, TRUTH)])
    assert image.dtype == np.uint8
    assert image.shape[1] == 2 * module.MARGIN + FOUR * 320 + 3 * module.GAP
    assert looks(image, 9, 9) == "nothing"
    assert looks(image, 4, 9.5) == "matched outline"  # of the true cell
    assert looks(image, 5, 9.5) == "nothing"  # not of the predicted one
    assert looks(image, 9, 29) == "missed"
    assert looks(image, 4, 29) == "missed outline"
    assert looks(image, 29, 8) == "split"
    assert looks(image, 29, 18) == "split"
    assert looks(image, 29, 13) == "split outline"  # between the parts
    assert looks(image, 49, 8) == "merged"
    assert looks(image, 49, 18) == "merged"
    assert looks(image, 49, 14) == "merged outline"  # between the true cells
    assert looks(image, 49, 49) == "spurious"
    assert looks(image, 44, 49) == "spurious outline"
    assert looks(image, 60, 60) == "nothing"
    for text in ("Frame", "Truth", "Prediction", "Errors"):
        assert text in texts
    for text in ("matched 1", "missed 1", "spurious 1", "split 1", "merged 2"):
        assert text in texts
    iou = [81 / 100, 0, 110 / 200, 100 / 200, 100 / 200]  # by hand
    assert f"01   frame 7   SEG {np.mean(iou):.3f}   1 of 5 cells matched" in texts


def test_true_and_predicted_cells_have_the_colours_of_their_tracks():
    image = montage([Sample("01", 0, np.zeros((64, 64)), RESULT, TRUTH)])
    assert np.allclose(shown(image, 1, 4, 9), track_colours(np.array(1)), atol=0.01)  # outlines
    assert np.allclose(shown(image, 2, 5, 9), track_colours(np.array(11)), atol=0.01)
    assert np.allclose(shown(image, 1, 9, 9), 0.3 * track_colours(np.array(1)), atol=0.01)  # fills
    assert np.allclose(shown(image, 2, 9, 9), 0.3 * track_colours(np.array(11)), atol=0.01)
    assert not shown(image, 0, 4, 9).any()


def test_nothing_is_spurious_where_the_truth_is_unknown(monkeypatch):
    texts = write_down(monkeypatch)
    truth = np.where(TRUTH == 0, -1, TRUTH)
    truth[:, 40:] = -1
    image = montage([Sample("01", 0, np.zeros((64, 64)), RESULT, truth)])
    assert "spurious 0" in texts
    assert "truth unknown" in texts
    panel = image[TOP : TOP + 320, LEFT[3] : LEFT[3] + 320] / 255
    assert not np.isclose(panel, KINDS["spurious"], atol=0.01).all(axis=2).any()
    assert looks(image, 9, 29) == "missed"
    corner = np.stack([shown(image, 3, row, 60) for row in range(50, 64)])
    assert corner.any()  # hatched
    assert not corner.all()


def test_what_the_network_says_is_beside_the_frame(monkeypatch):
    texts = write_down(monkeypatch)
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 255, (32, 32, 3), np.uint8)
    frame = rng.random((64, 64))
    image = montage([Sample("01", 0, frame, RESULT, TRUTH, seen), Sample("02", 0, frame, RESULT, TRUTH)])
    assert [text for text in texts if text in {*PANELS, module.SEEN}] == [
        "Frame",
        "Network",
        "Truth",
        "Prediction",
        "Errors",
    ]
    assert image.shape[1] == 2 * module.MARGIN + 5 * 320 + 4 * module.GAP
    np.testing.assert_array_equal(image[TOP : TOP + 320, LEFT[1] : LEFT[1] + 320], np.kron(seen, np.ones((10, 10, 1))))
    assert texts.count("not drawn") == 1
    below = image[TOP + 320 + module.GAP + module.CAPTION :]
    dark, bright = (below[20:280, left : left + 320].astype(int) for left in (LEFT[1], LEFT[0]))
    assert np.abs(2 * dark - bright).max() <= 2, "the darkened frame where there is none"
    np.testing.assert_array_equal(
        np.delete(image[:, : image.shape[1]], np.s_[LEFT[1] : LEFT[1] + 320 + module.GAP], axis=1)[TOP : TOP + 320],
        montage([Sample("01", 0, frame, RESULT, TRUTH)])[TOP : TOP + 320],
    )


def test_a_large_picture_of_the_network_is_shrunk_by_areas():
    seen = np.random.default_rng(0).integers(0, 255, (640, 640, 3), np.uint8)
    image = montage([Sample("01", 0, np.zeros((64, 64)), RESULT, TRUTH, seen)])
    mean = seen.reshape(320, 2, 320, 2, 3).mean((1, 3))
    np.testing.assert_allclose(image[TOP : TOP + 320, LEFT[1] : LEFT[1] + 320], mean, atol=1)


def test_a_complete_truth_has_no_hatching(monkeypatch):
    texts = write_down(monkeypatch)
    montage([Sample("01", 0, np.zeros((64, 64)), RESULT, TRUTH)])
    assert "truth unknown" not in texts


@pytest.mark.parametrize(
    ("truth", "notes"),
    [
        (None, ["no truth", "no truth"]),
        (np.full((64, 64), -1, np.int32), ["no truth", "no truth"]),
        (blocks((-9, 10, 10, 20, 20), background=-1), ["markers only", "no truth"]),
        (TRUTH, []),
    ],
)
def test_a_missing_truth_is_said_to_be_missing(monkeypatch, truth, notes):
    texts = write_down(monkeypatch)
    image = montage([Sample("01", 3, np.zeros((64, 64)), RESULT, truth)])
    assert [text for text in texts if text in ("no truth", "markers only")] == notes
    if notes:
        assert "01   frame 3   5 cells found" in texts
        assert "missed 0" in texts
        assert looks(image, 9, 9) == "nothing"
    if "markers only" in notes:
        assert np.allclose(shown(image, 1, 10, 15), track_colours(np.array(8)), atol=0.01)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (10, 4000), (200, 320), (321, 321), (1000, 700)], ids=str)
@pytest.mark.parametrize("cells", ["none", "one pixel", "all"])
@pytest.mark.parametrize("known", [True, False])
def test_any_frame_can_be_drawn(size, cells, known):
    labels = np.full(size, int(cells == "all"), np.int32)
    if cells == "one pixel":
        labels[size[0] // 2, size[1] // 2] = 70
    frame = np.random.default_rng(0).random(size).astype(np.float16)
    image = montage([Sample("a name", 0, frame, labels, labels if known else None)])
    assert image.shape[1] <= 2 * module.MARGIN + FOUR * 320 + 3 * module.GAP
    assert image.shape[0] <= TOP + 320 + module.GAP + 2 * module.LEGEND + module.MARGIN
    track_picture([frame], [labels])


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_a_blank_frame_is_black(value):
    assert not grey(np.full((9, 9), value), (9, 9)).any()


def test_a_picture_of_nothing():
    assert montage([]).ndim == 3


def test_frames_of_unlike_sizes_share_a_picture_and_the_counts_add_up(monkeypatch):
    texts = write_down(monkeypatch)
    small = Sample("01", 0, np.zeros((32, 32)), RESULT, TRUTH)  # frame at half the scale of the labels
    large = np.kron(TRUTH, np.ones((8, 4), np.int32))
    image = montage([small, Sample("02", 1, np.zeros(large.shape), large, large)])
    assert image.shape[0] > TOP + 2 * 320
    assert "matched 6" in texts  # one and five


def test_panels_are_enlarged_by_whole_numbers_and_shrunk_to_fit():
    assert panel_size((64, 50)) == (320, 250)
    assert panel_size((200, 100)) == (200, 100)
    assert panel_size((640, 320)) == (320, 160)
    assert panel_size((10, 4000)) == (1, 320)


def test_bright_and_dark_keep_their_places():
    frame = np.tile(np.linspace(-3, 8, 640), (640, 1))
    image = grey(frame, (320, 320))
    assert image.shape == (320, 320, 3)
    assert image.min() == 0
    assert image.max() == 1
    assert (np.diff(image[5, :, 0]) >= 0).all()


def test_thin_and_tiny_cells_survive_shrinking():
    labels = np.zeros((640, 640), np.int32)
    labels[100:400, 301] = 5  # a line one pixel wide
    labels[500, 501] = 6
    labels[550:570, 550:570] = 9
    labels[553, 553] = 7  # one pixel within another cell
    oblique = np.arange(20, 90), np.arange(20, 90) * 2 + 5  # goes through the middle of some of the new pixels only
    labels[oblique] = 8
    small = resample(labels, (64, 64))
    assert set(np.unique(small)) == {0, 5, 6, 7, 8, 9}
    assert (small[10:40, 30] == 5).all()
    assert (small[oblique[0] // 10, oblique[1] // 10] == 8).all()
    assert small[0, 63] == 0
    assert resample(small, (64, 64)) is small


def test_rims_part_touching_cells_but_do_not_close_at_the_border():
    rim = rims(np.array([[1, 1, 2], [1, 1, 2], [1, 1, 2]]))
    assert rim.tolist() == [[False, True, True]] * 3
    assert rims(np.array([[0, 0, 0], [0, 3, 0], [0, 0, 0]])).sum() == 1


def test_sisters_differ_in_colour_and_a_track_keeps_its_own():
    colours = track_colours(np.arange(1, 30, dtype=np.uint16))
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 0.2
    assert np.array_equal(track_colours(np.array([[17]]))[0, 0], colours[16])


def test_the_sheet_shows_evenly_spaced_frames_with_tails(monkeypatch):

    texts = []
    monkeypatch.setattr(video, "write", lambda page, text, at, **options: texts.append(text))
    labels = [blocks((3, 20, 4 + 4 * k, 26, 10 + 4 * k)) for k in range(12)]
    frames = [np.zeros((64, 64))] * 12
    image = track_picture(frames, labels, numbers=range(30, 42), tail=8)
    assert [int(re.sub(r"\D", "", text)) for text in texts] == [30, 32, 33, 35, 36, 38, 39, 41]
    assert image.shape == (2 * 320 + video.GAP, 4 * 320 + 3 * video.GAP, 3)
    last = image[320 + video.GAP :, 3 * (320 + video.GAP) :]
    path = last[22 * SIDE + SIDE // 2 + 2]  # row of the centres, which lie between pixels 22 and 23
    colour = track_colours(np.array(3)) * 255
    reach = np.flatnonzero(np.abs(path - colour).max(axis=1) < 4)
    assert abs(reach.min() - (50.5 - 32 + 0.5) * SIDE) < 4  # eight frames of four pixels back
    assert track_picture(frames, labels, tail=0)[320 + video.GAP :, 3 * (320 + video.GAP) :][:, :100].max() == 0


def test_the_tail_of_a_daughter_begins_at_her_mother():
    labels = [blocks((1, 30, 30, 34, 34)), blocks((2, 10, 30, 14, 34), (3, 50, 30, 54, 34))]
    lineage = {1: Track(1, 0, 0, 0), 2: Track(2, 1, 1, 1), 3: Track(3, 1, 1, 1)}
    frames = [np.zeros((64, 64))] * 2
    between = (slice(20 * SIDE, 26 * SIDE), slice(320 + 6, None))  # second panel, above the mother's place
    assert track_picture(frames, labels, lineage=lineage)[between].any()
    assert not track_picture(frames, labels)[between].any()


def test_a_sheet_needs_as_many_frames_as_labels():
    with pytest.raises(ValueError, match="0 frames"):
        track_picture([], [])
    with pytest.raises(ValueError, match="give as many"):
        track_picture([np.zeros((4, 4))], [])


def test_a_saved_picture_is_whole(tmp_path):
    image = montage([Sample("01", 0, np.zeros((64, 64)), RESULT, TRUTH)])
    save_png(tmp_path / "new" / "picture.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "picture.png")), image)
    with pytest.raises(TypeError):
        save_png(tmp_path / "new" / "picture.png", np.zeros((3, 3, 7)))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "picture.png")), image)


def test_a_strip_is_the_row_of_a_montage_without_text_around():
    sample = Sample(
        "01", 3, np.zeros((64, 64)), blocks((1, 4, 4, 20, 20)), blocks((1, 4, 4, 20, 20), (2, 40, 40, 60, 60))
    )
    image, drawn = montage([sample]), strip(sample)
    assert drawn.image.shape == (320, FOUR * 320 + (FOUR - 1) * module.GAP, 3)
    assert np.array_equal(drawn.image, image[TOP : TOP + 320, LEFT[0] : LEFT[-1] + 320])
    assert drawn.caption == "01   frame 3   SEG 0.500   1 of 2 cells matched"
    assert drawn.kinds == {"matched": 1, "missed": 1, "unknown": 0}


def test_a_block_has_the_same_panels_in_two_lines(monkeypatch):
    texts = write_down(monkeypatch)
    sample = Sample("01", 7, np.random.default_rng(0).random((64, 64)), RESULT, TRUTH)
    line, block = montage([sample]), montage([sample], block=True)
    assert texts.count("Frame") == texts.count("Errors") == 2
    assert block.shape[1] == 2 * module.MARGIN + 2 * 320 + module.GAP
    for panel, left in enumerate(LEFT):
        top, column = TOP + panel // 2 * (320 + module.CAPTION), LEFT[panel % 2]
        there, here = block[top : top + 320, column : column + 320], line[TOP : TOP + 320, left : left + 320]
        np.testing.assert_array_equal(there, here)
    seen = np.zeros((8, 8, 3), np.uint8)
    wide = montage([Sample("01", 7, sample.frame, RESULT, TRUTH, seen)], block=True)
    assert wide.shape[1] == 2 * module.MARGIN + 3 * 320 + 2 * module.GAP
    assert wide.shape[0] == block.shape[0]
