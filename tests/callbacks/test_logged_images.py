import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from lightning.pytorch.trainer.states import TrainerFn
from mlflow import MlflowClient
from PIL import Image
from torch.utils.data import DataLoader

from lightning_cells.callbacks import images as module
from lightning_cells.callbacks.images import Pictures
from lightning_cells.data.clips import Chunk, ChunkDataset
from lightning_cells.data.ctc import SequenceFiles
from lightning_cells.data.image_files import write_image
from lightning_cells.data.sampling import ChunkSampler
from lightning_cells.data.sequence import Sequence
from lightning_cells.errors import InputError
from lightning_cells.methods import CellMethod, Tracked

SIZE = (24, 32)
CELL = np.zeros(SIZE, np.int32)
CELL[5:15, 5:15] = 3


class Client:
    def __init__(self):
        self.logged = []

    def log_image(self, run, image, key, step):
        self.logged.append((run, image, key, step))


class Logger(MLFlowLogger):
    """An MLflow logger without MLflow."""

    def __init__(self):
        self.client = Client()

    experiment = property(lambda self: self.client)
    run_id = property(lambda self: "the run")


def video(name: str, folder, frames: int = 6, seg: tuple[int, ...] = (), first: int = 10) -> Sequence:
    """A video without markers whose one cell stands still."""
    files = {first + k: folder / f"{name}_{k}.tif" for k in seg}
    for path in files.values():
        write_image(path, CELL.astype(np.uint16))
    return Sequence(
        name=name,
        frames=np.random.default_rng(0).random((frames, *SIZE)).astype(np.float16),
        labels=None,
        classes=None,
        numbers=tuple(range(first, first + frames)),
        annotated=np.isin(np.arange(frames), seg),
        lineage={},
        size=SIZE,
        files=SequenceFiles(name, {}, files, {}, None, {}, 3),
        fingerprint="",
    )


def trainer(*loggers, **changes):
    state = {
        "sanity_checking": False,
        "is_global_zero": True,
        "loggers": list(loggers),
        "global_step": 42,
        "current_epoch": 0,
        "state": SimpleNamespace(fn=TrainerFn.FITTING),
    }
    return SimpleNamespace(**{**state, **changes})


def chunk(sequence: Sequence, start: int, stop: int) -> tuple[Tracked, Chunk]:
    frames = torch.from_numpy(sequence.frames[start:stop, None].astype(np.float32))
    labels = [CELL.copy() for _ in range(start, stop)]
    last = stop == len(sequence)
    return Tracked(start, labels, {}), Chunk(frames, None, None, sequence, start, start == 0, last)


def validate(callback: Pictures, state, videos: list[Sequence], size: int = 4, method=None) -> None:
    callback.on_validation_epoch_start(state, method)
    for sequence in videos:
        for batch, start in enumerate(range(0, len(sequence), size)):
            outputs = chunk(sequence, start, min(start + size, len(sequence)))
            callback.on_validation_batch_end(state, method, *outputs, batch)
    callback.on_validation_epoch_end(state, method)


@pytest.fixture
def drawn(monkeypatch):
    """The frames of each montage from now on."""
    calls = []
    original = module.numbered

    def numbered(key, samples):
        calls.append([(sample.sequence, sample.number) for sample in samples])
        return original(key, samples)

    monkeypatch.setattr(module, "numbered", numbered)
    return calls


def test_a_picture_of_each_frame_is_logged_by_every_mlflow_logger(tmp_path):
    loggers = [Logger(), CSVLogger(tmp_path), Logger()]
    validate(Pictures(samples=2), trainer(*loggers), [video("01", tmp_path, seg=(1,))])
    for logger in (loggers[0], loggers[2]):
        for (run, image, key, step), number in zip(logger.client.logged, (1, 2), strict=True):
            assert (run, key, step) == ("the run", f"val/frame_{number}", 42)
            assert image.dtype == np.uint8
            assert image.shape[2] == 3


def test_a_test_has_its_own_picture(tmp_path):
    callback, logger = Pictures(), Logger()
    state = trainer(logger, state=SimpleNamespace(fn=TrainerFn.TESTING))
    callback.on_test_epoch_start(state, None)
    callback.on_test_batch_end(state, None, *chunk(video("01", tmp_path), 0, 6), 0)
    callback.on_test_epoch_end(state, None)
    assert [key for _, _, key, _ in logger.client.logged] == [f"test/frame_{number}" for number in (1, 2, 3)]


def test_frames_with_truth_come_first_from_all_videos(tmp_path, drawn):
    videos = [video("01", tmp_path, 30, (2, 9)), video("02", tmp_path, 30), video("03", tmp_path, 30, (7,))]
    validate(Pictures(samples=2), trainer(Logger()), videos)
    validate(Pictures(samples=3), trainer(Logger()), videos)
    validate(Pictures(samples=4), trainer(Logger()), videos)
    assert {name for name, _ in drawn[0]} == {"01", "03"}
    assert drawn[1] == [("01", 12), ("01", 19), ("03", 17)]
    assert set(drawn[1]) < set(drawn[2])


def test_frames_are_spread_over_a_video(tmp_path, drawn):
    validate(Pictures(samples=3), trainer(Logger()), [video("01", tmp_path, 40)])
    assert drawn == [[("01", 20), ("01", 30), ("01", 40)]]  # of 10 to 49


def test_the_choice_is_the_same_each_time_and_in_any_chunks(tmp_path, drawn):
    videos = [video(f"{k:02d}", tmp_path, 7, (0, 3)) for k in range(9)]
    callback = Pictures()
    validate(callback, trainer(Logger()), videos)
    validate(callback, trainer(Logger()), videos[::-1], size=3)
    validate(Pictures(), trainer(Logger()), videos, size=100)
    assert drawn[0] == drawn[1] == drawn[2]
    assert len({name for name, _ in drawn[0]}) == 3


def test_all_frames_of_a_short_validation_are_shown(tmp_path, drawn):
    validate(Pictures(samples=9), trainer(Logger()), [video("01", tmp_path, 3, (0, 1))])
    assert drawn == [[("01", 10), ("01", 11), ("01", 12)]]


def test_only_chosen_frames_are_kept_and_their_truth_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(Sequence, "truth", lambda self, index: (read.append(index), (None, None))[1])
    callback, state = Pictures(samples=2), trainer(Logger())
    for start in range(0, 80, 8):
        callback.on_validation_batch_end(state, None, *chunk(video("01", tmp_path, 80), start, start + 8), 0)
        assert len(callback._chosen.items()) <= 2
    assert not read
    callback.on_validation_epoch_end(state, None)
    assert len(read) == 2
    assert not callback._chosen.items()


def test_the_sample_belongs_together(tmp_path, monkeypatch):
    samples = []
    monkeypatch.setattr(module, "numbered", lambda key, shown: samples.extend(shown) or {})
    sequence = video("01", tmp_path, 9, (5,))
    outputs, batch = chunk(sequence, 4, 8)
    outputs.labels[1][20, 20] = 77
    callback, state = Pictures(samples=1), trainer(Logger())
    callback.on_validation_batch_end(state, None, outputs, batch, 0)
    outputs.labels[1][:] = 0  # a method may use its arrays again
    callback.on_validation_epoch_end(state, None)
    [sample] = samples
    assert (sample.number, sample.result[20, 20]) == (15, 77)
    assert np.array_equal(sample.frame, sequence.frames[5])
    assert np.array_equal(sample.truth, CELL)


@pytest.mark.parametrize("changes", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_nothing_is_drawn_in_a_sanity_check_or_by_other_processes(tmp_path, drawn, changes):
    validate(Pictures(), trainer(Logger(), **changes), [video("01", tmp_path)])
    assert not drawn


def test_nothing_is_drawn_without_mlflow(tmp_path, drawn):
    validate(Pictures(), trainer(CSVLogger(tmp_path)), [video("01", tmp_path)])
    assert not drawn


def test_an_empty_chunk_draws_nothing(tmp_path, drawn):
    callback, state = Pictures(), trainer(Logger())
    callback.on_validation_batch_end(state, None, *chunk(video("01", tmp_path), 0, 0), 0)
    callback.on_validation_epoch_end(state, None)
    assert not drawn


def test_epochs_are_left_out_in_training_only(tmp_path, drawn):
    videos = [video("01", tmp_path)]
    callback = Pictures(every_n_epochs=3)
    for epoch in range(7):
        validate(callback, trainer(Logger(), current_epoch=epoch), videos)
    assert len(drawn) == 2
    validate(callback, trainer(Logger(), state=SimpleNamespace(fn=TrainerFn.VALIDATING)), videos)
    assert len(drawn) == 3


def broken(*args, **options):
    raise ConnectionError("no route to host")


def test_a_failure_is_one_warning(tmp_path, monkeypatch):
    logger = Logger()
    monkeypatch.setattr(logger.client, "log_image", broken)
    callback, videos = Pictures(), [video("01", tmp_path)]
    with pytest.warns(UserWarning, match="ConnectionError: no route to host"):
        validate(callback, trainer(logger), videos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validate(callback, trainer(logger), videos)


def test_results_that_cannot_be_kept_are_a_warning_too(tmp_path):
    _, batch = chunk(video("01", tmp_path), 0, 6)
    with pytest.warns(UserWarning, match="could not be drawn"):
        Pictures().on_validation_batch_end(trainer(Logger()), None, None, batch, 0)


class Drawing(CellMethod):
    """Draws the mean of the frames that it is given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def open_video(self, size, first_frame=0):
        raise NotImplementedError

    def picture(self, frames):
        self.given.append(frames)
        return np.full((*SIZE, 3), len(self.given), np.uint8)


@pytest.fixture
def shown(monkeypatch):
    """The samples of each montage from now on."""
    calls = []
    monkeypatch.setattr(module, "numbered", lambda key, samples: calls.append(samples) or {})
    return calls


def test_the_method_draws_each_shown_frame_once_from_those_before(tmp_path, shown):
    method, sequence = Drawing(), video("01", tmp_path, frames=20, seg=(0, 17))
    validate(Pictures(samples=2), trainer(Logger()), [sequence], method=method)
    assert [sample.number for sample in shown[0]] == [10, 27]
    assert [frames.shape for frames in method.given] == [(1, 1, *SIZE), (2, 1, *SIZE)]
    for frames, stop in zip(method.given, (1, 18), strict=True):
        assert frames.dtype == torch.float32
        np.testing.assert_array_equal(frames[:, 0], sequence.frames[stop - len(frames) : stop].astype(np.float32))
    assert [sample.seen.max() for sample in shown[0]] == [1, 2]


def test_the_method_draws_before_others_hear_of_the_end(tmp_path, shown):
    """Averaged weights are in place while batches run, not when the epoch ends."""
    method, state, callback, sequence = Drawing(), trainer(Logger()), Pictures(), video("01", tmp_path)
    callback.on_validation_epoch_start(state, method)
    callback.on_validation_batch_end(state, method, *chunk(sequence, 0, 3), 0)
    assert not method.given
    callback.on_validation_batch_end(state, method, *chunk(sequence, 3, 6), 1)
    assert len(method.given) == 3
    callback.on_validation_epoch_end(state, method)
    assert len(method.given) == 3
    callback.on_validation_batch_end(state, method, *chunk(sequence, 0, 3), 0)  # and then it is cut short
    callback.on_validation_epoch_end(state, method)
    assert len(method.given) == 6
    assert all(sample.seen is not None for sample in shown[1])


def test_a_method_that_cannot_draw_costs_one_panel(tmp_path, shown):
    method, callback = Drawing(), Pictures()
    method.picture = broken
    with pytest.warns(UserWarning, match="could not be drawn or logged: ConnectionError"):
        validate(callback, trainer(Logger()), [video("01", tmp_path)], method=method)
    assert len(shown[0]) == 3
    assert all(sample.seen is None for sample in shown[0])


def test_frames_of_a_validation_that_was_cut_short_are_forgotten(tmp_path, drawn):
    callback, state = Pictures(), trainer(Logger())
    callback.on_validation_batch_end(state, None, *chunk(video("01", tmp_path), 0, 6), 0)
    validate(callback, state, [video("02", tmp_path)])
    assert {name for name, _ in drawn[0]} == {"02"}


@pytest.mark.parametrize("options", [{"samples": 0}, {"every_n_epochs": 0}], ids=str)
def test_numbers_below_one_are_refused(options):
    with pytest.raises(InputError, match="at least 1"):
        Pictures(**options)


class Still(LightningModule):
    """Finds the cell wherever it is, and learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, index):
        return self.weight * 1.0

    def validation_step(self, batch, index):
        return Tracked(batch.start, [CELL.copy() for _ in batch.frames], {})

    test_step = validation_step

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch  # as the data module does

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_pictures_of_a_training_land_in_the_store(tmp_path):
    address = f"sqlite:///{tmp_path / 'store.db'}"
    logger = MLFlowLogger("cells", tracking_uri=address, artifact_location=(tmp_path / "artifacts").as_uri())
    videos = [video("01", tmp_path, seg=(1, 4)), video("02", tmp_path)]
    chunks = DataLoader(
        ChunkDataset(videos), sampler=ChunkSampler([6, 6], 4), batch_size=None, collate_fn=lambda batch: batch
    )
    loop = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        logger=logger,
        callbacks=[Pictures(samples=1)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*could not be drawn")
        loop.fit(Still(), DataLoader(torch.zeros(3, 1)), chunks)
        loop.test(Still(), chunks, verbose=False)

    client = MlflowClient(address)
    found = [file.path for file in client.list_artifacts(logger.run_id, "images") if file.path.endswith(".png")]
    names = sorted(path.removeprefix("images/").split("+timestamp")[0] for path in found)
    # the sanity check before the first step left nothing; the test comes at the step where training ended
    assert len(names) == 3
    assert names[1:] == ["val~frame_1+step+3", "val~frame_1+step+6"]
    assert names[0].startswith("test~frame_1+step+")
    image = Image.open(client.download_artifacts(logger.run_id, found[0], str(tmp_path)))
    assert image.mode == "RGB"
    assert image.width > 2 * 300
    assert client.get_run(logger.run_id).data.tags["mlflow.loggedImages"] == "True"
